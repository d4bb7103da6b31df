"""What is wrong with texts and labels, before a model learns it."""
