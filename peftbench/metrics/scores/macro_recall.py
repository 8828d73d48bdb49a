"""Macro recall."""

from peftbench.core.arrays import Array, Floats
from peftbench.metrics.base import Metric, class_counts, mean_over_present


def macro_recall(predicted: Array, label: Array) -> float | None:
    """Mean recall over the classes that are predicted or present; 0 of one that is absent."""
    from sklearn.metrics import recall_score

    return float(recall_score(label, predicted, average="macro", zero_division=0))


def _resampled(predicted: Array, label: Array, counts: Floats) -> Floats:
    classes = class_counts(predicted, label, counts)
    return mean_over_present(
        [c.hits / c.there for c in classes], [c.predicted + c.there for c in classes]
    )


METRIC = Metric(
    name="macro_recall",
    title="macro recall",
    about="mean over classes of the recall",
    compute=macro_recall,
    resampled=_resampled,
    kinds=("classification",),
)
