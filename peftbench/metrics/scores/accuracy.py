"""Accuracy."""

import numpy as np

from peftbench.core.arrays import Array, Floats
from peftbench.metrics.base import Metric, weighted_sums


def accuracy(predicted: Array, label: Array) -> float | None:
    """Share of `(examples,)` predictions that are the label."""
    return float(np.mean(predicted == label))


def _resampled(predicted: Array, label: Array, counts: Floats) -> Floats:
    return weighted_sums(counts, predicted == label) / counts.sum(axis=1, keepdims=True)


METRIC = Metric(
    name="accuracy",
    title="accuracy",
    short="acc.",
    about="share of right answers",
    compute=accuracy,
    resampled=_resampled,
    kinds=("classification",),
)
