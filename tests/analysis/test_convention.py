"""Collapsed runs count as the constant prediction, and what can be said of how often and why."""

import numpy as np
import pandas as pd
import pytest
import records
from scipy import stats
from sklearn.metrics import roc_auc_score
from suite_records import found, planned

from peftbench.analysis import convention, failures, proportions
from peftbench.reports import collapses
from peftbench.suites.continual import measures


def test_a_collapsed_run_scores_as_the_constant_prediction_and_the_record_keeps_null():
    (run,) = records.runs("task=cola")
    made = records.record(run, None, collapsed=True, trivial={"matthews": None, "accuracy": 0.7})
    counted = convention.counted_record(made)
    assert made.score is None
    assert (counted.score, counted.trivial["matthews"]) == (0.0, 0.0)
    assert counted.trivial["accuracy"] == 0.7
    assert counted.curve[0]["matthews"] == 0.0
    assert counted.collapsed


def test_the_accuracy_of_another_class_stays_what_it_is_and_the_note_says_so():
    (run,) = records.runs("task=mrpc")
    made = records.record(run, 0.47, collapsed=True, trivial={"accuracy": 0.53, "f1": 0.6})
    assert convention.counted_record(made).score == 0.47
    for note in (convention.NOTE, convention.note(["classification"])):
        assert "count with what that class scores, an undefined score as 0" in note
        assert "majority" not in note


def test_a_precision_that_is_undefined_counts_as_nothing_also_where_the_majority_has_one():
    (run,) = records.runs("task=mrpc", "task.metrics=[precision]")
    made = records.record(run, None, collapsed=True, trivial={"precision": 0.684})
    assert convention.counted_record(made).score == 0.0
    frame = pd.DataFrame(
        {
            "run.task.metrics": ['["precision"]'],
            "collapsed": [True],
            "metric": [None],
            "trivial": [0.684],
        }
    )
    counted = convention.counted_columns(frame, "metric", "trivial", None)
    assert counted[["metric", "trivial"]].to_numpy().tolist() == [[0.0, 0.684]]


def test_notes_of_several_kinds_name_what_each_of_them_has():
    both = convention.baseline_note(["classification", "regression"])
    assert both.endswith(
        "the majority class of the training labels, or their mean in a regression."
    )
    written = convention.baseline_note(["classification", "generation"])
    assert written.endswith("; in generation the training text that is most like the others.")
    assert "text" not in convention.note(["classification", "regression"])
    assert convention.note(["classification", "generation"]).endswith("the score of that text.")


def test_labels_of_one_class_stay_undefined():
    (run,) = records.runs("task=cola")
    made = records.record(run, None, trivial=dict.fromkeys(run.task.metrics))
    counted = convention.counted_record(made)
    assert (counted.score, counted.trivial["matthews"]) == (None, None)
    assert convention.baseline([counted], "matthews") is None


def test_the_baseline_is_one_number_the_mean_over_seeds():
    levels = {0: 0.492, 1: 0.508, 2: 0.492}
    made = [
        records.record(run, trivial={"accuracy": levels[run.seed]})
        for run in records.runs("method=lora,bitfit", "seed=0,1,2")
    ]
    assert convention.baseline(made, "accuracy") == pytest.approx(sum(levels.values()) / 3)


def test_what_follows_from_undefined_scores_of_suites_is_computed_again():
    (e,) = planned("suite=noise", "method=lora", "task=cola", "size=32")
    kinds = {"typos": {"scores": [0.3, None], "flips": [0.1, 0.2], "drop": None, "area": None}}
    told = {"metric": "matthews", "intensities": [0.5, 1.0], "clean": 0.4, "kinds": kinds}
    counted = convention.counted_evaluation(found(e, told | {"area": None, "worst": None}))
    noise = counted.findings
    assert noise["kinds"]["typos"]["drop"] == 0.4
    assert noise["area"] == pytest.approx((0.35 + 0.15) / 2)
    assert (noise["worst"], noise["worst_kind"]) == (0.0, "typos")
    (e,) = planned("suite=continual", "suite.chunks=[8,8]", "method=lora", "size=32")
    matrix = [[0.5], [None, 0.4]]
    told = {"names": [8, 8], "scores": matrix, "validation": [0.5, None], "joint": 0.6}
    counted = convention.counted_evaluation(found(e, told | measures(matrix)))
    assert counted.findings["validation"] == [0.5, 0.0]
    assert counted.findings["average"] == pytest.approx(0.2)
    assert counted.findings["forgetting"] == pytest.approx(0.5)


def test_a_constant_that_was_not_scored_is_no_score_of_0():
    """Older findings of shifts lack the F1 of a constant, which is far above 0."""
    (e,) = planned("suite=shift", "method=lora", "task.metrics=[f1]", "size=32")
    target = {"scores": {"f1": None}, "untrained": {"f1": 0.3}, "trivial": None, "home": 0.5}
    target |= {"metric": "f1", "gap": None}
    (counted,) = (
        convention.counted_evaluation(found(e, {"targets": {"away": target}}))
        .findings["targets"]
        .values()
    )
    assert (counted["trivial"], counted["scores"]["f1"], counted["gap"]) == (None, 0.0, 0.5)


@pytest.mark.parametrize(("failed", "seeds", "high"), [(0, 3, 71), (0, 5, 52), (0, 10, 31)])
def test_bounds_of_failures_are_clopper_and_pearsons(failed, seeds, high):
    """No failure in n: 1 - 0.025^(1/n)."""
    assert failures.bound(failed, seeds) == f"{failed} of {seeds}: at most {high} %"
    low, found_high = proportions.clopper_pearson(2, seeds)
    assert low == pytest.approx(stats.beta.ppf(0.025, 2, seeds - 1))
    assert found_high == pytest.approx(stats.beta.ppf(0.975, 3, seeds - 2))


def collapsed_outputs(signal: float, spread: float, examples: int = 800, classes: int = 2):
    """Outputs that all predict class 1, with some signal in their order."""
    generator = np.random.default_rng(0)
    label = generator.integers(0, classes, examples)
    scores = spread * (generator.normal(size=(examples, classes)) + signal * np.eye(classes)[label])
    scores[:, 1] += 10.0
    return scores, label


def test_a_dead_run_is_told_from_one_below_the_threshold():
    scores, label = collapsed_outputs(1.0, 0.3)
    found = failures.collapse(scores, label)
    assert found.kind == "below the threshold"
    assert found.auc == pytest.approx(roc_auc_score(label, scores[:, 1] - scores[:, 0]))
    assert failures.collapse(*collapsed_outputs(0.0, 0.3)).kind == "no signal"
    assert failures.collapse(*collapsed_outputs(1.0, 0.001)).kind == "dead"
    assert failures.collapse(*collapsed_outputs(1.0, 0.3, classes=3)).kind == "below the threshold"
    value = np.full((50, 1), 2.5)
    assert failures.collapse(value, np.linspace(0, 5, 50)).kind == "dead"


def test_the_table_of_collapsed_runs():
    made = [
        records.record(run, collapsed=run.method.name == "lora" and run.seed < 2)
        for run in records.runs("method=lora,bitfit", "seed=0,1,2")
    ]
    scores, label = collapsed_outputs(1.0, 0.3)
    load = {"scores": scores, "label": label, "item": np.arange(len(label))}
    table = collapses.collapses_table(made, made, lambda record: load)
    (row,) = table.rows
    assert row[:6] == ["synthetic_paraphrase", "lora", "2 of 3: 9 to 99 %", "", "", "2"]
    (row,) = collapses.collapses_table(made, [], lambda record: load).rows
    assert row[3:] == ["–"] * 5
