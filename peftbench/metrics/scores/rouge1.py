"""ROUGE-1 of texts."""

from peftbench.metrics.text_overlap import rouge, text_metric

METRIC = text_metric(
    "rouge1",
    "ROUGE-1",
    "F1 of the words that text and target share",
    1,
    rouge("rouge1"),
)
