"""peftbench."""
