"""What a few seeds on one set of examples allow to say: intervals, tests, corrections, ranks.

Two things vary: the seed of a run and the examples that it is scored on. Both are random here, and
both runs of a pair share both, so only differences count. One seed each compares two models on the
examples, and says nothing of the methods that made them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peftbench.core.arrays import Floats

#: Level of tests, and one less the probability of intervals.
ALPHA = 0.05

#: Probability with which the minimum detectable difference would be found, and what simulations
#: say of it (`scripts/simulate_paired.py`): 70 % with three seeds, 75 with five, 84 with ten.
POWER = 0.8
DETECTED = "about four times in five (in simulations 70 % with three seeds)"


#: Fewer seeds say too little of their own spread for a minimum detectable difference.
_FEWEST = 3

#: Places at which the distribution over examples is held, between quantiles of equal mass.
_PLACES = 1_000


@dataclass(frozen=True)
class Effect:
    """A difference of two means over seeds.

    Attributes:
        value: as it was found.
        low, high: the interval of 1 - ALPHA, or of the level that was asked for.
        p: two-sided, that there is no difference, or the one that was to be told apart.
        detectable: the least true difference that such a comparison, at the level of the interval,
            finds with POWER; not a number with fewer than three seeds.
    """

    value: float
    low: float
    high: float
    p: float
    detectable: float


def effect(found: Floats, resampled: Floats, null: float = 0.0, level: float = ALPHA) -> Effect:
    """A mean difference under a two-level bootstrap: of examples, and in each of seeds.

    Examples are resampled, the same ones for both sides and all seeds. Two or three seeds are too
    few to be resampled (three have ten distinct resamples, of too little spread), so theirs is a
    parametric bootstrap: on each resample of the examples the mean over seeds moves by its standard
    error, that on all examples, times Student's t. The distribution is computed, not drawn.

    What a seed answers to an example beyond seed and example varies between seeds, so that the
    standard error has it, and between resamples too. Its part of the latter, from the difference
    between one seed's variance and the mean's, is taken out of the spread over examples: the mean
    has it once. No more is taken out than the seeds differ by, so that seeds which happen to agree
    never say more than resampled examples alone. `scripts/simulate_paired.py` has the level and
    power.

    With one seed the mean stays, and nothing is said of other seeds.

    Args:
        found: (seeds,) differences on all examples.
        resampled: (resamples, seeds) differences, each on the same resample for all seeds.
        null: the difference that p is about.
        level: one less the probability of the interval.
    """
    seeds = len(found)
    items = resampled.mean(axis=1)
    value = float(found.mean())
    between = float(np.var(found, ddof=1)) / seeds if seeds > 1 else 0.0
    if between <= 1e-24:
        low, high = np.quantile(items, (level / 2, 1 - level / 2))
        tail = min(np.sum(items <= null + 1e-12), np.sum(items >= null - 1e-12))
        p = min(1.0, 2 * (1 + float(tail)) / (1 + len(items)))
    else:
        items = items_once(items, resampled, between)
        places = np.quantile(items, (np.arange(_PLACES) + 0.5) / _PLACES)
        low, high = (_quantile(places, between, seeds, q) for q in (level / 2, 1 - level / 2))
        below = _below(places, between, seeds, null)
        p = 2 * min(below, 1 - below)
    error = np.sqrt(float(np.var(items)) + between)
    reach = float(high - low) / 2 + _found_too(seeds) * error
    return Effect(value, float(low), float(high), p, float(reach))


def items_once(items: Floats, resampled: Floats, between: float) -> Floats:
    """Means on resamples without the part of their spread that seeds have of their own.

    Args:
        items: (resamples,) means over seeds.
        resampled: (resamples, seeds), two seeds at least.
        between: variance of the mean over seeds, which has that part too.
    """
    seeds = resampled.shape[1]
    each, mean = float(resampled.var(axis=0).mean()), float(items.var())
    twice = min(max(0.0, (each - mean) / (seeds - 1)), mean, between)
    if not mean:
        return items
    centre = items.mean()
    found: Floats = centre + (items - centre) * np.sqrt((mean - twice) / mean)
    return found


def _below(places: Floats, between: float, seeds: int, at: float) -> float:
    """Probability that one of these places, moved by Student's t, lies below a number."""
    from scipy.special import stdtr

    return float(np.mean(stdtr(seeds - 1, (at - places) / np.sqrt(between))))


