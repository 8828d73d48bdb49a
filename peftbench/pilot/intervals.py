"""Intervals of scores of cross-validated predictions, in which the groups of rows are drawn.

A share of right answers has the interval of Korn and Graubard 1998 (Survey Methodology 24): that of
Clopper and Pearson 1934 for the effective number of rows, which is less than the rows where those
of a group are right or wrong together. Other metrics have that of a Bayesian bootstrap of the
groups (Rubin 1981, Annals of Statistics 9) in which the lower end has a further wrong row of each
class and the upper end a right one, which for the share right of one class is the interval of
Clopper and Pearson; a plain bootstrap is too sure where few rows are wrong, and certain where none
is. All are of the rows: another seed of training, and other folds, are not in them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from peftbench.analysis import bootstrap
from peftbench.analysis.proportions import clopper_pearson
from peftbench.analysis.significance import ALPHA
from peftbench.core.arrays import Floats
from peftbench.pilot.out_of_fold import Ints, OutOfFold

#: Resamples of the groups; the same ones for all candidates.
RESAMPLES = 4_000

#: One less the probability of intervals.
LEVEL = ALPHA


@dataclass(frozen=True)
class Interval:
    """A figure with its interval.

    Attributes:
        value: as it was found.
        low, high: the ends.
        rows: of which it is a figure.
    """

    value: float
    low: float
    high: float
    rows: int


def share(right: Floats, group: Ints, level: float = LEVEL) -> Interval:
    """The share of right answers (Korn and Graubard 1998, section 2).

    Args:
        right: (repeats, rows) of 0 and 1.
        group: (rows,) numbers of groups, which are independent of each other.
        level: one less the probability of the interval.
    """
    from scipy.special import stdtrit

    rows = right.shape[1]
    value = float(right.mean())
    numbers = np.unique(group, return_inverse=True)[1]
    groups = int(numbers.max()) + 1
    if groups < 2:
        return Interval(value, 0.0, 1.0, rows)
    totals = np.bincount(numbers, weights=right.mean(axis=0) - value)
    variance = float(totals @ totals) / rows**2 * groups / (groups - 1)
    effective = float(groups)  # all right, or all wrong
    if variance > 0:
        q = 1 - level / 2
        freedom = (stdtrit(rows - 1, q) / stdtrit(groups - 1, q)) ** 2
        simple = value * (1 - value) / (rows - 1)  # the variance without groups
        effective = min(float(rows), rows * simple / variance * float(freedom))
    return Interval(value, *clopper_pearson(value * effective, effective, level), rows)


def unchecked(rows: int, review: float) -> int:
    """Rows that nobody checks where people check this share of them, the least sure ones."""
    return max(1, rows - int(np.ceil(review * rows)))


def resampled(table: OutOfFold, metric: str, names: Sequence[str], seed: int = 0) -> Floats:
    """(resamples + 1, candidates) scores, the first row those of the rows as they are.

    The constant prediction comes last. A mean over repeats.

    Args:
        table: of the predictions.
        metric: of the score.
        names: of candidates.
        seed: of the resamples.
    """
    scores = np.stack([*(table.probability[name] for name in names), table.constant])
    candidates, repeats, rows, classes = scores.shape
    flat = scores.reshape(candidates * repeats, rows, classes)
    numbers = np.unique(table.group, return_inverse=True)[1]
    generator = np.random.default_rng(seed)
    drawn = bootstrap.draws(int(numbers.max()) + 1, RESAMPLES, generator)
    pieces = [np.ones((1, rows)), *(counts[:, numbers] for counts in drawn)]
    found = np.concatenate(
        [bootstrap.score(metric, flat, table.label, counts) for counts in pieces]
    )
    return np.asarray(found.reshape(-1, candidates, repeats).mean(axis=2), dtype=np.float64)


def scores(
    table: OutOfFold, metric: str, names: Sequence[str], level: float = LEVEL, seed: int = 0
) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """Scores of candidates by any metric, and how far they are above the constant prediction's.

    Args:
        table: of the predictions.
        metric: of the score.
        names: of the candidates.
        level: one less the probability of the intervals.
        seed: of the resamples.
    """
    rows, classes = table.rows, table.constant.shape[2]
    each = np.stack([*(table.probability[name] for name in names), table.constant])
    candidates, repeats = each.shape[:2]
    label = np.concatenate([table.label, np.arange(classes)])
    groups = np.unique(table.group, return_inverse=True)[1]
    groups = np.concatenate([groups, groups.max() + 1 + np.arange(classes)])
    shares = np.broadcast_to(
        table.constant.mean(axis=1, keepdims=True), (repeats, classes, classes)
    )

    def drawn(answer: Ints) -> Floats:
        """Scores (resamples, candidates), with a further row of each class that has this answer."""
        further = np.broadcast_to(
            np.eye(classes)[answer], (candidates - 1, repeats, classes, classes)
        )
        whole = np.concatenate([each, np.concatenate([further, shares[None]])], axis=2)
        flat = whole.reshape(candidates * repeats, rows + classes, classes)
        drawn = bootstrap.weights(groups.max() + 1, RESAMPLES, np.random.default_rng(seed))
        found = [bootstrap.score(metric, flat, label, some[:, groups]) for some in drawn]
        return np.concatenate(found).reshape(-1, candidates, repeats).mean(axis=2)

    ones = np.ones((1, rows))
    flat = each.reshape(candidates * repeats, rows, classes)
    value = (
        bootstrap.score(metric, flat, table.label, ones).reshape(candidates, repeats).mean(axis=1)
    )
    right = np.arange(classes)
    low, high = drawn((right + 1) % classes), drawn(right)

    def interval(of: Callable[[Floats], Floats]) -> Interval:
        ends = np.nanquantile(of(low), level / 2), np.nanquantile(of(high), 1 - level / 2)
        return Interval(float(of(value)), float(ends[0]), float(ends[1]), rows)

    def score(k: int) -> Interval:
        return interval(lambda one: one[..., k])

    def gain(k: int) -> Interval:
        return interval(lambda one: one[..., k] - one[..., -1])

    return (
        {name: score(k) for k, name in enumerate(names)},
        {name: gain(k) for k, name in enumerate(names)},
    )


def percentile(values: Floats, rows: int, level: float = LEVEL) -> Interval:
    """The interval between quantiles of resampled figures, of which the first is the found one.

    Resamples without the figure (labels of one class) are left out.
    """
    low, high = np.nanquantile(values[1:], (level / 2, 1 - level / 2))
    return Interval(float(values[0]), float(low), float(high), rows)


def difference_of_shares(
    ours: Floats, theirs: Floats, group: Ints, level: float = LEVEL
) -> Interval:
    """Difference of two shares of right answers to the same rows, by Student's t over groups.

    Args:
        ours, theirs: (repeats, rows) of 0 and 1.
        group, level: as of `share`.
    """
    from scipy.special import stdtrit

    each = (ours - theirs).mean(axis=0)
    rows, value = len(each), float(each.mean())
    numbers = np.unique(group, return_inverse=True)[1]
    groups = int(numbers.max()) + 1
    if groups < 2:
        return Interval(value, -1.0, 1.0, rows)
    totals = np.bincount(numbers, weights=each - value)
    error = float(np.sqrt(totals @ totals / rows**2 * groups / (groups - 1)))
    reach = float(stdtrit(groups - 1, 1 - level / 2)) * error
    return Interval(value, value - reach, value + reach, rows)
