"""Export of a trained model, for machines without torch."""
