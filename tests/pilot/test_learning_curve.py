"""Learning curves: a power law is found again, crossing points, and where there is none."""

import numpy as np
import pytest

from peftbench.pilot import intervals
from peftbench.pilot.learning_curve import FURTHER, curves
from peftbench.pilot.out_of_fold import OutOfFold

ROWS = 600
SIZES = (160.0, 320.0, 480.0)


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 300)


def tables(**errors):
    """Tables at three sizes in which each candidate has (nearly) an exact share of errors.

    Args:
        errors: by candidate a function of the number of training rows.
    """
    label = np.arange(ROWS) % 2
    made = {}
    for size in SIZES:
        probability = {}
        for number, (name, error) in enumerate(errors.items()):
            order = np.random.default_rng(number).permutation(ROWS)
            wrong = np.isin(np.arange(ROWS), order[: round(error(size) * ROWS)])
            one = np.where(wrong, 1 - label, label).astype(float)
            probability[name] = np.stack([1 - one, one], axis=1)[None]
        constant = np.full((1, ROWS, 2), 0.5)
        made[size] = OutOfFold(label, np.arange(ROWS), constant, probability)
    return made


def test_a_power_law_is_continued():
    (curve,), crossing = curves(tables(lora=lambda n: 3 * n**-0.5), "accuracy", ["lora"])
    assert crossing is None
    assert curve.sizes == list(SIZES)
    assert curve.now.value == pytest.approx(1 - 3 * ROWS**-0.5, abs=2e-3)
    later = 1 - 3 * (ROWS + FURTHER) ** -0.5
    assert curve.later.value == pytest.approx(later, abs=2e-3)
    assert curve.gain.value == pytest.approx(curve.later.value - curve.now.value)
    assert curve.gain.low < curve.gain.value < curve.gain.high
    assert curve.later.low < later < curve.later.high
    assert curve.gain.low > 0  # from 24 % to 14 % of errors on the same 600 rows


def test_curves_cross_where_they_do():
    crossed = tables(lora=lambda n: 0.08 + 0 * n, full=lambda n: 12 * n**-0.8)
    _, crossing = curves(crossed, "accuracy", ["lora", "full"])
    at = (12 / 0.08) ** (1 / 0.8)
    assert (crossing.first, crossing.second) == ("lora", "full")
    assert crossing.at.value == pytest.approx(at, rel=0.05)
    assert crossing.at.low < at < crossing.at.high


def test_alike_curves_have_no_crossing_point_and_the_reason_is_given():
    alike = tables(lora=lambda n: 2 * n**-0.4, full=lambda n: 2.6 * n**-0.4)
    _, crossing = curves(alike, "accuracy", ["lora", "full"])
    assert crossing.at is None
    assert "cross" in crossing.why


def test_curves_that_differ_by_a_few_rows_have_no_crossing_point():
    near = tables(lora=lambda n: 0.25, full=lambda n: 0.25 - 0.01 * (n > 400))
    _, crossing = curves(near, "accuracy", ["full", "lora"])
    assert crossing.at is None
    assert "resamples" in crossing.why


def test_no_errors_at_all_give_figures():
    (curve,), _ = curves(tables(lora=lambda n: 0.0), "accuracy", ["lora"])
    assert curve.later.value == pytest.approx(1 - 1 / (2 * ROWS))
    assert curve.gain.value == pytest.approx(0)
