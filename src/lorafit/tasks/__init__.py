"""What differs between single-label, multi-label, regression and ordinal tasks, and only that."""
