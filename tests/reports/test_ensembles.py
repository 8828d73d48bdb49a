"""Seeds together: against scikit-learn, scipy and torchmetrics, and what theory says of means."""

import numpy as np
import pytest
import records
import torch
from scipy.special import softmax
from scipy.stats import entropy, norm, spearmanr
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, matthews_corrcoef
from torchmetrics.functional.classification import multiclass_calibration_error

from peftbench.core.errors import RecordError
from peftbench.metrics import task_metrics
from peftbench.reports import ensembles
from peftbench.results.predictions import PredictionMatrix, stacked


def drawn(
    members: int = 3, examples: int = 500, classes: int = 2, seed: int = 0
) -> PredictionMatrix:
    generator = np.random.default_rng(seed)
    label = generator.integers(0, classes, examples)
    scores = generator.normal(size=(members, examples, classes)) + np.eye(classes)[label]
    return PredictionMatrix(label, scores, np.zeros((members, examples)))


@pytest.mark.parametrize("classes", [2, 3])
def test_figures_of_classes_are_those_of_the_mean_probability(classes):
    found = drawn(classes=classes)
    alone, whole, spread = ensembles.classes(found, "accuracy")
    each = softmax(found.scores, axis=2)
    mean = each.mean(axis=0)
    assert whole["score"] == accuracy_score(found.label, mean.argmax(1))
    assert whole["NLL"] == pytest.approx(log_loss(found.label, mean))
    ece = multiclass_calibration_error(
        torch.from_numpy(mean), torch.from_numpy(found.label), num_classes=classes, n_bins=15
    )
    assert whole["ECE"] == pytest.approx(float(ece), abs=1e-6)
    # summed over classes, where scikit-learn's binary one takes half
    assert whole["Brier"] == pytest.approx(
        brier_score_loss(found.label, mean, scale_by_half=False, labels=range(classes))
    )
    assert [one["NLL"] for one in alone] == pytest.approx([log_loss(found.label, p) for p in each])
    divergence = np.mean([entropy(p, mean, axis=1) for p in each])
    assert spread["MI"] == pytest.approx(divergence)


def test_the_mean_probability_is_never_worse_than_the_mean_member():
    """Jensen: of the NLL and of the Brier score, both of them convex."""
    for seed in range(20):
        alone, whole, spread = ensembles.classes(drawn(seed=seed, examples=40), "accuracy")
        for name in ("NLL", "Brier"):
            assert whole[name] < np.mean([one[name] for one in alone])
        assert spread["MI"] > 0


def test_equal_members_are_as_good_as_one():
    found = drawn(members=1)
    twice = PredictionMatrix(found.label, np.repeat(found.scores, 4, axis=0), np.zeros((4, 500)))
    alone, whole, spread = ensembles.classes(twice, "accuracy")
    assert whole == pytest.approx(alone[0])
    assert spread["MI"] == pytest.approx(0, abs=1e-12)


