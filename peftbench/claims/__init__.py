"""Claims of papers as data, and whether a user's records support them."""
