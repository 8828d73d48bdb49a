"""Intervals of cross-validated scores: against published ones, groups, coverage."""

import numpy as np
import pytest

from peftbench.pilot import intervals


def test_of_independent_rows_it_is_that_of_clopper_and_pearson():
    right = (np.arange(50) < 45).astype(float)[None]
    found = intervals.share(right, np.arange(50))
    assert (found.value, found.rows) == (0.9, 50)
    assert (found.low, found.high) == (
        pytest.approx(0.7819, abs=1e-4),
        pytest.approx(0.9667, abs=1e-4),
    )
    every = intervals.share(np.ones((1, 50)), np.arange(50))
    assert (every.low, every.high) == (pytest.approx(0.025 ** (1 / 50)), 1.0)
    none = intervals.share(np.zeros((1, 50)), np.arange(50))
    assert (none.low, none.high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 50)))


def test_rows_of_a_group_that_are_alike_count_once():
    right = np.repeat((np.arange(50) < 45).astype(float), 4)[None]
    grouped = intervals.share(right, np.repeat(np.arange(50), 4))
    alone = intervals.share(right[:, ::4], np.arange(50))
    assert (grouped.low, grouped.high) == (
        pytest.approx(alone.low, abs=0.01),
        pytest.approx(alone.high, abs=0.01),
    )
    assert intervals.share(right, np.zeros(200)).low == 0.0  # one group says nothing


def test_the_interval_covers_as_often_as_it_says():
    inside = 0
    for number in range(1_000):
        draw = np.random.default_rng(number)
        # rows of a group share how hard they are; on average 80 % are right
        hard = np.repeat(draw.beta(4, 1, 60), 5)
        found = intervals.share((draw.random(300) < hard).astype(float)[None], np.arange(300) // 5)
        inside += found.low <= 0.8 <= found.high
    assert inside >= 940


def test_a_difference_needs_rows_on_which_two_differ():
    ours, theirs = np.ones((1, 100)), np.ones((1, 100))
    theirs[0, :10] = 0
    found = intervals.difference_of_shares(ours, theirs, np.arange(100))
    assert found.value == pytest.approx(0.1)
    error = np.sqrt(0.1 * 0.9 / 99)
    assert found.low == pytest.approx(0.1 - 1.984 * error, abs=1e-4)
    same = intervals.difference_of_shares(ours, ours, np.arange(100))
    assert (same.low, same.high) == (0.0, 0.0)
