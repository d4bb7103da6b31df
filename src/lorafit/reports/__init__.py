"""What people read of one run: the report, the model card, trackers."""
