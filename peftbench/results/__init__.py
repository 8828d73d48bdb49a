"""The results folder: records, predictions, their index, what is done and missing."""
