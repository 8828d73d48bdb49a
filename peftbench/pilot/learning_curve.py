"""Scores over numbers of labels: what more of them would bring, and where methods cross.

The error 1 - score of a candidate follows a power law, error = b n^-c of n training rows (Hestness
et al. 2017, arXiv 1712.00409), fitted by least squares to the logarithms of three sizes. The fit is
repeated on resamples of the groups of rows, the same ones for all sizes and candidates. So the
intervals are of the rows, not of the form of the curve: beyond the sizes that were measured the
figures are extrapolations.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from peftbench.core.arrays import Floats
from peftbench.pilot import intervals
from peftbench.pilot.intervals import LEVEL, Interval
from peftbench.pilot.out_of_fold import OutOfFold

#: Labels that a pilot looks ahead.
FURTHER = 500

#: Share of resamples that must have a crossing point for it to have an interval.
_MOST = 0.95

#: A crossing point is looked for up to so many times the rows.
_REACH = 10


@dataclass(frozen=True)
class Curve:
    """The learning curve of a candidate.

    Attributes:
        name: of the candidate.
        sizes: mean numbers of training rows of a fold, ascending.
        scores: at each of them.
        now: projected with all rows.
        later: projected with `FURTHER` more.
        gain: the difference of the two.
    """

    name: str
    sizes: list[float]
    scores: list[Interval]
    now: Interval
    later: Interval
    gain: Interval


@dataclass(frozen=True)
class Crossing:
    """Where one candidate overtakes another.

    Attributes:
        first, second: the better one with fewer labels, and with more; or with no crossing found.
        at: number of training rows with its interval; None where there is none.
        why: the reason, where there is none.
    """

    first: str
    second: str
    at: Interval | None
    why: str | None


def curves(
    tables: Mapping[float, OutOfFold], metric: str, names: list[str]
) -> tuple[list[Curve], Crossing | None]:
    """The curves of candidates, and where the first two of them cross.

    Args:
        tables: by mean number of training rows, of the same rows; two sizes at least.
        metric: of the score.
        names: of the candidates that all tables have, the best first.
    """
    sizes = sorted(tables)
    rows = tables[sizes[0]].rows
    drawn = np.stack([intervals.resampled(tables[n], metric, names)[:, :-1] for n in sizes])
    # (sizes, resamples + 1, candidates) errors; none is 0, whose logarithm is not a number
    errors = np.maximum(1 - drawn, 1 / (2 * rows))
    levels, slopes = _power_law(np.array(sizes), errors)
    made = []
    for k, name in enumerate(names):
        now, later = (
            1 - np.exp(levels[:, k] - slopes[:, k] * np.log(n)) for n in (rows, rows + FURTHER)
        )
        found = [intervals.percentile(drawn[s, :, k], rows) for s in range(len(sizes))]
        projected = (intervals.percentile(one, rows) for one in (now, later, later - now))
        made.append(Curve(name, sizes, found, *projected))
    if len(names) < 2:
        return made, None
    return made, _crossing(levels, slopes, names, sizes[0], rows)


def _power_law(sizes: Floats, errors: Floats) -> tuple[Floats, Floats]:
    """Logarithm of b, and c, of each (sizes, …) series of errors."""
    x = np.log(sizes) - np.log(sizes).mean()
    y = np.log(errors)
    slope = np.tensordot(x, y, axes=1) / (x @ x)
    return y.mean(axis=0) - slope * np.log(sizes).mean(), -slope


def _crossing(
    levels: Floats, slopes: Floats, names: list[str], least: float, rows: int
) -> Crossing:
    """The crossing point of the curves of the first two candidates."""
    steeper = slopes[:, 0] - slopes[:, 1]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        at = np.exp((levels[:, 0] - levels[:, 1]) / steeper)
    # curves that meet at the fewest rows that were measured cross nowhere behind them
    inside = np.isfinite(at) & (at > 1.001 * least) & (at <= _REACH * rows)
    inside &= np.sign(steeper) == np.sign(steeper[0])  # else the other one overtakes
    first, second = (names[1], names[0]) if steeper[0] > 0 else (names[0], names[1])
    found = float(inside[1:].mean())
    if not inside[0]:
        best = names[0]
        return Crossing(
            best,
            names[1],
            None,
            f"the fitted curves do not cross between {least:.0f} and {_REACH * rows:,} rows",
        )
    if found < _MOST:
        return Crossing(
            first,
            second,
            None,
            f"the curves cross near {at[0]:.0f} rows, but only {found:.0%} of resamples have such "
            f"a crossing between {least:.0f} and {_REACH * rows:,} rows, so it has no interval",
        )
    known = np.concatenate([at[:1], at[1:][inside[1:]]])
    return Crossing(first, second, intervals.percentile(known, rows, LEVEL), None)
