"""Coefficient of determination of values."""

import math

import numpy as np

from peftbench.core.arrays import Array, Floats
from peftbench.metrics.base import Metric, is_constant, weighted_sums


def r2(predicted: Array, label: Array) -> float | None:
    """1 less the squared error over that of the labels' mean; None where labels are constant."""
    if is_constant(label, label):
        return None
    from sklearn.metrics import r2_score

    return float(r2_score(label.astype(np.float64), predicted.astype(np.float64)))


def _resampled(predicted: Array, label: Array, counts: Floats) -> Floats:
    y = label.astype(np.float64) - float(label.astype(np.float64).mean())
    total = counts.sum(axis=1, keepdims=True)
    error = weighted_sums(counts, (predicted.astype(np.float64) - label.astype(np.float64)) ** 2)
    spread = weighted_sums(counts, y * y) - weighted_sums(counts, y) ** 2 / total
    constant = spread <= 1e-12 * total * float((y * y).max())
    return np.where(constant, np.nan, 1 - error / spread)


METRIC = Metric(
    name="r2",
    title="R²",
    about="share of the variance of the labels that the predictions explain",
    compute=r2,
    resampled=_resampled,
    lowest=-math.inf,
    kinds=("regression",),
)
