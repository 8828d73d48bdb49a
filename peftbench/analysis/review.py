"""Which texts people review: a cut-off on the confidence for a wanted error rate.

The model answers a text by itself if the probability of its class reaches the cut-off; people
answer the others. A cut-off that was chosen on the calibration part, which nothing was trained on,
comes with a guarantee for texts from the same source; it does not cover texts that change with
time. The guarantee needs independent rows: of rows that depend on each other, such as near
duplicates or those of one customer, one of each group counts (`one_of_each`). A cut-off that was
chosen from out-of-fold predictions is an estimate: those are of other models than the one that is
used, and the lowest error of many cut-offs is too low.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peftbench.analysis.costs import Prices
from peftbench.analysis.proportions import Proportion
from peftbench.core.arrays import Floats
from peftbench.core.errors import ConfigError

Classes = NDArray[np.int64]

#: Probability with which a guaranteed cut-off may exceed the wanted error rate.
LEVEL = 0.1

#: Shares of the texts to answer that are tested, from few to all.
_SHARES = np.arange(1, 11) / 10

#: One row in so many only places the tested cut-offs, where no other confidences are given.
_PLACING = 10

#: Texts that costs are given for.
TEXTS = 1_000


@dataclass(frozen=True)
class CutOff:
    """The least confidence with which the model answers by itself.

    Attributes:
        kind: "guaranteed", "controlled" or "estimate", by the function that found it.
        wanted: the error rate that was asked for.
        level: probability with which the guarantee may fail; None where there is none.
        value: the cut-off; 0 answers all texts, None none of them.
        answered: rows that reach it.
        wrong: of these, the rows with another label.
        why: the reason where no cut-off was found.
        same_group: rows that do not count, because another row of their group does.
    """

    kind: str
    wanted: float
    level: float | None
    value: float | None
    answered: Proportion
    wrong: Proportion
    why: str | None = None
    same_group: int = 0

    @property
    def reviewed(self) -> Proportion:
        """Rows that people review."""
        return Proportion(self.answered.of - self.answered.count, self.answered.of)


def guaranteed_cut_off(
    probability: Floats,
    label: Classes,
    error: float,
    level: float = LEVEL,
    places: Floats | None = None,
) -> CutOff:
    """The lowest cut-off with at most this error rate among answered texts, with 1 - level.

    Learn-then-test (Angelopoulos, Bates, Candès, Jordan and Lei 2021, arXiv 2110.01052), with the
    exact binomial test of the error at each cut-off (as Geifman and El-Yaniv 2017, arXiv
    1705.08500) and fixed sequence testing: cut-offs from the highest on, each at the whole level,
    until one does not pass. Cut-offs must not depend on the rows that test them, so other
    confidences place them.

    Args:
        probability: (rows, classes) of the model that is used, on rows it was not trained on.
        label: (rows,) classes.
        error: highest error rate among the texts that are answered automatically, in (0, 1).
        level: probability with which the true error rate may be higher, in (0, 1).
        places: (texts,) confidences of other texts, with or without labels; by default a tenth of
            the rows, drawn at random, is only used for this.

    Raises:
        ConfigError: if a rate is not in (0, 1), or there are no rows.
    """
    from scipy.stats import binom

    sure, wrong = _answers(probability, label, error)
    _check_rate("level", level)
    tested = np.arange(len(sure))
    if places is None:
        order = np.random.default_rng(0).permutation(len(sure))
        places = sure[order[: len(sure) // _PLACING]]
        tested = np.sort(order[len(sure) // _PLACING :])
    least = math.ceil(math.log(level) / math.log(1 - error))
    rows = f"{len(tested)} rows"
    if len(tested) < len(sure):
        rows = f"{len(tested)} of {len(sure)} rows (the others place the cut-offs)"
    why = (
        f"{rows} do not show an error of at most {100 * error:g} % with "
        f"{100 * (1 - level):g} % probability at any cut-off; it takes at least {least} answered "
        "rows without an error, more where there are errors"
    )
    shares = _SHARES[_SHARES * len(tested) >= least]  # of fewer rows no error rate can be shown
    if not len(shares) or not len(places):
        return _cut_off("guaranteed", error, level, None, sure, wrong, why)
    cuts = np.quantile(places, 1 - shares)
    cuts[-1] = 0.0  # shares end with all texts
    answered = sure[tested] >= cuts[:, None]
    p = binom.cdf((answered & wrong[tested]).sum(axis=1), answered.sum(axis=1), error)
    passed = int(np.argmax(np.append(p, 1.0) > level))  # up to the first that does not pass
    found = float(cuts[passed - 1]) if passed else None
    return _cut_off("guaranteed", error, level, found, sure, wrong, why)


def one_of_each(group: Classes, seed: int = 0) -> NDArray[np.int64]:
    """Numbers of rows, ascending, of which each group has one, drawn at random.

    They are independent where groups are, and a promise from them is over groups that count once
    each, whatever their sizes are: a text drawn from a group that was drawn. Counting all rows
    breaks a promise of 10 % in up to 62 % of parts with groups of 20.

    Args:
        group: (rows,) numbers of groups.
        seed: of the draw.
    """
    order = np.random.default_rng(seed).permutation(len(group))
    return np.sort(order[np.unique(group[order], return_index=True)[1]]).astype(np.int64)


def controlled_cut_off(probability: Floats, label: Classes, error: float) -> CutOff:
    """The lowest cut-off with at most this share of wrong automatic answers in all texts.

    Conformal risk control (Angelopoulos, Bates, Fisch, Lei and Schuster 2022, arXiv 2208.02814)
    of the loss "answered automatically and wrong", which falls as the cut-off rises. The guarantee
    is for the mean over calibration parts, and counts reviewed texts as right.

    Args:
        probability: (rows, classes) of the model that is used, on rows it was not trained on.
        label: (rows,) classes.
        error: highest expected share of all texts, in (0, 1).

    Raises:
        ConfigError: if the rate is not in (0, 1), or there are no rows.
    """
    sure, wrong = _answers(probability, label, error)
    cuts, _, mistakes = _by_confidence(sure, wrong)
    kept = (mistakes + 1) / (len(sure) + 1) <= error
    why = (
        f"the surest of {len(sure)} rows are wrong too often for {100 * error:g} % of all texts"
        if error * (len(sure) + 1) >= 1
        else f"{100 * error:g} % takes at least {math.ceil(1 / error - 1)} rows, got {len(sure)}"
    )
    return _cut_off("controlled", error, None, _lowest(cuts, kept), sure, wrong, why)


def estimated_cut_off(probability: Floats, label: Classes, error: float) -> CutOff:
    """The lowest cut-off whose answered rows have at most this error rate: an estimate.

    Args:
        probability: (rows, classes) out-of-fold predictions: each row by a model that was not
            trained on it.
        label: (rows,) classes.
        error: error rate among the answered rows, in (0, 1).

    Raises:
        ConfigError: if the rate is not in (0, 1), or there are no rows.
    """
    sure, wrong = _answers(probability, label, error)
    cuts, answered, mistakes = _by_confidence(sure, wrong)
    found = _lowest(cuts, mistakes <= error * answered + 1e-9)
    why = f"the surest of {len(sure)} rows are wrong more often than {100 * error:g} %"
    return _cut_off("estimate", error, None, found, sure, wrong, why)


def _answers(probability: Floats, label: Classes, error: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Confidence of each row, and whether its answer is wrong."""
    _check_rate("error", error)
    if not len(label) or probability.shape[:1] != label.shape:
        raise ConfigError(
            f"a cut-off needs a label for each of at least one row, got {len(label)} labels and "
            f"{len(probability)} predictions"
        )
    return probability.max(axis=1).astype(np.float64), probability.argmax(axis=1) != label


