"""What a pilot answers: tables without merit, easy ones, and each part of a criterion."""

import numpy as np
import pytest

from peftbench.pilot import intervals, page
from peftbench.pilot.criterion import PilotCriterion
from peftbench.pilot.decision import GO, MORE, NO_GO, decide, unchecked_error
from peftbench.pilot.out_of_fold import OutOfFold


def criterion(least, **more):
    return PilotCriterion(**{"data": "0" * 64, "metric": "accuracy", "least": least} | more)


def table(rights, draw, group=None, positive=0.5, seconds=None):
    """Binary predictions that are right where they are said to be.

    Args:
        rights: by candidate (rows,) or (repeats, rows) whether the class is the label.
    """
    rights = {name: np.atleast_2d(right) for name, right in rights.items()}
    repeats, rows = next(iter(rights.values())).shape
    label = (draw.random(rows) < positive).astype(np.int64)
    probability = {}
    for name, right in rights.items():
        predicted = np.where(right, label, 1 - label)
        sure = 0.5 + 0.5 * draw.random(right.shape)
        one = np.where(predicted == 1, sure, 1 - sure)
        probability[name] = np.stack([1 - one, one], axis=2)
    shares = [1 - label.mean(), label.mean()]
    constant = np.broadcast_to(shares, (repeats, rows, 2)).copy()
    group = np.arange(rows) if group is None else group
    return OutOfFold(label, group, constant, probability, seconds or {})


NAMES = ("full", "bitfit", "adapter", "lora", "tf-idf", "frozen")


def null_tables(count, rows, score, seed, alike=0.5):
    """Tables of six candidates that are all as good as the criterion, or as a coin.

    Args:
        alike: share of the rows on which all candidates are right or wrong together.
    """
    for number in range(count):
        draw = np.random.default_rng([seed, number])
        shared, same = draw.random(rows) < score, draw.random(rows) < alike
        rights = {name: np.where(same, shared, draw.random(rows) < score) for name in NAMES}
        yield table(rights, draw)


@pytest.mark.parametrize(("score", "seed"), [(0.5, 1), (0.8, 2), (0.95, 3)])
def test_at_most_the_nominal_share_of_null_tables_says_go(score, seed):
    count = 2_000 // 3 + 1  # 2,001 in all
    went = sum(
        decide(one, criterion(score)).answer == GO for one in null_tables(count, 300, score, seed)
    )
    assert went <= intervals.LEVEL * count


def test_rows_that_come_in_groups_count_as_groups():
    said, naive, count = 0, 0, 300
    for number in range(count):
        draw = np.random.default_rng([7, number])
        right = np.repeat(draw.random(75) < 0.8, 4)
        grouped = table({"lora": right}, draw, np.repeat(np.arange(75), 4))
        said += decide(grouped, criterion(0.8)).answer == GO
        alone = table({"lora": right}, draw)
        naive += decide(alone, criterion(0.8)).answer == GO
    assert said <= intervals.LEVEL * count
    assert naive > 0.1 * count  # so the groups are what keeps the share


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "right", "score"),
    [
        ("macro_f1", 0.8, 0.8),
        ("matthews", 0.8, 0.6),
        ("macro_f1", 0.97, 0.97),  # of few errors a plain bootstrap says go in 10 % of the tables
    ],
)
def test_null_tables_of_other_metrics(metric, right, score, monkeypatch):
    """Balanced classes, for which the score follows from the share of right answers."""
    monkeypatch.setattr(intervals, "RESAMPLES", 800)
    count = 100
    went = sum(
        decide(one, criterion(score, metric=metric)).answer == GO
        for one in null_tables(count, 200, right, 4)
    )
    assert went <= intervals.LEVEL * count


def rights(draw, **scores):
    return {name: draw.random(400) < score for name, score in scores.items()}


def test_an_easy_table_says_go_by_the_best_candidate():
    draw = np.random.default_rng(0)
    made = decide(table(rights(draw, lora=0.97, full=0.93, frozen=0.7), draw), criterion(0.85))
    assert (made.answer, made.method, made.sufficient) == (GO, "lora", ["lora", "full"])
    assert made.verdict_on("frozen").excluded == ["score"]
    assert "0.85" in made.reasons[0]


def test_no_evidence_against_the_constant_prediction_is_no_no_go():
    """90 % are right, as always answering with class 0 is: with more rows a candidate may pass."""
    draw = np.random.default_rng(0)
    one = table(rights(draw, lora=0.9, full=0.9), draw, positive=0.1)
    made = decide(one, criterion(0.8), {"lora": 0.97})
    assert (made.answer, made.verdicts[0].excluded) == (MORE, [])
    assert "most frequent class" in made.reasons[0]
    assert decide(one, criterion(0.95), {"lora": 0.97}).answer == MORE
    assert decide(one, criterion(0.95), {"lora": 0.94}).answer == NO_GO  # the score rules it out


