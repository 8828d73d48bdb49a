"""Root mean squared error of values."""

import numpy as np

from peftbench.core.arrays import Array, Floats
from peftbench.metrics.base import Metric, weighted_sums


def rmse(predicted: Array, label: Array) -> float | None:
    """Root mean squared error of two `(examples,)` arrays, in the unit of the labels."""
    from sklearn.metrics import root_mean_squared_error

    return float(root_mean_squared_error(label.astype(np.float64), predicted.astype(np.float64)))


def _resampled(predicted: Array, label: Array, counts: Floats) -> Floats:
    error = (predicted.astype(np.float64) - label.astype(np.float64)) ** 2
    found: Floats = weighted_sums(counts, error) / counts.sum(axis=1, keepdims=True)
    return np.sqrt(found)


METRIC = Metric(
    name="rmse",
    title="RMSE",
    about="root mean squared error, in the unit of the labels; lower is better",
    compute=rmse,
    resampled=_resampled,
    kinds=("regression",),
    is_error=True,
)
