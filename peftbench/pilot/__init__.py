"""From a few hundred labelled rows to a decision: cross-validation, baselines, go or no-go."""
