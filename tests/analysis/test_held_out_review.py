"""Thresholds for review that are chosen on held-out examples and measured on others."""

from dataclasses import replace

import numpy as np
import pytest
import records

from peftbench.analysis.held_out_review import with_review
from peftbench.config.sweep import plan
from peftbench.core.errors import RecordError
from peftbench.core.evaluation import Evaluated


def answers(confident: int, wrong: int, unsure: int) -> tuple[np.ndarray, np.ndarray]:
    """Log odds and labels: of the confident ones so many are wrong, of the others every second."""
    label = np.arange(confident + unsure) % 2
    right = np.ones(len(label), bool)
    right[:wrong] = False
    right[confident::2] = False
    sure = np.where(np.arange(len(label)) < confident, 4.0, 0.5)
    chosen = np.where(right, label, 1 - label)
    return sure[:, None] * np.eye(2)[chosen], label


@pytest.fixture
def evaluated() -> Evaluated:
    (evaluation,) = plan(*records.tiny("method=lora", "seed=0", "suite=calibration")).evaluations
    findings = {"before": {"ece": 0.1}, "temperature": None}
    return Evaluated(evaluation, findings, {}, {}, records.ENVIRONMENT, None)


def review(evaluated, held, reported):
    record = records.record(evaluated.evaluation.run)
    scores, label = held
    (found,) = with_review(
        [evaluated],
        [record],
        lambda one: {"scores": reported[0], "label": reported[1]},
        lambda one: {"scores/held": scores, "label/held": label},
    )
    return found.findings.get("held_out_review")


def test_the_threshold_is_of_the_held_out_examples_and_the_error_of_the_others(evaluated):
    found = review(evaluated, answers(300, 6, 200), answers(80, 4, 20))
    assert found["0.1"]["reviewed"] == pytest.approx(0.2)
    assert found["0.1"]["error"] == pytest.approx(4 / 80)
    assert found["0.1"]["cut_off"] == pytest.approx(1 / (1 + np.exp(-4.0)))


@pytest.mark.parametrize(("size", "reviewed"), [("full", False), ("3000", False), ("300", True)])
def test_rows_that_chose_the_checkpoint_promise_nothing(size, reviewed):
    """Of a run on all examples the selection part is all that is held out."""
    words = ("method=lora", "seed=0", f"size={size}", "checkpoint_selection=best_on_holdout")
    (evaluation,) = plan(*records.tiny(*words, "suite=calibration")).evaluations
    assert evaluation.run.task.examples["train"] == 3000
    found = Evaluated(evaluation, {"before": {}}, {}, {}, records.ENVIRONMENT, None)
    told = review(found, answers(300, 6, 200), answers(80, 4, 20))
    assert (told is not None) == reviewed


def test_without_a_threshold_all_is_reviewed(evaluated):
    found = review(evaluated, answers(0, 0, 200), answers(80, 4, 20))
    assert found["0.1"] == {"cut_off": None, "reviewed": 1.0, "error": None}


def test_where_all_may_be_answered_nothing_is_reviewed(evaluated):
    found = review(evaluated, answers(500, 6, 10), answers(80, 4, 20))
    assert found["0.2"] == {"cut_off": 0.0, "reviewed": 0.0, "error": pytest.approx(14 / 100)}


def test_other_suites_and_lost_predictions_stay_as_they_are(evaluated):
    def lost(one):
        raise RecordError("gone")

    record = records.record(evaluated.evaluation.run)
    kept = [evaluated, replace(evaluated, findings={})]
    assert with_review(kept, [record], lambda one: {}, lost) == kept
    assert with_review(kept, [], lambda one: {}, lost) == kept
