"""Resamples of the examples, and metrics on many of them at once.

A resample is a count for each example. Most metrics are functions of a few weighted sums, which for
all resamples and runs are one matrix product; see `metrics.base.Metric.resampled`.
"""

from collections.abc import Iterator

import numpy as np

from peftbench.analysis import convention
from peftbench.core.arrays import Array, Floats
from peftbench.metrics import task_metrics

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


def weights(examples: int, times: int, generator: np.random.Generator) -> Iterator[Floats]:
    """Weights of examples under the Bayesian bootstrap (Rubin 1981), in the pieces of `draws`."""
    piece = max(1, _HELD // examples)
    for first in range(0, times, piece):
        yield generator.exponential(size=(min(piece, times - first), examples))


def score(metric: str, scores: Floats, label: Array, counts: Floats) -> Floats:
    """The metric of each run on each resample, (resamples, runs), as reports count it.

    Not a number only where all labels of a resample are one, see `analysis.convention`.

    Args:
        metric: one of `task_metrics.METRICS`, or "auc" of two classes.
        scores: (runs, examples, classes) outputs, or (runs, examples, 1) values.
        label: (examples,) classes or values.
        counts: (resamples, examples), how often each example is in a resample.
    """
    if metric == "auc":
        values = scores[..., 0] if scores.shape[2] == 1 else scores[..., 1] - scores[..., 0]
        return task_metrics.auc_on_resamples(values, label, counts)
    predicted = np.stack([task_metrics.predicted(metric, one) for one in scores])
    found = task_metrics.METRICS[metric].on_resamples(predicted, label, counts)
    return convention.counted_resamples(found, label, counts)
