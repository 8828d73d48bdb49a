"""Balanced accuracy."""

import numpy as np

from peftbench.core.arrays import Array, Floats
from peftbench.metrics.base import Metric, class_counts, mean_over_present


def balanced_accuracy(predicted: Array, label: Array) -> float | None:
    """Mean recall over the classes that are present (Brodersen et al. 2010)."""
    from sklearn.metrics import recall_score

    # as balanced_accuracy_score, which warns of predicted classes that are not there
    return float(
        recall_score(label, predicted, labels=np.unique(label), average="macro", zero_division=0)
    )


def _resampled(predicted: Array, label: Array, counts: Floats) -> Floats:
    classes = class_counts(predicted, label, counts)
    return mean_over_present([c.hits / c.there for c in classes], [c.there for c in classes])


METRIC = Metric(
    name="balanced_accuracy",
    title="balanced accuracy",
    short="bal. acc.",
    about="mean over classes of the share of right answers",
    compute=balanced_accuracy,
    resampled=_resampled,
    kinds=("classification",),
)
