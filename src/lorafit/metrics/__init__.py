"""Scores of a classifier and how sure they are: numpy in, numpy or records out."""
