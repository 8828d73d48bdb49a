"""Sweeps on a cluster: jobs, submissions, and schedulers."""
