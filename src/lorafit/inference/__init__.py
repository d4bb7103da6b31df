"""A trained model at work: prediction, batch jobs, explanation, export."""
