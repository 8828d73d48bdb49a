"""Matthews correlation of classes."""

import numpy as np

from peftbench.core.arrays import Array, Floats
from peftbench.metrics.base import Metric, is_constant, weighted_sums


def matthews(predicted: Array, label: Array) -> float | None:
    """Matthews correlation of two `(examples,)` class arrays; None where one is constant."""
    if is_constant(predicted) or is_constant(label):
        return None
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(label, predicted))


def _resampled(predicted: Array, label: Array, counts: Floats) -> Floats:
    """Gorodkin 2004, equation 8: the correlation of two classifications, of any classes."""
    total = counts.sum(axis=1, keepdims=True)
    both = said = there = np.zeros(1)
    for kind in np.unique(np.concatenate([label, predicted.ravel()])):
        p, t = weighted_sums(counts, predicted == kind), weighted_sums(counts, label == kind)
        both, said, there = both + p * t, said + p * p, there + t * t
    found: Floats = (weighted_sums(counts, predicted == label) * total - both) / np.sqrt(
        (total**2 - said) * (total**2 - there)
    )
    return found


METRIC = Metric(
    name="matthews",
    title="Matthews' r",
    short="MCC",
    about="Matthews correlation coefficient: 0 is chance, 100 % is perfect",
    compute=matthews,
    resampled=_resampled,
    lowest=-1.0,
    kinds=("classification",),
)
