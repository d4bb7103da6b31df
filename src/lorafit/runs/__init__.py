"""A run on disk: its folder, records, journal and saved model."""
