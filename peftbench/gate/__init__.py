"""Whether a new model may replace an old one: paired measurements and limits."""
