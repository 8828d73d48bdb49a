"""What trials tell, in numbers worked out by hand."""

import pytest
from records import runs

from peftbench.analysis import trials
from peftbench.core.tuning import Choice, Trial, subject


def trial(rate, score, seed=0, rung=1, fold=None, collapsed=False):
    return Trial("0" * 12, rate, 1000 + seed, fold, rung, score, collapsed, 1.0)


def choice(made, rate=1e-3):
    (run,) = runs("method=lora")
    return Choice(subject(run), rate, "accuracy", "a test", made, None)


THREE = [trial(1e-4, 0.6), trial(1e-3, 0.9), trial(1e-2, 0.3)]


def test_the_expected_best_of_so_many_rates():
    """Scores 0.3, 0.6, 0.9: of two, 1/9 of 0.3, 3/9 of 0.6, 5/9 of 0.9; of three, 1, 7, 19 / 27."""
    by_hand = [0.6, (0.3 + 3 * 0.6 + 5 * 0.9) / 9, (0.3 + 7 * 0.6 + 19 * 0.9) / 27]
    assert trials.expected_best(choice(THREE)) == pytest.approx(by_hand)
    assert by_hand[1:] == pytest.approx([0.7333333, 0.8])


def test_the_expected_best_is_of_the_first_round_alone():
    later = [trial(1e-3, 0.1, 1, rung=2), trial(1e-3, 0.1, 2, rung=2)]
    assert trials.expected_best(choice([*THREE, *later])) == trials.expected_best(choice(THREE))
    folds = [trial(1e-3, 0.9 + (-1) ** fold * 0.1, fold=fold) for fold in range(4)]
    parted = choice([THREE[0], THREE[2], *folds])
    assert trials.expected_best(parted) == pytest.approx(trials.expected_best(choice(THREE)))


def test_a_diverged_rate_counts_as_the_worst_of_the_others():
    """Of scores 0.9 and 0.3 and one that diverged, taken as 0.3: 0.9, 0.3, 0.3."""
    made = [trial(1e-4, 0.9), trial(1e-3, 0.3), trial(1e-2, None)]
    of_two = (4 * 0.3 + 5 * 0.9) / 9  # the best of two is 0.3 where both are: 2/3 squared
    found = trials.expected_best(choice(made))
    assert found[:2] == pytest.approx([0.5, of_two])
    assert trials.expected_best(choice([trial(1e-4, None)])) == []


def test_sensitivity_is_of_the_rates_within_a_decade():
    made = [
        trial(1e-4, 0.6),
        trial(9e-5, 0.2),
        trial(1e-3, 0.9),
        trial(1e-3, 0.7, 1, rung=2),
        trial(1e-2, 0.5, collapsed=True),
        trial(5e-3, None),
    ]
    assert trials.near_scores(choice(made)) == pytest.approx([0.6, 0.8, 0.5])
    assert trials.failed_rates(choice(made)) == 2
