"""Pearson correlation of values."""

import numpy as np

from peftbench.core.arrays import Array, Floats
from peftbench.metrics.base import Metric, is_constant, is_uninformative, weighted_sums


def pearson(predicted: Array, label: Array) -> float | None:
    """Pearson correlation of two `(examples,)` arrays; None where one hardly varies."""
    if is_uninformative(predicted, label) or is_constant(label, label):
        return None
    from scipy.stats import pearsonr

    return float(pearsonr(predicted.astype(np.float64), label.astype(np.float64)).statistic)


def _resampled(predicted: Array, label: Array, counts: Floats) -> Floats:
    x = predicted.astype(np.float64)
    x = x - x.mean(axis=1, keepdims=True)  # or squares of large values hide small spreads
    y = label.astype(np.float64) - float(label.astype(np.float64).mean())
    total = counts.sum(axis=1, keepdims=True)
    mean_x, mean_y = weighted_sums(counts, x) / total, weighted_sums(counts, y) / total
    between = weighted_sums(counts, x * y) / total - mean_x * mean_y
    spread_x = weighted_sums(counts, x * x) / total - mean_x**2
    spread_y = weighted_sums(counts, y * y) / total - mean_y**2
    constant = (spread_x <= 1e-12 * (x**2).max(axis=1)) | (spread_y <= 1e-12 * (y**2).max())
    constant |= np.array([is_uninformative(one, label) for one in predicted])
    return np.where(constant, np.nan, between / np.sqrt(spread_x * spread_y))


METRIC = Metric(
    name="pearson",
    title="Pearson's r",
    short="r",
    about="correlation of predictions and labels: 0 is chance, 100 % is perfect",
    compute=pearson,
    resampled=_resampled,
    lowest=-1.0,
    kinds=("regression",),
)
