"""Which of several rows has the highest expected score: draws from what their seeds leave open.

A run trains or it collapses. A row's expected score is a mixture,

    (1 - f) m + f b

of the mean m of runs that train and the score b of those that collapse, by the rate of failures f.
Where none collapsed, b is the score of the constant prediction. With k of n seeds collapsed, f has
the posterior Beta(w r + k, w (1 - r) + n - k): its prior has the rate r of all rows and the weight
w of `WEIGHT` seeds, between rows that fail alike and rows of which one fails
(`scripts/simulate_advice.py`). m is Student's t around the mean of the seeds that trained, cut to
the range of the metric. Few seeds say little of their own variance, so that of the median row is
put to it with the weight of `PRIOR_FREEDOM` degrees (the moderated variance of Smyth 2004, with the
weight fixed).
"""

from dataclasses import dataclass

import numpy as np

from peftbench.analysis.significance import ALPHA
from peftbench.core.arrays import Floats

#: Degrees of freedom of the rows' pooled variance beside a row's own.
PRIOR_FREEDOM = 4

#: Seeds that the rate of failures of all rows weighs as much as, beside a row's own.
WEIGHT = 2


@dataclass(frozen=True)
class SeedScores:
    """The seeds of a row.

    Attributes:
        trained: scores of those that did not collapse.
        failed: how many collapsed.
        over_items: (draws,) of the mean of the trained over resampled examples, less that on all;
            None where only seeds count.
        seed: of the draws.
        failed_score: mean score of those that collapsed; None is the constant prediction's, which
            they do not have where they predict another class.
    """

    trained: list[float]
    failed: int
    over_items: Floats | None
    seed: int
    failed_score: float | None = None


def draw_expected_scores(
    rows: list[SeedScores], constant: float, span: tuple[float, float], draws: int
) -> Floats:
    """Draws of the expected score of each row, (rows, draws).

    Args:
        rows: of one task and size.
        constant: score of the constant prediction.
        span: range of the metric.
        draws: how many; as many as `over_items` has.
    """
    pooled = _pooled([row.trained for row in rows])
    failed = sum(row.failed for row in rows)
    rate = (failed + 0.5) / (failed + sum(len(row.trained) for row in rows) + 1)
    return np.stack([_draw(row, pooled, rate, constant, span, draws) for row in rows])


def _pooled(rows: list[list[float]]) -> float:
    """Variance between seeds of the median row with two that trained; 0 where no row has.

    A row whose seeds half fail, though none collapses, does not make all others uncertain. Sample
    variances are divided by the median of their distribution.
    """
    from scipy.special import chdtri

    several = [np.array(scores) for scores in rows if len(scores) > 1]
    found = [
        float(np.sum((scores - scores.mean()) ** 2)) / float(chdtri(len(scores) - 1, 0.5))
        for scores in several
    ]
    return float(np.median(found)) if found else 0.0


def _draw(
    row: SeedScores,
    pooled: float,
    rate: float,
    constant: float,
    span: tuple[float, float],
    draws: int,
) -> Floats:
    from scipy.special import stdtr, stdtrit

    level = constant if row.failed_score is None else row.failed_score
    generator = np.random.default_rng(row.seed)  # rows are drawn independently
    count = len(row.trained)
    if not count:
        return np.full(draws, level)  # what it scores where it trains was never seen
    own = max(0, count - 1)
    squares = float(np.var(row.trained)) * count
    freedom = PRIOR_FREEDOM + own
    error = np.sqrt((PRIOR_FREEDOM * pooled + squares) / freedom / count)
    centre = float(np.mean(row.trained)) + (0.0 if row.over_items is None else row.over_items)
    centre = np.clip(np.broadcast_to(centre, draws), *span)
    if error:
        low, high = (stdtr(freedom, (end - centre) / error) for end in span)
        place = low + (high - low) * generator.random(draws)
        centre = np.clip(centre + error * stdtrit(freedom, place), *span)
    fails = generator.beta(WEIGHT * rate + row.failed, WEIGHT * (1 - rate) + count, draws)
    found: Floats = (1 - fails) * centre + fails * level
    return found


def share_of_draws_won(drawn: Floats) -> list[float]:
    """How often each row has the highest of (rows, draws); rows that tie share a draw."""
    highest = drawn == drawn.max(axis=0)
    return [float(share) for share in (highest / highest.sum(axis=0)).mean(axis=1)]


def above(drawn: Floats, constant: float) -> list[bool]:
    """Whether each row's expected score is above that of the constant prediction.

    Two-sided at ALPHA, corrected over the rows (Bonferroni).

    Args:
        drawn: (rows, draws).
        constant: score of the constant prediction.
    """
    level = ALPHA / 2 / len(drawn)
    return [bool(share < level) for share in np.mean(drawn <= constant + 1e-12, axis=1)]