def _quantile(places: Floats, between: float, seeds: int, q: float) -> float:
    """The number below which one of these places, moved by Student's t, lies so often."""
    from scipy.optimize import brentq
    from scipy.special import stdtrit

    reach = abs(float(stdtrit(seeds - 1, q))) * np.sqrt(between)
    edge = 1e-12 * max(1.0, float(reach) ** 2)  # seconds are hundreds, where 1e-12 is lost
    low, high = float(places.min() - reach - edge), float(places.max() + reach + edge)
    return float(brentq(lambda x: _below(places, between, seeds, x) - q, low, high, xtol=1e-7))


def _found_too(seeds: int) -> float:
    """Standard errors above the edge of the interval at which a difference is found with POWER."""
    from scipy.special import stdtrit

    return float(stdtrit(seeds - 1, POWER)) if seeds >= _FEWEST else float("nan")


def detectable(items: float, between: float, seeds: int) -> float:
    """The difference that the test of `effect` finds with probability POWER at ALPHA.

    Half its interval, for which the examples' part is normal, and the quantile of Student's t for
    POWER times the standard error. Not a number with fewer than three seeds.

    Args:
        items: variance of the mean difference over examples.
        between: variance of the mean difference over seeds.
        seeds: how many.
    """
    from scipy.special import ndtri

    q = 1 - ALPHA / 2
    if between:
        places = np.sqrt(items) * ndtri((np.arange(200) + 0.5) / 200)
        reach = _quantile(places, between, seeds, q)
    else:
        reach = float(np.sqrt(items) * ndtri(q))
    return float(reach + _found_too(seeds) * np.sqrt(items + between))


def student(found: Floats, null: float = 0.0) -> Effect | None:
    """A mean over seeds, by Student's t; for what is known of each seed but not of each example.

    None with fewer than two seeds, or where all have the same value.

    Args:
        found: (seeds,) values.
        null: the mean that p is about.
    """
    from scipy.stats import t

    seeds = len(found)
    error = float(np.std(found, ddof=1)) / np.sqrt(seeds) if seeds > 1 else 0.0
    if error <= 1e-12:
        return None
    mean, reach = float(found.mean()), float(t.ppf(1 - ALPHA / 2, seeds - 1)) * error
    p = float(2 * t.sf(abs(mean - null) / error, seeds - 1))
    return Effect(mean, mean - reach, mean + reach, p, detectable(0.0, error**2, seeds))


def steadier(ours: Floats, theirs: Floats) -> Effect | None:
    """How much less scores of seeds lie apart than others: Brown and Forsythe 1974.

    The difference of two means of absolute deviations from the median, theirs less ours, by a t
    test of these: its square is Levene's statistic with `center="median"`. None with fewer than
    three seeds on a side, or where no deviation differs.
    """
    from scipy.stats import t

    sides = [np.abs(side - np.median(side)) for side in (theirs, ours)]
    if min(map(len, sides)) < 3:
        return None
    freedom = sum(map(len, sides)) - 2
    pooled = sum(float(np.sum((side - side.mean()) ** 2)) for side in sides) / freedom
    error = float(np.sqrt(pooled * sum(1 / len(side) for side in sides)))
    if error <= 1e-12:
        return None
    value = float(sides[0].mean() - sides[1].mean())
    reach = float(t.ppf(1 - ALPHA / 2, freedom)) * error
    found = float(t.ppf(1 - ALPHA / 2, freedom) + t.ppf(POWER, freedom)) * error
    p = float(2 * t.sf(abs(value) / error, freedom))
    return Effect(value, value - reach, value + reach, p, found)


