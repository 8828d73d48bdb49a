"""Metrics on many resamples of the examples at once, equal to `metrics.task_metrics` on each.

A resample is a count for each example. All metrics but the rank correlation are functions of a few
weighted sums, which for all resamples and runs are one matrix product.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from peftbench.metrics import task_metrics

Array = NDArray[np.generic]
Floats = NDArray[np.float64]

#: Entries of the counts that are held at once.
_HELD = 2_000_000


def draws(examples: int, times: int, generator: np.random.Generator) -> Iterator[Floats]:
    """Counts of examples in so many resamples, (resamples, examples), in pieces that fit memory."""
    piece = max(1, _HELD // examples)
    for first in range(0, times, piece):
        count = min(piece, times - first)
        places = generator.integers(0, examples, (count, examples))
        places += examples * np.arange(count)[:, None]
        counts = np.bincount(places.ravel(), minlength=count * examples)
        yield counts.reshape(count, examples).astype(np.float64)


def score(metric: str, scores: Floats, label: Array, counts: Floats) -> Floats:
    """The metric of each run on each resample, (resamples, runs); not a number where undefined.

    Args:
        metric: one of `metrics.METRICS`.
        scores: (runs, examples, classes) outputs, or (runs, examples, 1) values.
        label: (examples,) classes or values.
        counts: (resamples, examples), how often each example is in a resample.
    """
    predicted = np.stack([task_metrics.decide(one) for one in scores])
    with np.errstate(invalid="ignore", divide="ignore"):
        return _FORMS[metric](predicted, label, counts)


def _accuracy(predicted: Array, label: Array, counts: Floats) -> Floats:
    return _sums(counts, predicted == label) / counts.sum(axis=1, keepdims=True)


def _f1(predicted: Array, label: Array, counts: Floats) -> Floats:
    """Twice the true positives over all that are predicted and all that are there, of class 1."""
    hits = _sums(counts, (predicted == 1) & (label == 1))
    found: Floats = 2 * hits / (_sums(counts, predicted == 1) + _sums(counts, label == 1))
    return found


def _matthews(predicted: Array, label: Array, counts: Floats) -> Floats:
    """Gorodkin 2004, equation 8: the correlation of two classifications, of any classes."""
    total = counts.sum(axis=1, keepdims=True)
    both = said = there = np.zeros(1)
    for kind in np.unique(np.concatenate([label, predicted.ravel()])):
        p, t = _sums(counts, predicted == kind), _sums(counts, label == kind)
        both, said, there = both + p * t, said + p * p, there + t * t
    found: Floats = (_sums(counts, predicted == label) * total - both) / np.sqrt(
        (total**2 - said) * (total**2 - there)
    )
    return found


def _pearson(predicted: Array, label: Array, counts: Floats) -> Floats:
    x = predicted.astype(np.float64)
    x = x - x.mean(axis=1, keepdims=True)  # or squares of large values hide small spreads
    y = label.astype(np.float64) - float(label.astype(np.float64).mean())
    total = counts.sum(axis=1, keepdims=True)
    mean_x, mean_y = _sums(counts, x) / total, _sums(counts, y) / total
    between = _sums(counts, x * y) / total - mean_x * mean_y
    spread_x = _sums(counts, x * x) / total - mean_x**2
    spread_y = _sums(counts, y * y) / total - mean_y**2
    constant = (spread_x <= 1e-12 * (x**2).max(axis=1)) | (spread_y <= 1e-12 * (y**2).max())
    constant |= np.array([task_metrics.collapsed(one[:, None]) for one in predicted])
    return np.where(constant, np.nan, between / np.sqrt(spread_x * spread_y))


def _spearman(predicted: Array, label: Array, counts: Floats) -> Floats:
    """Pearson correlation of mean ranks within each resample."""
    there = _ranks(label, counts)
    columns = []
    for one in predicted:
        said = _ranks(one, counts)
        total = counts.sum(axis=1)
        x = said - ((counts * said).sum(axis=1) / total)[:, None]
        y = there - ((counts * there).sum(axis=1) / total)[:, None]
        spread = (counts * x * x).sum(axis=1) * (counts * y * y).sum(axis=1)
        constant = task_metrics.collapsed(one[:, None])
        columns.append(
            np.full(len(counts), np.nan)
            if constant
            else np.where(spread > 0, (counts * x * y).sum(axis=1) / np.sqrt(spread), np.nan)
        )
    return np.stack(columns, axis=1)


def _ranks(values: Array, counts: Floats) -> Floats:
    """Rank of each example among a resample's, equal values at the mean of theirs."""
    unique, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(unique)))
    many = np.add.reduceat(counts[:, order], starts, axis=1)
    found: Floats = (np.cumsum(many, axis=1) - many / 2 + 0.5)[:, place]
    return found


def _sums(counts: Floats, values: Array) -> Floats:
    """Sums over examples of (runs, examples) values, or of (examples,) ones, by resample."""
    found: Floats = counts @ np.atleast_2d(values).astype(np.float64).T
    return found


_FORMS: dict[str, Callable[[Array, Array, Floats], Floats]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}