def test_a_probability_of_zero_has_no_entropy():
    scores = np.array([[[0.0, -2000.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    found = PredictionMatrix(np.array([0, 1]), scores, np.zeros((2, 2)))
    assert np.isfinite(ensembles.classes(found, "accuracy")[2]["MI"])


def test_log_probabilities_and_log_odds_are_told_alike():
    """A method that samples stores log probabilities, another one log odds."""
    found = drawn()
    logs = PredictionMatrix(found.label, np.log(softmax(found.scores, axis=2)), found.variance)
    assert ensembles.classes(logs, "f1")[1] == pytest.approx(ensembles.classes(found, "f1")[1])


def test_a_constant_prediction_counts_as_zero():
    found = drawn()
    same = PredictionMatrix(found.label, np.tile([1.0, 0.0], (3, 500, 1)), found.variance)
    alone, whole, _ = ensembles.classes(same, "matthews")
    assert (whole["score"], alone[0]["score"]) == (0.0, 0.0)
    mixed = np.concatenate([found.scores[:1], same.scores[:1]])
    alone, whole, _ = ensembles.classes(
        PredictionMatrix(found.label, mixed, found.variance[:2]), "matthews"
    )
    assert alone[1]["score"] == 0.0
    assert whole["score"] == pytest.approx(
        matthews_corrcoef(found.label, softmax(mixed, axis=2).mean(0).argmax(1))
    )


def test_figures_of_values_are_those_of_the_mixture():
    generator = np.random.default_rng(0)
    label = generator.random(400) * 5
    value = label + generator.normal(size=(3, 400))
    own = generator.random((3, 400)) * 0.1
    alone, whole, spread = ensembles.values(
        PredictionMatrix(label, value[..., None], own), "pearson"
    )
    mean = value.mean(axis=0)
    variance = (own + value**2).mean(axis=0) - mean**2  # section 2.4 of the paper
    assert whole["score"] == pytest.approx(np.corrcoef(mean, label)[0, 1])
    assert spread["sd"] == pytest.approx(np.sqrt(variance.mean()))
    assert spread["NLL, all"] == pytest.approx(-norm.logpdf(label, mean, np.sqrt(variance)).mean())
    assert spread["sd ~ error"] == pytest.approx(
        spearmanr(variance, np.abs(mean - label)).statistic
    )
    # Krogh and Vedelsby 1995: the error of the mean is the mean error less the spread
    squares = np.mean([one["RMSE"] ** 2 for one in alone])
    assert whole["RMSE"] ** 2 == pytest.approx(squares - value.var(axis=0).mean())


def test_a_gaussian_without_variance_has_no_likelihood():
    value = np.array([[[1.0], [2.0], [4.0]], [[1.0], [3.0], [5.0]]])
    label = np.array([1.0, 2.0, 3.0])
    spread = ensembles.values(PredictionMatrix(label, value, np.zeros((2, 3))), "pearson")[2]
    assert spread["NLL, all"] is None
    assert spread["sd"] == pytest.approx(np.sqrt((0 + 0.25 + 0.25) / 3))


def test_only_seeds_are_members():
    words = ("method=lora", "train.lr=1e-4,1e-3", "seed=0,1,2", "size=32,64")
    made = [records.record(run) for run in records.runs(*words)]
    made += [records.record(run) for run in records.runs("method=bitfit")]
    (table,) = ensembles.tables(made, lambda record: records.predictions())
    assert table.columns[:3] == ["task", "method", "train.lr"]
    shown = [(row[0], row[1], row[2], row[3]) for row in table.rows]
    score = 100 * task_metrics.METRICS["accuracy"].compute(np.ones(5), np.arange(5) % 2)
    assert sorted(shown) == [
        (f"synthetic_paraphrase {size}", "lora", rate, f"{score:.1f} ± 0.0 (3)")
        for size in (32, 64)
        for rate in ("0.0001", "0.001")
    ]
    assert not ensembles.tables(made[-1:], lambda record: records.predictions())


def test_predictions_of_other_examples_are_refused():
    made = [records.record(run) for run in records.runs("seed=0,1")]
    answers = {one.run.key: records.predictions() for one in made}
    answers[made[1].run.key]["item"] = answers[made[1].run.key]["item"][::-1]
    with pytest.raises(RecordError, match="of other examples"):
        stacked(made, lambda record: answers[record.run.key])


def test_seeds_that_nearly_agree_have_an_order_of_their_variances():
    """Errors of 1 beside variances of a millionth: they have no common unit."""
    generator = np.random.default_rng(0)
    label = generator.normal(size=200)
    far = np.abs(generator.normal(size=200))
    middle = label + far
    scores = np.stack([middle - 1e-3 * far, middle + 1e-3 * far])[:, :, None]
    _, _, spread = ensembles.values(PredictionMatrix(label, scores, np.zeros((2, 200))), "pearson")
    assert spread["sd ~ error"] == pytest.approx(1.0, abs=1e-6)
