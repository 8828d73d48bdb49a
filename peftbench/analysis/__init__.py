"""Numbers from records: groups of runs, comparisons, costs, pivots. No tables, no torch."""
