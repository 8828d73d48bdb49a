"""ROUGE-L of texts."""

from peftbench.metrics.text_overlap import rouge, text_metric

METRIC = text_metric("rouge_l", "F1 of the longest common subsequence of words", 0, rouge("rougeL"))
