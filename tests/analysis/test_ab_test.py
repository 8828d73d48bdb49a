"""The A/B plan against a published sample size, and its error and power by simulation."""

import numpy as np
import pytest

from peftbench.analysis import ab_test
from peftbench.analysis.ab_test import BETTER, CONTINUE, NO_DIFFERENCE, WORSE, plan_ab_test
from peftbench.analysis.proportions import Proportion
from peftbench.core.errors import ConfigError

TESTS, LOOKS = 600, 60


def decisions(plan, new: float, old: float) -> list[str]:
    """Where tests end that are looked at again and again."""
    generator = np.random.default_rng(0)
    at = np.unique(np.geomspace(ab_test.FIRST_LOOK, plan.most, LOOKS).astype(int))
    found = []
    for _ in range(TESTS):
        right = [np.cumsum(generator.random(plan.most) < share) for share in (new, old)]
        for n in at:
            ours, theirs = (Proportion(int(one[n - 1]), int(n)) for one in right)
            said = plan.decide(ours, theirs)
            if said != CONTINUE:
                break
        found.append(said)
    return found


@pytest.mark.parametrize("share", [0.5, 0.9, 0.97])
def test_alike_models_are_told_apart_no_more_often_than_the_level(share):
    plan = plan_ab_test(share, 0.03)
    found = decisions(plan, share, share)
    assert set(found) <= {BETTER, WORSE, NO_DIFFERENCE}
    told = sum(one != NO_DIFFERENCE for one in found) / TESTS
    assert 0 < told <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / TESTS)


def test_the_effect_is_found_with_the_power_and_with_its_sign():
    plan = plan_ab_test(0.85, 0.05)
    found = decisions(plan, 0.90, 0.85)
    assert found.count(BETTER) / TESTS >= 0.8
    assert found.count(WORSE) == 0
    back = decisions(plan, 0.85, 0.90)
    assert back.count(WORSE) / TESTS >= 0.8


def test_the_plan_by_hand():
    plan = plan_ab_test(0.5, 0.1, texts_per_day=100)
    assert plan.single_look == 388  # Fleiss 1981, without correction of continuity
    assert plan.single_look < plan.most < 3 * plan.single_look
    assert plan.days == -(-2 * plan.most // 100)
    assert plan_ab_test(0.5, 0.1).days is None
    reaches = [reach for _, reach in plan.looks()]
    assert reaches == sorted(reaches, reverse=True)
    assert plan.looks()[-1][0] == plan.most
    few = Proportion(50, 50)
    assert plan.decide(few, Proportion(0, 50)) == CONTINUE
    assert plan.decide(Proportion(100, 100), Proportion(0, 100)) == BETTER
    with pytest.raises(ValueError, match="both arms need texts"):
        plan.interval(few, Proportion(0, 0))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((1.0, 0.1), "baseline is between 0 and 1, got 1.0"),
        ((0.9, 0.2), "effect is above 0 and at most 0.1"),
        ((0.9, 0.0), "effect is above 0"),
        ((0.9, 0.05, 0.05, 0.8, 0), "texts_per_day is above 0"),
    ],
)
def test_what_is_refused(given, told):
    with pytest.raises(ConfigError, match=told):
        plan_ab_test(*given)
