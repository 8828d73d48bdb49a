"""The values that all stages share: runs, records, evaluations, plans, and errors."""
