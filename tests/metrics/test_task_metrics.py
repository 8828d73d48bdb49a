"""Every metric against scikit-learn and scipy, and what is undefined is None."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn

from peftbench.metrics import task_metrics
from peftbench.metrics.evaluate_metric import Scores

CLASSES = {
    "accuracy": sklearn.accuracy_score,
    "f1": sklearn.f1_score,
    "matthews": sklearn.matthews_corrcoef,
}
VALUES = {
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
    assert set(task_metrics.METRICS) == CLASSES.keys() | VALUES.keys()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", CLASSES)
def test_classes_as_scikit_learn(name, seed):
    predicted, label = classes(seed)
    expected = CLASSES[name](label, predicted)
    assert task_metrics.METRICS[name](predicted, label) == pytest.approx(expected, abs=1e-12)
    scores = one_hot(predicted, 2)
    assert task_metrics.score([name], scores, label) == {name: pytest.approx(expected, abs=1e-12)}


@pytest.mark.parametrize("name", ["accuracy", "matthews"])
def test_three_classes_as_scikit_learn(name):
    predicted, label = classes(0, count=3)
    expected = CLASSES[name](label, predicted)
    assert task_metrics.METRICS[name](predicted, label) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", VALUES)
def test_values_as_scipy(name, seed):
    predicted, label = values(seed)
    expected = VALUES[name](label.astype(np.float64), predicted.astype(np.float64))
    assert task_metrics.METRICS[name](predicted, label) == pytest.approx(expected, abs=1e-12)
    assert task_metrics.score([name], predicted[:, None], label) == {
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
        assert task_metrics.METRICS[name](*arrays) is None


def test_a_constant_that_wobbles_in_its_last_digits_is_one():
    wobbling = np.full(200, 2.5, dtype=np.float32)
    wobbling[::3] = np.nextafter(np.float32(2.5), np.float32(3))
    assert task_metrics.pearson(wobbling, values(0)[1]) is None
    assert task_metrics.spearman(wobbling, values(0)[1]) is None
    assert task_metrics.collapsed(wobbling[:, None])
    assert not task_metrics.collapsed((wobbling + np.linspace(0, 1e-3, 200))[:, None])


def test_f1_without_a_positive_is_undefined():
    nothing, label = np.zeros(10, dtype=np.int64), np.arange(10) % 2
    assert task_metrics.f1(nothing, nothing) is None
    assert task_metrics.f1(nothing, label) == 0.0
    assert task_metrics.f1(label, nothing) == 0.0


def test_collapsed():
    predicted, _ = classes(0)
    assert not task_metrics.collapsed(one_hot(predicted, 2))
    assert task_metrics.collapsed(np.array([[0.1, 0.2], [-3.0, 4.0]]))
    assert task_metrics.collapsed(np.full((5, 1), 2.5))


def test_trivial_knows_the_majority_of_mrpc():
    """279 of the 408 validation pairs are positive, as most of training."""
    label = (np.arange(408) < 279).astype(np.int64)
    train = (np.arange(3668) < 2474).astype(np.int64)
    found = task_metrics.score(["accuracy", "f1"], task_metrics.trivial(label, train, 2), label)
    assert round(100 * found["accuracy"], 2) == 68.38
    assert round(100 * found["f1"], 2) == 81.22


def test_trivial_learns_from_training_labels_alone():
    label, train = np.ones(10, dtype=np.int64), np.array([0, 0, 1])
    assert (
        task_metrics.score(["accuracy"], task_metrics.trivial(label, train, 2), label)["accuracy"]
        == 0
    )
    mean = task_metrics.trivial(np.zeros(4, np.float32), np.array([1, 2], np.float32), 1)
    assert mean.tolist() == [[1.5]] * 4
    assert task_metrics.score(["pearson"], mean, values(0, 4)[1]) == {"pearson": None}


def test_evaluate_metric_is_scikit_learn(tmp_path):
    """Without the network: HF_HUB_OFFLINE is set for all tests."""
    predicted, label = classes(1)
    ours = Scores("mrpc", metrics=["accuracy", "f1", "matthews"], cache_dir=str(tmp_path))
    found = ours.compute(predictions=predicted.tolist(), references=label.tolist())
    expected = {name: CLASSES[name](label, predicted) for name in ("accuracy", "f1", "matthews")}
    assert found == pytest.approx(expected, abs=1e-12)

    predicted, label = values(1)
    ours = Scores("stsb", metrics=["pearson", "spearman"], cache_dir=str(tmp_path))
    for part in range(4):  # added batch by batch, as the evaluate library does
        rows = slice(50 * part, 50 * part + 50)
        ours.add_batch(predictions=predicted[rows], references=label[rows])
    expected = {name: VALUES[name](*map(np.float64, (label, predicted))) for name in VALUES}
    assert ours.compute() == pytest.approx(expected, abs=1e-6)


def test_evaluate_metric_gives_none_where_undefined(tmp_path):
    ours = Scores("cola", metrics=["matthews", "accuracy"], cache_dir=str(tmp_path))
    found = ours.compute(predictions=[1, 1, 1], references=[1, 0, 1])
    assert found == {"matthews": None, "accuracy": pytest.approx(2 / 3)}
