"""Limits of a roll-out by hand, and how often they are right by simulation."""

import math

import numpy as np
import pytest

from peftbench.analysis.rollout import plan_rollout
from peftbench.core.errors import ConfigError

MODELS, CHECKED = 2_000, 3_000


def ends(limits, error: float) -> dict[str, float]:
    """Shares of models that end in each way, looked at after every checked answer."""
    wrong = np.cumsum(np.random.default_rng(0).random((MODELS, CHECKED)) < error, axis=1)
    n = np.arange(1, CHECKED + 1)
    back = wrong >= [limits.roll_back_from(int(one)) for one in n]
    most = [limits.proceed_up_to(int(one)) for one in n]
    onward = wrong <= [-1 if one is None else one for one in most]
    first = [np.where(one.any(axis=1), one.argmax(axis=1), CHECKED) for one in (back, onward)]
    return {
        "roll back": float(np.mean(first[0] < first[1])),
        "proceed": float(np.mean(first[1] < first[0])),
    }


def test_errors_of_both_kinds_stay_below_their_levels():
    limits = plan_rollout(0.05).limits
    assert (limits.too_high, limits.level, limits.miss) == (0.1, 0.05 / 5, 0.05)
    good, bad = ends(limits, 0.05), ends(limits, 0.1)
    assert 0.001 < good["roll back"] <= limits.level
    assert good["proceed"] > 0.98
    assert 0.01 < bad["proceed"] <= limits.miss + 3 * math.sqrt(limits.miss / MODELS)
    assert bad["roll back"] > 0.93


def test_limits_by_hand():
    limits = plan_rollout(0.05).limits
    up, down = math.log(2), math.log(0.9 / 0.95)
    assert limits.least == math.ceil(math.log(0.05) / down) == 56
    assert limits.proceed_up_to(55) is None
    assert limits.proceed_up_to(56) == 0
    back = limits.roll_back_from(200)
    assert back * up + (200 - back) * down >= math.log(100) > (back - 1) * up + (201 - back) * down
    assert limits.decide(back, 200) == "roll back"
    assert limits.decide(back - 1, 200) == "continue"
    assert limits.decide(0, 60) == "proceed"
    assert limits.least < limits.expected < 500


def test_stages_last_as_long_as_the_texts_take():
    plan = plan_rollout(0.05, texts_per_day=100, answered=0.5)
    needed = plan.limits.expected
    assert [stage.days for stage in plan.stages] == [
        max(7, math.ceil(needed / 50)),  # in the shadow all texts count
        math.ceil(needed / 2.5),
        math.ceil(needed / 10),
        max(7, math.ceil(needed / 25)),
        14,
    ]
    assert plan.days == sum(stage.days or 0 for stage in plan.stages)
    assert plan_rollout(0.05).days is None
    assert plan_rollout(0.7).limits.too_high == pytest.approx(0.85)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"error": 0}, "error is between 0 and 1, got 0"),
        ({"error": 0.1, "too_high": 0.05}, "too_high is between error=0.1 and 1, got 0.05"),
        ({"error": 0.1, "answered": 0}, "answered is above 0"),
        ({"error": 0.1, "texts_per_day": -1}, "texts_per_day is above 0"),
        ({"error": 0.1, "stages": (("a", 0.5, 7), ("b", 0.2, 7))}, r"got \[0.5, 0.2\]"),
    ],
)
def test_what_is_refused(given, told):
    with pytest.raises(ConfigError, match=told):
        plan_rollout(**given)
