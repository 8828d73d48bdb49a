"""Token F1 of texts."""

from peftbench.metrics.text_overlap import text_metric, token_f1

METRIC = text_metric(
    "token_f1",
    "token F1",
    "F1 of the words that text and target share, ignoring case, articles and punctuation",
    4,
    token_f1,
)
