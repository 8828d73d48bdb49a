"""One run from its data to its record: the training loop and what it needs."""
