"""Every metric against scikit-learn and scipy, and what is undefined is None."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT
from scipy import stats
from sklearn import metrics as sklearn

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.metrics import task_metrics
from peftbench.metrics.base import Metric

CLASSES = {
    "accuracy": sklearn.accuracy_score,
    "balanced_accuracy": sklearn.balanced_accuracy_score,
    "f1": sklearn.f1_score,
    "macro_f1": partial(sklearn.f1_score, average="macro"),
    "macro_precision": partial(sklearn.precision_score, average="macro"),
    "macro_recall": partial(sklearn.recall_score, average="macro"),
    "matthews": sklearn.matthews_corrcoef,
    "precision": sklearn.precision_score,
    "recall": sklearn.recall_score,
    "weighted_f1": partial(sklearn.f1_score, average="weighted"),
}
#: Those that are defined for any number of classes.
MANY = [name for name in CLASSES if task_metrics.METRICS[name].classes is None]
VALUES = {
    "mae": sklearn.mean_absolute_error,
    "r2": sklearn.r2_score,
    "rmse": sklearn.root_mean_squared_error,
    "pearson": lambda label, predicted: stats.pearsonr(label, predicted).statistic,
    "spearman": lambda label, predicted: stats.spearmanr(label, predicted).statistic,
}


def classes(seed, count=2, examples=200):
    generator = np.random.default_rng(seed)
    label = generator.integers(0, count, examples)
    noise = generator.random(examples) < 0.3
    return np.where(noise, generator.integers(0, count, examples), label), label


def values(seed, examples=200):
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 26, examples) / 5  # ties, as in STS-B
    return (label + generator.normal(size=examples)).astype(np.float32), label.astype(np.float32)


def one_hot(predicted, count):
    return np.eye(count, dtype=np.float32)[predicted]


def test_every_metric_is_tested():
    texts = {one.name for one in task_metrics.text_metrics()}  # in test_text_scores.py
    assert len(texts) == 5
    others = task_metrics.METRICS.keys() - CLASSES.keys() - VALUES.keys() - texts
    assert all((Path(__file__).parent / f"test_{name}.py").exists() for name in others)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", CLASSES)
def test_classes_as_scikit_learn(name, seed):
    predicted, label = classes(seed)
    expected = CLASSES[name](label, predicted)
    assert task_metrics.METRICS[name].compute(predicted, label) == pytest.approx(
        expected, abs=1e-12
    )
    scores = one_hot(predicted, 2)
    assert task_metrics.compute_scores([name], scores, label) == {
        name: pytest.approx(expected, abs=1e-12)
    }


@pytest.mark.parametrize("name", MANY)
def test_three_classes_as_scikit_learn(name):
    predicted, label = classes(0, count=3)
    expected = CLASSES[name](label, predicted)
    assert task_metrics.METRICS[name].compute(predicted, label) == pytest.approx(
        expected, abs=1e-12
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", VALUES)
def test_values_as_scipy(name, seed):
    predicted, label = values(seed)
    expected = VALUES[name](label.astype(np.float64), predicted.astype(np.float64))
    assert task_metrics.METRICS[name].compute(predicted, label) == pytest.approx(
        expected, abs=1e-12
    )
    assert task_metrics.compute_scores([name], predicted[:, None], label) == {
        name: pytest.approx(expected, abs=1e-12)
    }


@pytest.mark.parametrize("swap", [False, True])
def test_a_constant_has_no_correlation(swap):
    for name, (other, constant) in {
        "matthews": (classes(0)[0], np.ones(200, dtype=np.int64)),
        "pearson": (values(0)[0], np.full(200, 2.5, dtype=np.float32)),
        "spearman": (values(0)[0], np.full(200, 2.5, dtype=np.float32)),
    }.items():
        arrays = (constant, other) if swap else (other, constant)
        assert task_metrics.METRICS[name].compute(*arrays) is None


def test_a_constant_that_wobbles_in_its_last_digits_is_one():
    wobbling = np.full(200, 2.5, dtype=np.float32)
    wobbling[::3] = np.nextafter(np.float32(2.5), np.float32(3))
    assert task_metrics.METRICS["pearson"].compute(wobbling, values(0)[1]) is None
    assert task_metrics.METRICS["spearman"].compute(wobbling, values(0)[1]) is None
    label = values(0)[1]
    assert task_metrics.collapsed(wobbling[:, None], label)


@pytest.mark.parametrize(("share", "collapsed"), [(0.0003, True), (0.009, True), (0.011, False)])
def test_values_that_hardly_vary_are_one_however_they_correlate(share, collapsed):
    """As of a dead adapter on STS-B, whose 1,379 values from 2.764 to 2.766 had an r of 0.396."""
    _, label = values(0)
    predicted = (2.765 + share * (label - label.mean())).astype(np.float32)
    assert task_metrics.collapsed(predicted[:, None], label) == collapsed
    for name in ("pearson", "spearman"):
        metric = task_metrics.METRICS[name]
        assert (metric.compute(predicted, label) is None) == collapsed
        (on_all,) = metric.on_resamples(predicted[None], label, np.ones((1, len(label))))
        assert np.isnan(on_all[0]) == collapsed
        assert collapsed or on_all[0] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("unit", [1e-12, 1e-7, 1.0, 1e9])
@pytest.mark.parametrize("name", ["pearson", "spearman", "r2"])
def test_a_constant_is_one_in_any_unit(name, unit):
    """Concentrations in mol/l are as good as values about 1; noise about 0 is a constant."""
    metric = task_metrics.METRICS[name]
    predicted, label = values(0)
    scaled = unit * predicted.astype(np.float64), unit * label.astype(np.float64)
    assert metric.compute(*scaled) == pytest.approx(metric.compute(predicted, label), abs=1e-5)
    assert not task_metrics.collapsed(scaled[0][:, None], scaled[1])
    about_zero = 1e-8 * (scaled[0] - scaled[0].mean())
    assert task_metrics.collapsed(about_zero[:, None], scaled[1])
    if name != "r2":
        assert metric.compute(about_zero, scaled[1]) is None
        counts = np.ones((1, len(label)))
        assert np.isfinite(metric.on_resamples(np.stack([scaled[0]]), scaled[1], counts)).all()


def test_f1_without_a_positive_is_undefined():
    nothing, label = np.zeros(10, dtype=np.int64), np.arange(10) % 2
    assert task_metrics.METRICS["f1"].compute(nothing, nothing) is None
    assert task_metrics.METRICS["f1"].compute(nothing, label) == 0.0
    assert task_metrics.METRICS["f1"].compute(label, nothing) == 0.0


def test_collapsed():
    predicted, label = classes(0)
    assert not task_metrics.collapsed(one_hot(predicted, 2), label)
    assert task_metrics.collapsed(np.array([[0.1, 0.2], [-3.0, 4.0]]), np.array([0, 1]))
    assert task_metrics.collapsed(np.full((5, 1), 2.5), np.arange(5.0))


def test_trivial_knows_the_majority_of_mrpc():
    """279 of the 408 validation pairs are positive, as most of training."""
    label = (np.arange(408) < 279).astype(np.int64)
    train = (np.arange(3668) < 2474).astype(np.int64)
    found = task_metrics.compute_scores(
        ["accuracy", "f1"], task_metrics.trivial(label, train, 2), label
    )
    assert round(100 * found["accuracy"], 2) == 68.38
    assert round(100 * found["f1"], 2) == 81.22


def test_trivial_learns_from_training_labels_alone():
    label, train = np.ones(10, dtype=np.int64), np.array([0, 0, 1])
    assert (
        task_metrics.compute_scores(["accuracy"], task_metrics.trivial(label, train, 2), label)[
            "accuracy"
        ]
        == 0
    )
    mean = task_metrics.trivial(np.zeros(4, np.float32), np.array([1, 2], np.float32), 1)
    assert mean.tolist() == [[1.5]] * 4
    assert task_metrics.compute_scores(["pearson"], mean, values(0, 4)[1]) == {"pearson": None}


@pytest.mark.parametrize("name", [*CLASSES, *VALUES])
def test_evaluate_metrics_give_the_same_bits(name):
    """Without the network: HF_HUB_OFFLINE is set for all tests."""
    made = [values(seed) for seed in range(3)] if name in VALUES else [classes(0), classes(1)]
    made += [(label.astype(np.float64), predicted) for predicted, label in made[:1]]
    made += [(predicted[:0], label[:0]) for predicted, label in made[:1] if name == "f1"]
    for predicted, label in [*made, (np.zeros_like(made[0][0]), np.zeros_like(made[0][1]))]:
        scores = predicted[:, None] if name in VALUES else one_hot(predicted.astype(int), 2)
        assert task_metrics.score([name], scores, label) == task_metrics.compute_scores(
            [name], scores, label
        )


def test_an_evaluate_metric_alone():
    from peftbench.metrics.evaluate_metrics import evaluate_metric

    matthews = evaluate_metric(task_metrics.METRICS["matthews"])
    assert matthews.compute(predictions=[1, 1, 1], references=[1, 0, 1]) == {"matthews": None}
    predicted, label = values(1)
    pearson = evaluate_metric(task_metrics.METRICS["pearson"])
    for part in range(4):  # added batch by batch, as the evaluate library does
        rows = slice(50 * part, 50 * part + 50)
        pearson.add_batch(predictions=predicted[rows], references=label[rows])
    expected = task_metrics.METRICS["pearson"].compute(predicted, label)
    assert pearson.compute() == {"pearson": expected}


def test_scoring_leaves_random_numbers_as_they_are():
    state = np.random.get_state()[1].copy()
    task_metrics.score(["accuracy"], one_hot(classes(0)[0], 2), classes(0)[1])
    assert np.array_equal(np.random.get_state()[1], state)


WITHOUT_A_TRACE = """
import logging, sys
handlers = list(logging.getLogger().handlers)
import numpy as np
from peftbench.metrics import task_metrics
assert "evaluate" not in sys.modules
print(task_metrics.score(["accuracy", "f1"], np.eye(2), np.array([0, 0])))
assert logging.getLogger().handlers == handlers
"""


def test_scoring_writes_no_file_and_opens_no_connection(tmp_path):
    aside = {"HF_HOME", "HF_METRICS_CACHE", "HF_EVALUATE_CACHE", "XDG_CACHE_HOME"}
    kept = {name: value for name, value in os.environ.items() if name not in aside}
    guard = "import socket; socket.socket.connect = None\n"
    done = subprocess.run(
        [sys.executable, "-c", guard + WITHOUT_A_TRACE],
        env=kept | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "{'accuracy': 0.5, 'f1': 0.0}\n", done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_metrics_of_other_tasks_are_refused():
    task_metrics.check_metrics(["accuracy", "f1", "matthews"], "classification", 2)
    task_metrics.check_metrics(["accuracy", "f1"], "classification", None)  # not counted yet
    task_metrics.check_metrics(["pearson"], "regression", 1)
    for name in ("f1", "precision", "recall"):
        told = f"{name} is defined for 2 classes, the task has 3; use macro_{name}"
        with pytest.raises(ConfigError, match=told):
            task_metrics.check_metrics(["accuracy", name], "classification", 3)
    with pytest.raises(ConfigError, match="rmse is an error, put it behind another one"):
        task_metrics.check_metrics(["rmse", "pearson"], "regression", 1)
    with pytest.raises(ConfigError, match="accuracy twice"):
        task_metrics.check_metrics(["accuracy", "accuracy"], "classification", 2)
    with pytest.raises(ConfigError, match="accuracy is no metric of regression; choose from pears"):
        task_metrics.check_metrics(["accuracy"], "regression", 1)
    with pytest.raises(ConfigError, match=r"task\.metrics is empty: a run needs a score"):
        task_metrics.check_metrics([], "classification", 2)
    with pytest.raises(
        ConfigError,
        match=r"pearsn is no metric of regression; did you mean pearson.*choose from pearson, r2",
    ):
        task_metrics.check_metrics(["pearsn"], "regression", 1)


@pytest.mark.parametrize(
    "words",
    [
        ("task=mnli", "task.metrics=[accuracy,f1]"),
        ("task=stsb", "task.metrics=[accuracy]"),
        ("task=cola", "task.metrics=[]"),
    ],
)
def test_planning_refuses_metrics_of_other_tasks(words):
    with pytest.raises(ConfigError, match=r"task\.metrics"):
        plan("method=lora", *words)


def test_a_metric_without_a_form_for_resamples_is_computed_on_each():
    accuracy = task_metrics.METRICS["accuracy"]
    plain = Metric(name="plain", about="", compute=accuracy.compute, kinds=("classification",))
    predicted = np.stack([classes(seed)[0] for seed in range(3)])
    label = classes(0)[1]
    counts = np.random.default_rng(0).integers(0, 3, (5, len(label))).astype(np.float64)
    found = plain.on_resamples(predicted, label, counts)
    assert found == pytest.approx(accuracy.on_resamples(predicted, label, counts))


@pytest.mark.parametrize("name", [*CLASSES, *VALUES])
def test_the_form_for_resamples_is_that_of_each_resample(name):
    """Also where a resample lacks a class, and where it has one that is never predicted."""
    metric = task_metrics.METRICS[name]
    make = values if name in VALUES else partial(classes, count=metric.classes or 4)
    predicted = np.stack([make(seed, examples=12)[0] for seed in range(3)])
    label = make(0, examples=12)[1]
    counts = np.random.default_rng(1).multinomial(12, [1 / 12] * 12, 40).astype(np.float64)
    plain = replace(metric, resampled=None)
    found = metric.on_resamples(predicted, label, counts)
    expected = plain.on_resamples(predicted, label, counts)
    assert found == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_macro_f1_stands_beside_accuracy_from_three_classes_on():
    assert task_metrics.reported(["accuracy"], 3) == ["accuracy", "macro_f1"]
    assert task_metrics.reported(["macro_f1", "accuracy"], 3) == ["macro_f1", "accuracy"]
    assert task_metrics.reported(["accuracy", "f1"], 2) == ["accuracy", "f1"]
    assert task_metrics.reported(["pearson"], 1) == ["pearson"]


def test_figures_of_each_class():
    label, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 2, 1])
    found = task_metrics.per_class(one_hot(predicted, 4), label, ["a", "b", "c", "d"])
    assert found == [
        {"class": "a", "examples": 3, "precision": 1.0, "recall": 2 / 3, "f1": 0.8},
        {"class": "b", "examples": 2, "precision": 1 / 3, "recall": 0.5, "f1": 0.4},
        {"class": "c", "examples": 1, "precision": 0.0, "recall": 0.0, "f1": 0.0},
        {"class": "d", "examples": 0, "precision": None, "recall": None, "f1": None},
    ]


def test_a_score_that_is_not_finite_is_an_error():
    huge = np.full((4, 1), 1e300)
    with pytest.raises(FloatingPointError, match="rmse is inf"):
        task_metrics.score(["rmse"], huge, np.arange(4, dtype=np.float32))


def test_log_odds_that_differ_in_their_last_digits_have_half_the_area_on_all_resamples():
    """As reports count the undefined area of all examples."""
    label = np.arange(40) % 2
    values = np.stack([3 + 1e-8 * label, 3 + 1e-3 * label])
    counts = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=20)
    assert [task_metrics.auc(one, label) for one in values] == [None, 1.0]
    found = task_metrics.auc_on_resamples(values, label, counts.astype(np.float64))
    assert found == pytest.approx(np.tile([0.5, 1.0], (20, 1)))
