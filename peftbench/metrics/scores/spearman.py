"""Spearman rank correlation of values."""

import numpy as np

from peftbench.core.arrays import Array, Floats
from peftbench.metrics.base import Metric, is_constant, is_uninformative


def spearman(predicted: Array, label: Array) -> float | None:
    """Spearman rank correlation of two `(examples,)` arrays; None where one hardly varies."""
    if is_uninformative(predicted, label) or is_constant(label, label):
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(predicted.astype(np.float64), label.astype(np.float64)).statistic)


def _resampled(predicted: Array, label: Array, counts: Floats) -> Floats:
    """Pearson correlation of mean ranks within each resample."""
    there = _ranks(label, counts)
    columns = []
    for one in predicted:
        said = _ranks(one, counts)
        total = counts.sum(axis=1)
        x = said - ((counts * said).sum(axis=1) / total)[:, None]
        y = there - ((counts * there).sum(axis=1) / total)[:, None]
        spread = (counts * x * x).sum(axis=1) * (counts * y * y).sum(axis=1)
        columns.append(
            np.full(len(counts), np.nan)
            if is_uninformative(one, label)
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


METRIC = Metric(
    name="spearman",
    title="Spearman's ρ",  # noqa: RUF001
    short="ρ",  # noqa: RUF001
    about="correlation of the ranks of predictions and labels",
    compute=spearman,
    resampled=_resampled,
    lowest=-1.0,
    kinds=("regression",),
)
