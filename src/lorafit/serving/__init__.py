"""Trained models behind HTTP: many adapters on one base, and a page to try them."""
