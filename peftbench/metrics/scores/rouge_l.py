"""ROUGE-L of texts."""

from peftbench.metrics.text_overlap import rouge, text_metric

METRIC = text_metric(
    "rouge_l",
    "ROUGE-L",
    "F1 of the longest common subsequence of words of a text and the wanted one",
    0,
    rouge("rougeL"),
)
