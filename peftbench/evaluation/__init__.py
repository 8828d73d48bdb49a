"""Suites on trained weights, and training on a sequence of data."""
