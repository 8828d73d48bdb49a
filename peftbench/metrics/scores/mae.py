"""Mean absolute error of values."""

import numpy as np

from peftbench.core.arrays import Array, Floats
from peftbench.metrics.base import Metric, weighted_sums


def mae(predicted: Array, label: Array) -> float | None:
    """Mean absolute error of two `(examples,)` arrays, in the unit of the labels."""
    from sklearn.metrics import mean_absolute_error

    return float(mean_absolute_error(label.astype(np.float64), predicted.astype(np.float64)))


def _resampled(predicted: Array, label: Array, counts: Floats) -> Floats:
    error = np.abs(predicted.astype(np.float64) - label.astype(np.float64))
    found: Floats = weighted_sums(counts, error) / counts.sum(axis=1, keepdims=True)
    return found


METRIC = Metric(
    name="mae",
    title="MAE",
    about="mean absolute error, in the unit of the labels; lower is better",
    compute=mae,
    resampled=_resampled,
    kinds=("regression",),
    is_error=True,
)