def test_more_right_answers_than_the_constant_prediction_are_never_no_go_by_it():
    """18 rows won and 6 lost of 300, 30 of them positive: p = 0.02, not with six candidates."""
    label = (np.arange(300) < 30).astype(np.int64)
    predicted = ((np.arange(300) < 18) | (np.arange(300) >= 294)).astype(np.int64)
    one = np.where(np.arange(2) == predicted[:, None], 0.9, 0.1)[None]
    constant = np.tile([0.9, 0.1], (1, 300, 1))
    found = OutOfFold(label, np.arange(300), constant, dict.fromkeys(NAMES, one))
    made = decide(found, criterion(0.92), {"full": 0.97})
    assert (made.answer, made.verdicts[0].gain.low < 0) == (MORE, True)


def test_what_is_below_the_constant_prediction_is_no_go_unless_labels_are_projected_to_help():
    draw = np.random.default_rng(0)
    one = table(rights(draw, lora=0.8, full=0.8), draw, positive=0.1)
    made = decide(one, criterion(0.75), {"lora": 0.85})
    assert made.answer == NO_GO
    assert made.reasons[0].endswith("criterion: better than the constant prediction")
    assert decide(one, criterion(0.75), {"lora": 0.95}).answer == MORE
    assert decide(one, criterion(0.75)).answer == MORE


def test_between_the_ends_more_data_are_needed_and_a_projection_can_end_that():
    draw = np.random.default_rng(0)
    near = table(rights(draw, lora=0.84), draw)
    assert decide(near, criterion(0.85)).answer == MORE
    far = table(rights(draw, lora=0.7, full=0.65), draw)
    assert decide(far, criterion(0.85)).answer == MORE  # nothing is known of further labels
    assert decide(far, criterion(0.85), {"lora": 0.9, "full": 0.7}).answer == MORE
    made = decide(far, criterion(0.85), {"lora": 0.8, "full": 0.7})
    assert made.answer == NO_GO
    assert len(made.reasons) == 2


def test_a_baseline_ahead_of_all_curves_gains_as_much_as_the_best_of_them():
    draw = np.random.default_rng(0)
    one = table(rights(draw, frozen=0.76, lora=0.62), draw)
    frozen = decide(one, criterion(0.9)).verdict_on("frozen")
    assert 0.76 < frozen.score.high < 0.82
    asked = criterion(round(frozen.score.high + 0.01, 4))
    assert decide(one, asked, {"lora": 0.72}, gained=0.02).answer == MORE
    assert decide(one, asked, {"lora": 0.72}, gained=0.005).answer == NO_GO
    assert decide(one, asked, {"lora": 0.72}, gained=-0.02).answer == NO_GO


def test_a_training_that_costs_too_much_is_not_taken():
    draw = np.random.default_rng(0)
    seconds = {"full": [90.0, 95.0, 100.0, 105.0, 110.0], "lora": [30.0, 35.0, 40.0, 45.0, 50.0]}
    easy = table(rights(draw, full=0.99, lora=0.97), draw, seconds=seconds)
    made = decide(easy, criterion(0.85, largest_seconds=60.0))
    assert (made.answer, made.method) == (GO, "lora")
    assert made.verdict_on("full").missed == ["seconds of training"]
    assert page.met_text([], []) == "yes"
    assert page.met_text(["score", "seconds of training"], ["score"]) == (
        "no: score; undecided: seconds of training"
    )
    assert made.verdict_on("full").seconds == 100.0
    assert decide(easy, criterion(0.85, largest_seconds=10.0)).answer == NO_GO


def test_seconds_are_met_and_excluded_by_the_ends_of_their_interval():
    draw = np.random.default_rng(0)
    seconds = {"full": [90.0, 95.0, 100.0, 105.0, 110.0]}  # 100 ± 2.776 * 7.906 / 5 ** 0.5
    easy = table(rights(draw, full=0.99), draw, seconds=seconds)
    answers = {
        most: decide(easy, criterion(0.85, largest_seconds=most)).answer
        for most in (90.0, 90.3, 100.5, 109.7, 110.0)
    }
    assert answers == {90.0: NO_GO, 90.3: MORE, 100.5: MORE, 109.7: MORE, 110.0: GO}


def test_people_may_check_so_many_texts_and_the_others_may_be_wrong_so_often():
    draw = np.random.default_rng(0)
    right = np.arange(400) >= 40
    one = table({"lora": right}, draw)
    sure = np.linspace(0.51, 1, 400)[:, None]  # the surest are right
    predicted = one.probability["lora"][0].argmax(axis=1)
    both = np.where(np.arange(2) == predicted[:, None], sure, 1 - sure)
    one = OutOfFold(one.label, one.group, one.constant, {"lora": both[None]})
    assert unchecked_error(one, "lora", 0.0).value == pytest.approx(0.1)
    half = unchecked_error(one, "lora", 0.05)
    assert (half.value, half.rows) == (pytest.approx(20 / 380), 380)
    none = unchecked_error(one, "lora", 0.1)
    assert (none.value, none.rows) == (0.0, 360)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 360), rel=1e-6)  # Clopper and Pearson
    asked = {"largest_review": 0.2, "review_error": 0.02}
    assert decide(one, criterion(0.8, **asked)).answer == GO
    asked = {"largest_review": 0.0, "review_error": 0.02}
    assert decide(one, criterion(0.8, **asked)).answer == NO_GO
