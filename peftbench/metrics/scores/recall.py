"""Recall of class 1."""

import numpy as np

from peftbench.core.arrays import Array, Floats
from peftbench.metrics.base import Metric, weighted_sums


def recall(predicted: Array, label: Array) -> float | None:
    """Share of the examples of class 1 that are found; None where there are none."""
    if not np.any(label == 1):
        return None
    from sklearn.metrics import recall_score

    return float(recall_score(label, predicted, zero_division=0))


def _resampled(predicted: Array, label: Array, counts: Floats) -> Floats:
    hits = weighted_sums(counts, (predicted == 1) & (label == 1))
    found: Floats = hits / weighted_sums(counts, label == 1)
    return found


METRIC = Metric(
    name="recall",
    title="recall",
    about="share of the positives that are found; positive is the second label",
    compute=recall,
    resampled=_resampled,
    kinds=("classification",),
    classes=2,
    instead="macro_recall",
)
