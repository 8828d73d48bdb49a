"""Linear layers that several methods insert."""
