"""Macro F1."""

from peftbench.core.arrays import Array, Floats
from peftbench.metrics.base import Metric, class_counts, mean_over_present


def macro_f1(predicted: Array, label: Array) -> float | None:
    """Mean F1 over the classes that are predicted or present."""
    from sklearn.metrics import f1_score

    return float(f1_score(label, predicted, average="macro", zero_division=0))


def _resampled(predicted: Array, label: Array, counts: Floats) -> Floats:
    classes = class_counts(predicted, label, counts)
    return mean_over_present(
        [2 * c.hits / (c.predicted + c.there) for c in classes],
        [c.predicted + c.there for c in classes],
    )


METRIC = Metric(
    name="macro_f1",
    title="macro F1",
    about="mean over classes of F1",
    compute=macro_f1,
    resampled=_resampled,
    kinds=("classification",),
)
