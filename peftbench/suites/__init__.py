"""Evaluations beyond the task's own score: one question, one file."""
