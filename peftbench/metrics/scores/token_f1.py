"""Token F1 of texts."""

from peftbench.metrics.text_overlap import text_metric, token_f1

METRIC = text_metric("token_f1", "F1 of words, articles and punctuation aside", 4, token_f1)
