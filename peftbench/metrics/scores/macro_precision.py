"""Macro precision."""

from peftbench.core.arrays import Array, Floats
from peftbench.metrics.base import Metric, class_counts, mean_over_present


def macro_precision(predicted: Array, label: Array) -> float | None:
    """Mean precision over the classes that are predicted or present; 0 of one never predicted."""
    from sklearn.metrics import precision_score

    return float(precision_score(label, predicted, average="macro", zero_division=0))


def _resampled(predicted: Array, label: Array, counts: Floats) -> Floats:
    classes = class_counts(predicted, label, counts)
    return mean_over_present(
        [c.hits / c.predicted for c in classes], [c.predicted + c.there for c in classes]
    )


METRIC = Metric(
    name="macro_precision",
    title="macro precision",
    about="mean over classes of the precision",
    compute=macro_precision,
    resampled=_resampled,
    kinds=("classification",),
)
