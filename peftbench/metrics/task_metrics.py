"""The metrics of tasks, found by listing `metrics.scores`, and scores of outputs by them."""

import pkgutil
from collections.abc import Iterable
from importlib import import_module

import numpy as np

from peftbench.core.errors import ConfigError, one_of
from peftbench.metrics import scores as modules
from peftbench.metrics.base import Array, Metric, is_constant


def _declared() -> dict[str, Metric]:
    names = [module.name for module in pkgutil.iter_modules(modules.__path__)]
    found = [import_module(f"{modules.__name__}.{name}").METRIC for name in names]
    return {metric.name: metric for metric in found}


METRICS: dict[str, Metric] = _declared()


def check_metrics(names: Iterable[str], kind: str, classes: int | None) -> None:
    """Refuse metrics that a task cannot be scored by.

    Args:
        names: of metrics.
        kind: of the task: classification or regression.
        classes: how many it has; None if they are not counted yet.

    Raises:
        ConfigError: for an unknown name, or a metric of other tasks.
    """
    for name in names:
        one_of("task.metrics", name, tuple(METRICS))
        metric = METRICS[name]
        if kind not in metric.kinds:
            fit = ", ".join(other for other, one in METRICS.items() if kind in one.kinds)
            raise ConfigError(f"task.metrics: {name} is no metric of {kind}; choose from {fit}")
        if None not in (classes, metric.classes) and classes != metric.classes:
            raise ConfigError(
                f"task.metrics: {name} is defined for {metric.classes} classes, the task has "
                f"{classes}; leave it out"
            )


def decide(scores: Array) -> Array:
    """Turn `(examples, classes)` scores into classes, `(examples, 1)` ones into values."""
    return scores[:, 0] if scores.shape[1] == 1 else scores.argmax(axis=1)


def score(names: Iterable[str], scores: Array, label: Array) -> dict[str, float | None]:
    """Score outputs as `compute_scores` does, by the metrics of the evaluate library."""
    from peftbench.metrics.evaluate_metrics import evaluate_metric

    predicted = decide(scores)
    found: dict[str, float | None] = {}
    for name in names:
        found |= evaluate_metric(METRICS[name]).compute(predictions=predicted, references=label)
    return found


def compute_scores(names: Iterable[str], scores: Array, label: Array) -> dict[str, float | None]:
    """Score `(examples, classes)` outputs, or `(examples, 1)` values, against the labels."""
    predicted = decide(scores)
    return {name: METRICS[name].compute(predicted, label) for name in names}


def collapsed(scores: Array) -> bool:
    """Whether one class, or one value, is predicted throughout."""
    return is_constant(decide(scores))


def trivial(label: Array, train_label: Array, classes: int) -> Array:
    """Outputs that know nothing but the training labels: their majority class, or their mean."""
    if classes == 1:
        return np.full((len(label), 1), np.mean(train_label.astype(np.float64)))
    counts = np.bincount(train_label.astype(np.int64), minlength=classes)
    return np.tile((np.arange(classes) == counts.argmax()).astype(np.float32), (len(label), 1))


def auc(value: Array, label: Array) -> float | None:
    """Area under the ROC curve: how well `(examples,)` values order classes 0 and 1.

    None where there is but one class, or one value.
    """
    if is_constant(value) or is_constant(label):
        return None
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(label, value))
