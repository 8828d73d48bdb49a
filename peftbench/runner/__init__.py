"""Sweeps on this machine: worker processes, progress, shards, downloads."""