def spread(found: Floats, bound: float) -> Effect | None:
    """The standard deviation over seeds, as if scores were normal: chi-square; p is about a bound.

    None with fewer than two seeds. Nothing is said of what could be detected.
    """
    from scipy.stats import chi2

    freedom = len(found) - 1
    if freedom < 1:
        return None
    squares = float(np.var(found, ddof=1)) * freedom
    low, high = (float(np.sqrt(squares / chi2.ppf(q, freedom))) for q in (1 - ALPHA / 2, ALPHA / 2))
    at = squares / bound**2
    p = float(min(1.0, 2 * min(chi2.cdf(at, freedom), chi2.sf(at, freedom))))
    return Effect(float(np.sqrt(squares / freedom)), low, high, p, float("nan"))


def seeds_to_tell(items: float, seed: float, gap: float, most: int = 100) -> int | None:
    """The fewest seeds that find a difference of `gap` with POWER; None if more than `most`.

    Args:
        items: variance of the mean difference over examples, which more seeds do not lessen.
        seed: variance of the difference between seeds; not a number where it is not known.
        gap: of the difference from the one that it is to be told from.
        most: that are asked for.
    """
    if np.isnan(seed) or detectable(items, seed / most, most) > gap:
        return None
    few, enough = _FEWEST - 1, most  # more seeds detect less
    while enough - few > 1:
        middle = (few + enough) // 2
        if detectable(items, seed / middle, middle) <= gap:
            enough = middle
        else:
            few = middle
    return enough


def seeds_to_bound(found: float, bound: float, most: int = 100) -> int | None:
    """The fewest seeds whose interval of a standard deviation like this one leaves the bound out.

    Args:
        found, bound: standard deviations.
        most: seeds that are asked for.
    """
    from scipy.stats import chi2

    for seeds in range(3, most + 1):
        ratio = (seeds - 1) * (found / bound) ** 2
        if not chi2.ppf(ALPHA / 2, seeds - 1) <= ratio <= chi2.ppf(1 - ALPHA / 2, seeds - 1):
            return seeds
    return None


def mcnemar(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> float:
    """Exact p of McNemar 1947 for two (examples,) arrays of right answers: a binomial test."""
    from scipy.stats import binomtest

    won, lost = int(np.sum(ours & ~theirs)), int(np.sum(theirs & ~ours))
    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def superiority(ours: Floats, theirs: Floats) -> float:
    """Probability that a run of ours beats one of theirs, ties as half: Mann and Whitney's U / nm.

    The probability of improvement of Agarwal et al. 2021 (arXiv 2108.13264), over all pairs.
    """
    above = ours[:, None] - theirs[None, :]
    return float(np.mean((above > 0) + 0.5 * (above == 0)))


def holm(p: list[float]) -> list[float]:
    """Adjusted p values of a family of tests (Holm 1979): each below a level controls any error."""
    order = np.argsort(p, kind="stable")
    steps = np.asarray(p)[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return [float(value) for value in adjusted]


@dataclass(frozen=True)
class Ranks:
    """Mean ranks of treatments over blocks, 1 the best.

    Attributes:
        mean: (treatments,).
        p: of Friedman 1937, corrected for ties, that all are alike.
        critical: two mean ranks further apart than this differ (Nemenyi 1963, at ALPHA).
    """

    mean: Floats
    p: float
    critical: float


def ranks(scores: Floats) -> Ranks:
    """Rank (blocks, treatments) scores, higher is better (Demsar 2006, section 3.2.2).

    Raises:
        ValueError: if there are fewer than three treatments or two blocks.
    """
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    blocks, treatments = scores.shape
    if treatments < 3 or blocks < 2:
        raise ValueError(f"ranks need 3 treatments and 2 blocks, got {treatments} and {blocks}")
    q = float(studentized_range.ppf(1 - ALPHA, treatments, np.inf)) / np.sqrt(2)
    same = bool(np.all(scores == scores[:, :1]))  # scipy divides by 0 there
    return Ranks(
        mean=rankdata(-scores, axis=1).mean(axis=0),
        p=1.0 if same else float(friedmanchisquare(*scores.T).pvalue),
        critical=float(q * np.sqrt(treatments * (treatments + 1) / (6 * blocks))),
    )
