"""Several runs in one forward pass over a shared backbone."""
