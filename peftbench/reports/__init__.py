"""One question to the records, one file. Never torch, never each other."""
