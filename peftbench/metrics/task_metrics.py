"""The metrics of tasks, found by listing `metrics.scores`, and scores of outputs by them."""

import hashlib
import pkgutil
import warnings
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np

from peftbench.core.arrays import Array, Arrays, Floats
from peftbench.core.errors import ConfigError
from peftbench.core.figures import plain_figures
from peftbench.core.run import Json
from peftbench.core.text import close_names
from peftbench.metrics import scores as modules
from peftbench.metrics.base import Metric, is_constant, is_uninformative


def _declared() -> dict[str, Metric]:
    names = [module.name for module in pkgutil.iter_modules(modules.__path__)]
    found = [import_module(f"{modules.__name__}.{name}").METRIC for name in names]
    return {metric.name: metric for metric in found}


METRICS: dict[str, Metric] = _declared()


def text_metrics() -> list[Metric]:
    """The metrics of texts, in the order of their columns in predictions."""
    found = [one for one in METRICS.values() if one.column is not None]
    return sorted(found, key=lambda one: one.column or 0)


def check_metrics(names: Iterable[str] | None, kind: str, classes: int | None) -> None:
    """Refuse metrics that a task cannot be scored by.

    Args:
        names: of metrics; None where the task's data say later which.
        kind: of the task: classification, regression or generation.
        classes: how many it has; None if they are not counted yet.

    Raises:
        ConfigError: for an unknown name, or a metric of other tasks.
    """
    if names is None:
        return
    if not (names := list(names)):
        raise ConfigError("task.metrics is empty: a run needs a score; name one, or leave it out")
    for place, name in enumerate(names):
        metric = METRICS.get(str(name))
        if metric is None or kind not in metric.kinds:
            known = sorted(METRICS.values(), key=lambda one: one.is_error)
            fit = [one.name for one in known if kind in one.kinds]
            near = f"did you mean {' or '.join(c)}? " if (c := close_names(str(name), fit)) else ""
            raise ConfigError(
                f"task.metrics: {name} is no metric of {kind}; {near}choose from {', '.join(fit)}"
            )
        if None not in (classes, metric.classes) and classes != metric.classes:
            instead = f"use {metric.instead}" if metric.instead else "leave it out"
            raise ConfigError(
                f"task.metrics: {name} is defined for {metric.classes} classes, the task has "
                f"{classes}; {instead}"
            )
        if metric.is_error and place == 0:
            raise ConfigError(
                f"task.metrics: the first metric is the score, of which more is better; {name} is "
                f"an error, put it behind another one: task.metrics=[pearson,{name}]"
            )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"task.metrics: {', '.join(twice)} twice; once is enough")


def factor(name: str) -> float:
    """By which a figure of a record is multiplied to be shown: 100, or 1 of an error.

    Args:
        name: a metric, a slash and a further split, or a metric of another version.
    """
    metric = METRICS.get(name.partition("/")[0])
    return 100.0 if metric is None else metric.factor


def score_range(name: str) -> tuple[float, float]:
    """The lowest and the highest figure of a metric, see `factor`, or of `auc`."""
    metric = METRICS.get(name.partition("/")[0])
    return (0.0, 1.0) if metric is None else metric.range


def predicted(metric: str, scores: Array) -> Array:
    """What a metric scores: classes or values, see `decide`; of texts its score of each."""
    column = METRICS[metric].column
    return decide(scores) if column is None else scores[:, column]


def decide(scores: Array) -> Array:
    """Turn `(examples, classes)` scores into classes, `(examples, 1)` ones into values."""
    return scores[:, 0] if scores.shape[1] == 1 else scores.argmax(axis=1)


def score(names: Iterable[str], scores: Array, label: Array) -> dict[str, float | None]:
    """Score outputs as `compute_scores` does, by the metrics of the evaluate library.

    A score that is not finite is None, undefined, with a warning.

    Raises:
        FloatingPointError: if a score is not finite because predictions are too large.
    """
    found: dict[str, float | None] = {}
    outputs: dict[int | None, _Outputs] = {}
    for name in names:
        column = METRICS[name].column
        if column not in outputs:
            outputs[column] = _Outputs(predicted(name, scores), label)
        found |= _scored(METRICS[name], outputs[column])
    plain, undefined = plain_figures(found)
    for name in undefined:
        with np.errstate(over="ignore"):
            if not np.isfinite(np.square(decide(scores).astype(np.float64)).sum()):
                raise FloatingPointError(
                    f"{name} is {found[name]}: predictions are too large; try a smaller train.lr"
                )
        warnings.warn(
            f"the metric {name} is {found[name]}, which is no score; it is recorded as null",
            stacklevel=2,
        )
    return dict(plain)


