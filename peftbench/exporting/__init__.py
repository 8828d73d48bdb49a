"""Trained weights as folders for other programs, and predictions from a run or such a folder."""
