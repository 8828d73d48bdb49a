"""ROUGE-L of texts."""

from peftbench.metrics.text_overlap import rouge, text_metric

METRIC = text_metric(
    "rouge_l",
    "ROUGE-L",
    "F1 of the longest common subsequence of words of text and target",
    0,
    rouge("rougeL"),
)
