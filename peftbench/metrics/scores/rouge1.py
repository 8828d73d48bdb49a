"""ROUGE-1 of texts."""

from peftbench.metrics.text_overlap import rouge, text_metric

METRIC = text_metric("rouge1", "F1 of words", 1, rouge("rouge1"))