class _Outputs:
    """Predictions and labels, equal to those with the same bytes."""

    def __init__(self, predicted: Array, label: Array):
        self.predicted, self.label = predicted, label
        parts = [part for a in (predicted, label) for part in (a.dtype.str.encode(), a.tobytes())]
        self.digest = hashlib.blake2b(b" ".join(parts)).digest()

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Outputs) and self.digest == other.digest


@lru_cache(maxsize=64)
def _scored(metric: Metric, outputs: _Outputs) -> dict[str, float | None]:
    """One metric of outputs.

    A record wants those of the last evaluation once more, and all runs of a size the same constant.
    """
    from peftbench.metrics.evaluate_metrics import evaluate_metric

    computed = evaluate_metric(metric)
    return dict(computed.compute(predictions=outputs.predicted, references=outputs.label))


def out_of_range(scores: Array, label: Array, labels: Array) -> int:
    """How many predictions of a regression lie far out of the range of the labels.

    Far: further outside than the range is wide. Such a run has learnt no sane scale, whatever its
    correlation is.

    Args:
        scores: (examples, 1) predictions.
        label: (examples,) their labels.
        labels: (training examples,) labels that were learnt from.
    """
    every = np.concatenate([label, labels]).astype(np.float64)
    low, high = float(every.min()), float(every.max())
    value, width = decide(scores).astype(np.float64), high - low
    return int(((value < low - width) | (value > high + width)).sum()) if width else 0


def reported(names: Iterable[str], classes: int) -> list[str]:
    """The metrics of a record: those of the task, and macro F1 from three classes on.

    Accuracy alone hides small classes. The metrics of a task are part of its identity; what stands
    beside them is not, so that a run keeps its key.
    """
    found = list(names)
    if classes > 2 and "accuracy" in found and "macro_f1" not in found:
        found.append("macro_f1")
    return found


def per_class(scores: Array, label: Array, names: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class, None where undefined, and its examples.

    Args:
        scores: `(examples, classes)` outputs.
        label: classes.
        names: of the classes.
    """
    from sklearn.metrics import precision_recall_fscore_support

    figures = precision_recall_fscore_support(
        label, decide(scores), labels=range(len(names)), zero_division=np.nan
    )
    found = []
    for name, precision, recall, f1, count in zip(names, *figures, strict=True):
        one = {"precision": precision, "recall": recall, "f1": f1}
        plain = {key: None if np.isnan(value) else float(value) for key, value in one.items()}
        found.append({"class": name, "examples": int(count), **plain})
    return found


def compute_scores(names: Iterable[str], scores: Array, label: Array) -> dict[str, float | None]:
    """Score `(examples, classes)` outputs, or `(examples, 1)` values, against the labels."""
    return {name: METRICS[name].compute(predicted(name, scores), label) for name in names}


def one_answer(outputs: Arrays) -> bool:
    """Whether all examples get one text, or what `collapsed` says of classes and values."""
    if "text_sha256" in outputs:
        return len(np.unique(outputs["text_sha256"], axis=0)) == 1
    return collapsed(outputs["scores"], outputs["label"])


def text_lengths(outputs: Arrays, most: int) -> Json:
    """Mean tokens of generated texts, and how many have the `most` that a text may have (`cut`)."""
    count = outputs["new_tokens"]
    return {"mean_tokens": float(count.mean()), "cut": int((count == most).sum())}


def collapsed(scores: Array, label: Array) -> bool:
    """Whether one class is predicted throughout, or values that hardly vary (`base.FLAT`)."""
    return is_uninformative(decide(scores), label)


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


def auc_on_resamples(values: Array, label: Array, counts: Floats) -> Floats:
    """`auc` of (runs, examples) values on resamples, (resamples, runs); of one class not a number.

    Args:
        values, label: as of `auc`; what is one value there has 0.5, as in reports.
        counts: (resamples, examples), how often each example is in a resample.
    """
    found = np.empty((len(counts), len(values)))
    for run, value in enumerate(values):
        if is_constant(value):
            value = np.zeros_like(value)
        order = np.argsort(value, kind="stable")
        starts = np.flatnonzero(np.diff(value[order], prepend=-np.inf))
        drawn = counts[:, order]
        positive, negative = (
            np.add.reduceat(drawn * (label[order] == kind), starts, axis=1) for kind in (1, 0)
        )
        below = np.cumsum(negative, axis=1) - negative / 2
        pairs = positive.sum(axis=1) * negative.sum(axis=1)
        with np.errstate(invalid="ignore"):
            found[:, run] = (positive * below).sum(axis=1) / pairs
    return found
