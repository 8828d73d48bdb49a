"""Intervals of cross-validated scores: against published ones, groups, coverage."""

import numpy as np
import pytest
from scipy.stats import beta

from peftbench.pilot import intervals
from peftbench.pilot.out_of_fold import OutOfFold


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


def test_other_metrics_are_never_certain():
    """Accuracy as one of them: the exact interval with a row more of each of the two classes."""
    label = np.arange(60) % 2
    wrong = np.isin(np.arange(60), (0, 1))
    names = {"perfect": label, "two wrong": np.where(wrong, 1 - label, label)}
    probability = {name: np.eye(2)[answer][None] for name, answer in names.items()}
    table = OutOfFold(label, np.arange(60), np.full((1, 60, 2), 0.5), probability)
    scores, gains = intervals.scores(table, "accuracy", [*names])
    assert (scores["perfect"].value, scores["perfect"].rows) == (1.0, 60)
    assert scores["perfect"].low == pytest.approx(beta.ppf(0.025, 60, 2), abs=0.005)
    assert scores["perfect"].high == pytest.approx(1)
    some = scores["two wrong"]
    assert some.value == pytest.approx(58 / 60)
    assert some.low == pytest.approx(beta.ppf(0.025, 58, 4), abs=0.005)
    assert some.high == pytest.approx(beta.ppf(0.975, 60, 2), abs=0.005)
    gain = gains["two wrong"]
    assert gain.value == pytest.approx(58 / 60 - 0.5)
    assert gain.low == pytest.approx(0.295, abs=0.02)
    assert gain.high == pytest.approx(0.599, abs=0.02)


def test_resamples_of_other_metrics_draw_groups():
    label = np.repeat(np.arange(40) % 2, 5)
    answer = np.where(np.arange(200) < 40, 1 - label, label)  # 8 groups of 40 are wrong
    probability = {"lora": np.eye(2)[answer][None]}
    constant = np.full((1, 200, 2), 0.5)
    grouped = OutOfFold(label, np.arange(200) // 5, constant, probability)
    alone = OutOfFold(label, np.arange(200), constant, probability)
    wide, narrow = (
        intervals.scores(one, "macro_f1", ["lora"])[0]["lora"] for one in (grouped, alone)
    )
    assert wide.high - wide.low > 1.8 * (narrow.high - narrow.low)


def test_a_difference_needs_rows_on_which_two_differ():
    ours, theirs = np.ones((1, 100)), np.ones((1, 100))
    theirs[0, :10] = 0
    found = intervals.difference_of_shares(ours, theirs, np.arange(100))
    assert found.value == pytest.approx(0.1)
    error = np.sqrt(0.1 * 0.9 / 99)
    assert found.low == pytest.approx(0.1 - 1.984 * error, abs=1e-4)
    same = intervals.difference_of_shares(ours, ours, np.arange(100))
    assert (same.low, same.high) == (0.0, 0.0)
