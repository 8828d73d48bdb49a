"""Confusions and residuals against scikit-learn and by hand; parts with ties, empty parts."""

import numpy as np
import pytest
import records
from scipy.special import softmax
from sklearn.metrics import confusion_matrix

from peftbench.analysis.errors import RowPredictions, by_class, by_column, by_quantile


def answers(scores: np.ndarray, label: np.ndarray, task: str = "mnli") -> RowPredictions:
    """Answers of as many seeds as there are (runs, examples, classes) scores."""
    seeds = ",".join(map(str, range(len(scores))))
    runs = records.runs("method=lora", f"task={task}", f"seed={seeds}")
    item = np.arange(len(label)) + 100
    arrays = {
        run.key: {"item": item, "label": label, "scores": one}
        for run, one in zip(runs, scores, strict=True)
    }
    made = [records.record(run) for run in runs]
    return RowPredictions.from_records(made, lambda record: arrays[record.run.key])


def test_confusion_is_scikit_learns_mean():
    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, 40)  # class 2 has no example
    scores = generator.normal(size=(3, 40, 3))
    found = answers(scores, label)
    each = [confusion_matrix(label, one.argmax(axis=1), labels=range(3)) for one in scores]
    assert found.confusion() == pytest.approx(np.mean(each, axis=0))
    assert found.goodness().mean() == pytest.approx((scores.argmax(axis=2) == label).mean())


def test_the_surest_errors_are_those_of_the_mean_of_probabilities():
    label = np.array([0, 0, 1, 1, 0])
    certain = np.array([[-3, 3, 0], [0, 1, -9], [0, 4, 0], [0, 1, -9], [0, 1, -9]], dtype=float)
    found = answers(np.stack([certain, certain / 2]), label)
    wrong, more = found.surest_wrong(2)
    assert [(one.place, one.label, one.answer, one.runs) for one in wrong] == [
        (0, 0, 1, 2),
        (1, 0, 1, 2),
    ]
    mean = (softmax(certain[0]) + softmax(certain[0] / 2)) / 2
    assert wrong[0].sure == pytest.approx(mean[1])
    assert more == 1  # row 4 is as sure as row 1
    assert found.surest_wrong(0) == ([], 0)
    right = answers(np.eye(3)[[label]] * 5, label)
    assert right.surest_wrong(3) == ([], 0)


def test_residuals_of_values():
    label = np.array([1.0, 2.0, 4.0])
    scores = np.array([[[1.5], [2.0], [1.0]], [[0.5], [3.0], [2.0]]])
    found = answers(scores, label, "stsb")
    assert found.residuals() == pytest.approx(np.array([[0.5, 0, -3], [-0.5, 1, -2]]))
    assert found.goodness() == pytest.approx(np.abs(found.residuals()))
    wrong, _ = found.surest_wrong(1)
    assert (wrong[0].place, wrong[0].answer, wrong[0].sure) == (2, 1.5, 2.5)


def test_bins_hold_every_example_once_and_ties_share_one():
    values = np.random.default_rng(1).normal(size=101)
    parts = by_quantile(values, 4)
    assert np.array([part.where for part in parts]).sum(axis=0).tolist() == [1] * 101
    assert [int(part.where.sum()) for part in parts] == [26, 25, 25, 25]
    tied = by_quantile(np.array([0] * 90 + [1] * 6 + [2] * 4), 4)
    assert [(part.name, int(part.where.sum())) for part in tied] == [("0", 90), ("1 to 2", 10)]
    some = by_quantile(np.array([0] * 60 + [1] * 20 + [2] * 20), 4)
    assert [(part.name, int(part.where.sum())) for part in some] == [
        ("0", 60),
        ("1", 20),
        ("2", 20),
    ]
    assert len(by_quantile(np.array([3, 3, 3]), 4)) == 1


def test_parts_of_a_column():
    by_text = by_column(["b", "a", None, "b", ""], 4)
    assert [(part.name, int(part.where.sum())) for part in by_text] == [
        ("a", 1),
        ("b", 2),
        ("(empty)", 2),
    ]
    many = [f"source {i % 12}" for i in range(100)]
    parts = by_column(many, 4)
    assert parts[-1].name == "5 others"
    assert sum(int(part.where.sum()) for part in parts) == 100
    numbers = by_column([str(i) for i in range(100)] + [""], 4)
    assert [part.name for part in numbers] == [
        *("0 to 24", "25 to 49", "50 to 74", "75 to 99", "(empty)")
    ]
    empty = by_class(np.array([0, 0]), ["no", "yes"])
    assert [int(part.where.sum()) for part in empty] == [2, 0]
