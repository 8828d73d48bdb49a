"""The results folder: records, alone and as a DataFrame, predictions, what is done and missing."""
