"""Precision of class 1."""

import numpy as np

from peftbench.core.arrays import Array, Floats
from peftbench.metrics.base import Metric, weighted_sums


def precision(predicted: Array, label: Array) -> float | None:
    """Share of the predictions of class 1 that are right; None where it is never predicted."""
    if not np.any(predicted == 1):
        return None
    from sklearn.metrics import precision_score

    return float(precision_score(label, predicted, zero_division=0))


def _resampled(predicted: Array, label: Array, counts: Floats) -> Floats:
    hits = weighted_sums(counts, (predicted == 1) & (label == 1))
    found: Floats = hits / weighted_sums(counts, predicted == 1)
    return found


METRIC = Metric(
    name="precision",
    title="precision",
    about="share of the predicted positives that are positive; positive is the second label",
    compute=precision,
    resampled=_resampled,
    kinds=("classification",),
    classes=2,
    instead="macro_precision",
)
