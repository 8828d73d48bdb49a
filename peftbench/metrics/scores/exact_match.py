"""Exact match of texts."""

from peftbench.metrics.text_overlap import exact_match, text_metric

METRIC = text_metric(
    "exact_match",
    "exact match",
    "share of texts equal to the target, ignoring case, articles and punctuation",
    3,
    exact_match,
)
