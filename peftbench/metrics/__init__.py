"""Scores of predictions, and how well they are calibrated."""
