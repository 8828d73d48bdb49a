"""Exact match of texts."""

from peftbench.metrics.text_overlap import exact_match, text_metric

METRIC = text_metric(
    "exact_match",
    "share of texts that are the wanted one, articles and punctuation aside",
    3,
    exact_match,
)
