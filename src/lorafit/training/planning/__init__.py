"""What a run will cost, and the settings that fit a budget."""
