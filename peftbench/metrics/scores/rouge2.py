"""ROUGE-2 of texts."""

from peftbench.metrics.text_overlap import rouge, text_metric

METRIC = text_metric(
    "rouge2",
    "ROUGE-2",
    "F1 of the pairs of words that text and target share",
    2,
    rouge("rouge2"),
)
