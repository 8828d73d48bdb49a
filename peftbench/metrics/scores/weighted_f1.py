"""Weighted F1."""

import numpy as np

from peftbench.core.arrays import Array, Floats
from peftbench.metrics.base import Metric, class_counts


def weighted_f1(predicted: Array, label: Array) -> float | None:
    """Mean F1 over classes, weighted by their examples."""
    from sklearn.metrics import f1_score

    return float(f1_score(label, predicted, average="weighted", zero_division=0))


def _resampled(predicted: Array, label: Array, counts: Floats) -> Floats:
    classes = class_counts(predicted, label, counts)
    parts = [np.nan_to_num(2 * c.hits / (c.predicted + c.there)) * c.there for c in classes]
    found: Floats = np.sum(parts, axis=0) / counts.sum(axis=1, keepdims=True)
    return found


METRIC = Metric(
    name="weighted_f1",
    title="weighted F1",
    about="mean over classes of F1, weighted by their examples",
    compute=weighted_f1,
    resampled=_resampled,
    kinds=("classification",),
)
