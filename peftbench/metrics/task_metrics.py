"""Arrays to scores: the metrics of GLUE, by scikit-learn and scipy, None where undefined.

The libraries are imported by the functions that need them: planning asks only for the names.
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Metric = Callable[[Array, Array], float | None]


def accuracy(predicted: Array, label: Array) -> float | None:
    """Share of `(examples,)` predictions that are the label."""
    return float(np.mean(predicted == label))


def f1(predicted: Array, label: Array) -> float | None:
    """F1 of class 1; None where it is neither predicted nor present."""
    if not (np.any(predicted == 1) or np.any(label == 1)):
        return None
    from sklearn.metrics import f1_score

    return float(f1_score(label, predicted))


def matthews(predicted: Array, label: Array) -> float | None:
    """Matthews correlation of two `(examples,)` class arrays; None where one is constant."""
    if _constant(predicted) or _constant(label):
        return None
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(label, predicted))


def pearson(predicted: Array, label: Array) -> float | None:
    """Pearson correlation of two `(examples,)` arrays; None where one is constant."""
    if _constant(predicted) or _constant(label):
        return None
    from scipy.stats import pearsonr

    return float(pearsonr(predicted.astype(np.float64), label.astype(np.float64)).statistic)


def spearman(predicted: Array, label: Array) -> float | None:
    """Spearman rank correlation of two `(examples,)` arrays; None where one is constant."""
    if _constant(predicted) or _constant(label):
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(predicted.astype(np.float64), label.astype(np.float64)).statistic)


def auc(value: Array, label: Array) -> float | None:
    """Area under the ROC curve: how well `(examples,)` values order classes 0 and 1.

    None where there is but one class, or one value.
    """
    if _constant(value) or _constant(label):
        return None
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(label, value))


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}


def decide(scores: Array) -> Array:
    """Turn `(examples, classes)` scores into classes, `(examples, 1)` ones into values."""
    return scores[:, 0] if scores.shape[1] == 1 else scores.argmax(axis=1)


def score(names: Iterable[str], scores: Array, label: Array) -> dict[str, float | None]:
    """Score `(examples, classes)` outputs, or `(examples, 1)` values, against the labels."""
    predicted = decide(scores)
    return {name: METRICS[name](predicted, label) for name in names}


def collapsed(scores: Array) -> bool:
    """Whether one class, or one value, is predicted throughout."""
    return _constant(decide(scores))


def trivial(label: Array, train_label: Array, classes: int) -> Array:
    """Outputs that know nothing but the training labels: their majority class, or their mean."""
    if classes == 1:
        return np.full((len(label), 1), np.mean(train_label.astype(np.float64)))
    counts = np.bincount(train_label.astype(np.int64), minlength=classes)
    return np.tile((np.arange(classes) == counts.argmax()).astype(np.float32), (len(label), 1))


def _constant(values: Array) -> bool:
    """Constant up to rounding: a collapsed regression still wobbles in its last digits."""
    if values.dtype.kind in "iub":
        return bool(np.all(values == values[0]))
    spread = float(np.ptp(values.astype(np.float64)))
    return spread <= 1e-6 * max(1.0, float(np.abs(values).max()))