def _check_rate(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ConfigError(f"review: {name} is between 0 and 1, got {value!r}")


def _by_confidence(sure: Floats, wrong: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Distinct confidences from the highest on; rows that reach each, and wrong ones of these."""
    cuts, count = np.unique(-sure, return_counts=True)
    mistakes = np.bincount(np.searchsorted(cuts, -sure), weights=wrong, minlength=len(cuts))
    return -cuts, np.cumsum(count).astype(np.float64), np.cumsum(mistakes)


def _lowest(cuts: Floats, kept: NDArray[np.bool_]) -> float | None:
    """The lowest of the cut-offs that keep the rate; 0 where that is all rows."""
    if kept[-1]:
        return 0.0
    return float(cuts[kept][-1]) if kept.any() else None


def _cut_off(
    kind: str,
    error: float,
    level: float | None,
    value: float | None,
    sure: Floats,
    wrong: NDArray[np.bool_],
    why: str,
) -> CutOff:
    answered = sure >= (np.inf if value is None else value)
    count = int(answered.sum())
    return CutOff(
        kind=kind,
        wanted=error,
        level=level,
        value=value,
        answered=Proportion(count, len(sure)),
        wrong=Proportion(int((answered & wrong).sum()), count),
        why=why if value is None else None,
    )


# costs


@dataclass(frozen=True)
class Span:
    """A value with the interval that follows from that of a share."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ReviewCost:
    """What review costs for `TEXTS` texts.

    Attributes:
        hours: of people.
        money: in the currency of the prices; None where it is not known.
        why: what is missing for the money.
    """

    hours: Span
    money: Span | None
    why: str | None = None


def review_cost(reviewed: Proportion, prices: Prices) -> ReviewCost | None:
    """What it costs that people review this share; None of no rows."""
    if reviewed.value is None or reviewed.low is None or reviewed.high is None:
        return None
    each = TEXTS * prices.review_seconds / 3600
    hours = Span(each * reviewed.value, each * reviewed.low, each * reviewed.high)
    wage = prices.labour_hour
    if wage is None:
        return ReviewCost(hours, None, "prices: labour_hour is not given")
    return ReviewCost(hours, Span(wage * hours.value, wage * hours.low, wage * hours.high))


@dataclass(frozen=True)
class Payback:
    """When automatic answers have paid for themselves.

    Attributes:
        months: from the roll-out on; infinite where they cost more than they save, None where a
            price is missing.
        soon: whether the longest of the interval is within `prices.payback_months`.
        why: what is missing.
    """

    months: Span | None
    soon: bool | None
    why: str | None = None


def payback(reviewed: Proportion, prices: Prices, spent: float | None) -> Payback:
    """Months after which the hours that people no longer need have paid for what was spent.

    Args:
        reviewed: share that people still review; without the model they answer all texts.
        prices: with `labour_hour` and `texts_month`; `cloud_month` counts as 0 where it is null.
        spent: once, on labels, training and set-up, in the currency of the prices; None where a
            label has no price.
    """
    given = {
        "labour_hour": prices.labour_hour,
        "texts_month": prices.texts_month,
        "label": spent,
    }
    if missing := [name for name, value in given.items() if value is None]:
        return Payback(None, None, f"not given: {', '.join(missing)}")
    if reviewed.value is None or reviewed.low is None or reviewed.high is None:
        return Payback(None, None, "no rows")
    assert prices.labour_hour is not None
    assert prices.texts_month is not None
    assert spent is not None
    whole = prices.texts_month * prices.review_seconds / 3600 * prices.labour_hour
    months = []
    for share in (reviewed.value, reviewed.low, reviewed.high):
        saved = whole * (1 - share) - (prices.cloud_month or 0.0)
        months.append(spent / saved if saved > 0 else math.inf)
    return Payback(Span(*months), months[2] <= prices.payback_months)
