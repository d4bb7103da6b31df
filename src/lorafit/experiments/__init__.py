"""Several runs beside each other: compare, search, diff, reproduce."""
