"""Variance components against textbook formulas and simulated scores with known components."""

import itertools

import numpy as np
import pytest
from scipy import stats

from peftbench.analysis.variance_components import REST, FactorDesign
from peftbench.config.sweep import plan

ROLES = ("subset", "order", "head", "method", "dropout")


@pytest.fixture(scope="module")
def array() -> dict[str, list[int]]:
    """Levels of the packaged orthogonal array."""
    runs = [run for run in plan("sweep=variance_minilm").runs if run.task.name == "mrpc"]
    one = [run for run in runs if run.method.name == "lora"]
    return {role: [run.seed_of(role) for run in one] for role in ROLES}


def simulated(levels, spreads, rest, repeats, seed=0):
    """(repeats, runs) scores with a normal effect of each role's level."""
    generator = np.random.default_rng(seed)
    runs = len(next(iter(levels.values())))
    scores = generator.normal(0, rest, (repeats, runs)) + 0.8
    for role, spread in spreads.items():
        effects = generator.normal(0, spread, (repeats, max(levels[role]) + 1))
        scores += effects[:, levels[role]]
    return scores


def test_the_packaged_sweep_is_an_orthogonal_array():
    runs = plan("sweep=variance_minilm").runs
    cells = {}
    for run in runs:
        cells.setdefault((run.task.name, run.method.name), []).append(run)
    assert {cell: len(found) for cell, found in cells.items()} == {
        (task, method): 25 for task in ("mrpc", "stsb") for method in ("full", "lora")
    }
    for found in cells.values():
        for one, two in itertools.combinations(ROLES, 2):
            pairs = {(run.seed_of(one), run.seed_of(two)) for run in found}
            assert pairs == set(itertools.product(range(5), repeat=2))
        assert {(run.seed_of("sampling"), run.seed_of("augment")) for run in found} == {(0, 0)}
        assert sum(run.role_seeds is None for run in found) == 1


def test_two_crossed_roles_are_the_analysis_of_variance():
    levels = {"order": [i // 4 for i in range(12)], "head": [i % 4 for i in range(12)]}
    scores = simulated(levels, {"order": 2.0, "head": 0.5}, 1.0, 1)[0]
    order, head, rest = FactorDesign(levels).estimate(scores)
    table = scores.reshape(3, 4)
    mean = table.mean()
    by_order, by_head = table.mean(axis=1), table.mean(axis=0)
    square = 4 * np.sum((by_order - mean) ** 2) / 2
    residual = table - by_order[:, None] - by_head[None, :] + mean
    error = np.sum(residual**2) / 6
    assert (order.freedom, head.freedom, rest.freedom) == (2, 3, 6)
    assert order.variance == pytest.approx((square - error) / 4)
    assert head.variance == pytest.approx((3 * np.var(by_head, ddof=1) - error) / 3)
    assert rest.variance == pytest.approx(error)
    assert order.p == pytest.approx(stats.f.sf(square / error, 2, 6))
    assert rest.low == pytest.approx(6 * error / stats.chi2.ppf(0.975, 6))


def test_components_are_unbiased_and_intervals_cover(array):
    spreads = {"subset": 2.0, "order": 1.0, "head": 0.0, "method": 0.5, "dropout": 0.25}
    design, repeats = FactorDesign(array), 800
    found = [design.estimate(one) for one in simulated(array, spreads, 0.8, repeats)]
    truth = [*(spread**2 for spread in spreads.values()), 0.8**2]
    assert [one.name for one in found[0]] == [*ROLES, REST]
    for place, true in enumerate(truth):
        values = np.array([one[place].variance for one in found])
        error = values.std() / np.sqrt(repeats)
        assert abs(values.mean() - true) < 3.5 * error
        covered = np.mean([one[place].low <= true <= one[place].high for one in found])
        assert covered > 0.93  # 0.95 less two and a half Monte-Carlo errors
    rejected = np.mean([one[2].p < 0.05 for one in found])  # head brings nothing
    assert rejected == pytest.approx(0.05, abs=0.025)


def test_missing_runs_leave_them_unbiased(array):
    kept = np.random.default_rng(7).permutation(25)[:22]
    levels = {role: [found[i] for i in kept] for role, found in array.items() if role != "head"}
    spreads = {"subset": 2.0, "order": 1.0, "method": 0.5, "dropout": 0.0}
    design = FactorDesign(levels)
    found = [design.estimate(one) for one in simulated(levels, spreads, 0.8, 800)]
    for place, true in enumerate([4.0, 1.0, 0.25, 0.0, 0.64]):
        values = np.array([one[place].variance for one in found])
        assert abs(values.mean() - true) < 3.5 * values.std() / np.sqrt(len(values))


def test_roles_that_move_together_are_one_and_what_is_not_told_apart_is_said():
    levels = {"order": [0, 0, 1, 1, 2, 2], "head": [5, 5, 3, 3, 9, 9], "method": [0] * 6}
    found = FactorDesign(levels).estimate(np.array([1.0, 2, 4, 5, 9, 8]))
    assert [one.name for one in found] == ["order and head", REST]
    assert found[0].variance == pytest.approx((stats.f_oneway([1, 2], [4, 5], [9, 8])[0] - 1) / 4)
    nested = {"order": [0, 0, 1, 1, 2, 2], "head": [0, 0, 0, 0, 1, 1]}
    order, head, rest = FactorDesign(nested).estimate(np.array([1.0, 2, 4, 5, 9, 8]))
    assert (order.freedom, head.variance, rest.freedom) == (1, None, 3)
    with pytest.raises(ValueError, match="no run is left"):
        FactorDesign({"order": [0, 1, 2]}).estimate(np.array([1.0, 2, 3]))
