"""Which rates are tried, in which rounds, on which parts of the training examples."""

import math
from dataclasses import replace

import pytest
from records import runs

from peftbench.core.configs import CheckpointSelection
from peftbench.core.errors import ConfigError
from peftbench.core.tuning import (
    TPE,
    Question,
    RateChoice,
    Rung,
    Search,
    SearchSpace,
    subject,
)

SPACE = SearchSpace(1e-4, 1e-2, "a test")


def test_one_rate_of_each_part_of_the_range():
    rates = SPACE.rates(6)
    places = [math.log(rate / SPACE.low) / math.log(SPACE.high / SPACE.low) * 6 for rate in rates]
    assert [math.floor(place) for place in places] == [0, 1, 2, 3, 4, 5]
    assert rates == SPACE.rates(6)
    assert all(rate == float(f"{rate:.2g}") for rate in rates)


def test_a_range_too_narrow_for_its_trials_is_refused_by_its_name():
    narrow = SearchSpace(1e-3, 1.1e-3, "a test")
    assert narrow.rates(1) == [1.1e-3]
    with pytest.raises(ConfigError, match=r"\[0\.001, 0\.0011\] is too narrow for 6 rates of 2"):
        narrow.rates(6)


@pytest.mark.parametrize("ends", [(1e-3, 1e-4), (0.0, 1.0), (1e-3, 1e-3), (1e-3, math.inf)])
def test_what_is_no_range_is_refused(ends):
    with pytest.raises(ConfigError, match="is no range"):
        SearchSpace(*ends, "a test")


def test_rounds():
    assert Search().rungs == [Rung(6, 1), Rung(2, 3)]
    assert Search(trials=4, seeds=1).rungs == [Rung(4, 1)]
    with pytest.raises(ConfigError, match="5 finalists of 4 trials"):
        Search(trials=4, finalists=5)


def key_of(rates=(), space=None, **search):
    (run,) = runs("method=lora", "size=400")
    asked = Question(subject(run), list(rates), "", 400, space)
    return RateChoice(asked, Search(**search)).key


def test_searches_that_differ_have_keys_that_differ():
    """All of the first four make ten trials of six rates."""
    six = SPACE.rates(6)
    rounds = [(2, 3), (4, 2), (1, 5), (3, 2), (6, 1)]
    keys = [key_of(six, finalists=finalists, seeds=seeds) for finalists, seeds in rounds]
    keys += [key_of(space=space, sampler=TPE) for space in (SPACE, SearchSpace(1e-5, 1e-2, ""))]
    keys += [key_of(SPACE.rates(5)), key_of(SPACE.rates(7))]
    assert len(set(keys)) == len(keys)
    assert key_of(six, finalists=3, seeds=1) == key_of(six, seeds=1)  # there is no second round
    assert key_of([1e-3]) == key_of([1e-3], finalists=1)  # one rate is all finalists
    assert key_of(six) == key_of(six, trials=12)  # the rates that are named are all tried


def test_all_rates_that_are_named_are_of_the_first_round():
    (run,) = runs("method=lora", "size=400")
    asked = Question(subject(run), SPACE.rates(8), "", 400)
    assert asked.planned(Search()) == [8, 4]


def test_a_cell_is_one_for_all_its_rates_seeds_and_points():
    several = runs(
        "method=lora", "seed=0,1", "train.lr=1e-3,2e-3", "train.num_evals=1,2", "seed.order=7"
    )
    assert len({subject(run).key for run in several}) == 1
    assert len({subject(run).key for run in runs("method=lora", "size=16,32")}) == 2


def test_trials_hold_a_part_out_and_are_no_runs_that_are_reported():
    (run,) = runs("method=lora", "size=400")
    first, second = Question(subject(run), [1e-3], "", 400).trials(1e-3, 2)
    assert [first.seed, second.seed] == [1000, 1001]
    assert first.train.lr == 1e-3
    assert first.checkpoint_selection == CheckpointSelection(fraction=0.25, patience=1)
    assert first.key != replace(run, seed=1000).key


def test_of_few_examples_each_part_is_held_out_in_turn():
    (run,) = runs("method=lora", "size=100")
    trials = Question(subject(run), [1e-3], "", 100).trials(1e-3, 1)
    assert [one.checkpoint_selection.fold for one in trials] == [0, 1, 2, 3]
    assert len({one.key for one in trials}) == 4


@pytest.mark.parametrize(
    ("size", "revision"), [(100, 1), (101, 1), (98, 1), (7, 2), (75, 2), (163, 2), (166, 2)]
)
def test_only_a_last_fold_that_is_shorter_has_a_new_key(size, revision):
    (run,) = runs("method=lora", f"size={size}")
    trials = Question(subject(run), [1e-3], "", size).trials(1e-3, 1)
    assert [one.loss_revision for one in trials] == [1, 1, 1, revision]


@pytest.mark.parametrize(("fraction", "fold"), [(0.25, 4), (0.3, 3), (0.0, 0), (0.25, -1)])
def test_a_fold_that_is_not_there_is_refused(fraction, fold):
    with pytest.raises(ConfigError, match="folds, from 0"):
        CheckpointSelection(fraction=fraction, patience=1, fold=fold)
