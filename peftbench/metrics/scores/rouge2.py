"""ROUGE-2 of texts."""

from peftbench.metrics.text_overlap import rouge, text_metric

METRIC = text_metric("rouge2", "F1 of pairs of words", 2, rouge("rouge2"))
