"""Encoder and adapter, fast on a CPU."""
