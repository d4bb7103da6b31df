"""Encoder and adapter: architectures, methods, tokenization, runtimes, acceleration."""
