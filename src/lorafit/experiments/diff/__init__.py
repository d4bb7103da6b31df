"""Two runs on the same rows: what changed, and whether it may."""
