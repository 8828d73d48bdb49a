"""F1 of class 1."""

import numpy as np

from peftbench.core.arrays import Array, Floats
from peftbench.metrics.base import Metric, weighted_sums


def f1(predicted: Array, label: Array) -> float | None:
    """F1 of class 1; None where it is neither predicted nor present."""
    if not (np.any(predicted == 1) or np.any(label == 1)):
        return None
    from sklearn.metrics import f1_score

    return float(f1_score(label, predicted))


def _resampled(predicted: Array, label: Array, counts: Floats) -> Floats:
    """Twice the true positives over all that are predicted and all that are there, of class 1."""
    hits = weighted_sums(counts, (predicted == 1) & (label == 1))
    there = weighted_sums(counts, label == 1)
    found: Floats = 2 * hits / (weighted_sums(counts, predicted == 1) + there)
    return found


METRIC = Metric(
    name="f1",
    title="F1",
    about="harmonic mean of precision and recall of the positive class, the second label",
    compute=f1,
    resampled=_resampled,
    kinds=("classification",),
    classes=2,
    instead="macro_f1",
)
