"""Cut-offs by hand, and their guarantees by simulation."""

import math

import numpy as np
import pytest

from peftbench.analysis import review
from peftbench.analysis.costs import Prices
from peftbench.analysis.proportions import Proportion
from peftbench.core.errors import ConfigError

REPEATS = 1_000


def rows(sure, wrong):
    """Probabilities of two classes and labels with this confidence and these mistakes."""
    sure = np.asarray(sure, dtype=float)
    return np.stack([sure, 1 - sure], axis=1), np.asarray(wrong, dtype=np.int64)


def population(kind: str, count: int, generator: np.random.Generator):
    """Confidences and mistakes of texts; uneven: the error falls again below the middle ones."""
    sure = 0.5 + 0.5 * generator.beta(2, 1, count)
    chance = 1 - sure
    if kind == "uneven":
        chance = np.where((sure > 0.75) & (sure < 0.9), 0.35, 0.05)
    return sure, generator.random(count) < chance


@pytest.fixture(scope="module", params=["calibrated", "uneven"])
def simulated(request):
    """The true error among the texts that reach a cut-off, and many calibration parts."""
    generator = np.random.default_rng(0)
    sure, wrong = population(request.param, 400_000, generator)
    order = np.argsort(-sure)
    falling, mistakes = sure[order], np.cumsum(wrong[order])

    def error(cut: float, of_all: bool = False) -> float:
        count = int(np.searchsorted(-falling, -cut, "right"))
        made = mistakes[count - 1] if count else 0
        return float(made / (len(sure) if of_all else max(1, count)))

    parts = [rows(*population(request.param, 300, generator)) for _ in range(REPEATS)]
    return request.param, error, parts


def test_the_guarantee_holds_as_often_as_promised(simulated):
    _, error, parts = simulated
    found = [review.guaranteed_cut_off(*part, error=0.15, level=0.1) for part in parts]
    cuts = [one.value for one in found if one.value is not None]
    broken = sum(error(cut) > 0.15 for cut in cuts) / REPEATS
    assert broken <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / REPEATS)
    assert len(cuts) / REPEATS > 0.5  # a promise that is never given holds too


def test_the_controlled_share_holds_on_average(simulated):
    _, error, parts = simulated
    found = [review.controlled_cut_off(*part, error=0.05) for part in parts]
    shares = [0.0 if one.value is None else error(one.value, of_all=True) for one in found]
    assert 0.03 < np.mean(shares) <= 0.05 + 3 * np.std(shares) / math.sqrt(REPEATS)


def test_an_estimate_is_no_guarantee(simulated):
    _, error, parts = simulated
    found = [review.estimated_cut_off(*part, error=0.15) for part in parts]
    broken = np.mean([one.value is not None and error(one.value) > 0.15 for one in found])
    assert 0.4 < broken < 0.9


def test_a_cut_off_by_hand():
    part = rows([0.9, 0.8, 0.8, 0.7, 0.6], [0, 0, 1, 0, 1])
    found = review.estimated_cut_off(*part, error=0.25)  # 1 of 3 is too many, 1 of 4 is not
    assert (found.value, found.answered.count, found.wrong.count) == (0.7, 4, 1)
    assert found.reviewed == Proportion(1, 5)
    assert review.estimated_cut_off(*part, error=0.4).value == 0  # all are answered
    strict = review.controlled_cut_off(*part, error=0.2)  # (0 + 1) / 6 up to the wrong one at 0.8
    assert (strict.value, strict.answered.count) == (0.9, 1)
    few = review.controlled_cut_off(*part, error=0.1)
    assert (few.value, few.why) == (None, "10 % takes at least 9 rows, got 5")


def test_what_few_rows_cannot_show():
    part = rows(np.linspace(0.5, 1, 50), np.zeros(50))  # 45 of them test
    found = review.guaranteed_cut_off(*part, error=0.048)
    assert found.value is None
    assert found.answered == Proportion(0, 50)
    assert "it takes at least 47 answered rows" in str(found.why)
    assert review.guaranteed_cut_off(*part, error=0.05).value == 0  # 0.95**45 < 0.1
    everything = np.linspace(0.5, 1, 500)
    assert review.guaranteed_cut_off(*part, error=0.048, places=everything).value == 0


def test_what_is_refused():
    part = rows([0.9, 0.8], [0, 0])
    with pytest.raises(ConfigError, match="error is between 0 and 1, got 1"):
        review.guaranteed_cut_off(*part, error=1)
    with pytest.raises(ConfigError, match="level is between 0 and 1, got 0"):
        review.guaranteed_cut_off(*part, error=0.1, level=0)
    with pytest.raises(ConfigError, match="got 0 labels"):
        review.estimated_cut_off(np.zeros((0, 2)), np.zeros(0, np.int64), error=0.1)


def test_costs_by_hand():
    half = Proportion(50, 100)
    prices = Prices(
        currency="EUR",
        labour_hour=36.0,
        review_seconds=10,
        cloud_month=100.0,
        texts_month=10_000,
        payback_months=3,
    )
    cost = review.review_cost(half, prices)
    assert cost is not None
    assert cost.money is not None
    assert cost.hours.value == pytest.approx(1000 * 0.5 * 10 / 3600)
    assert cost.money.value == pytest.approx(50)
    assert half.high is not None
    assert cost.money.high == pytest.approx(100 * half.high)
    # 10,000 texts of 10 seconds are 1,000 EUR a month, half of it stays, 100 for the machine
    back = review.payback(half, prices, spent=800)
    assert back.months is not None
    assert back.months.value == pytest.approx(2)
    assert back.soon is True
    assert review.payback(half, prices, spent=2000).soon is False
    everything = review.payback(Proportion(100, 100), prices, spent=800)
    assert everything.months is not None
    assert everything.months.value == math.inf


def test_costs_that_are_not_known():
    cost = review.review_cost(Proportion(1, 2), Prices())
    assert cost is not None
    assert (cost.money, cost.why) == (None, "prices: labour_hour is not given")
    why = review.payback(Proportion(1, 2), Prices(), spent=None).why
    assert why == "not given: labour_hour, texts_month, label"
    assert review.review_cost(Proportion(0, 0), Prices()) is None
    with pytest.raises(ConfigError, match="no currency is given"):
        Prices(labour_hour=30)
    with pytest.raises(ConfigError, match=r"review_seconds is a number of at least 0, got None"):
        Prices(review_seconds=None)  # type: ignore[arg-type]
