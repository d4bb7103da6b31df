"""Trials of settings on validation rows."""
