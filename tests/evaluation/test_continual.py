"""Data in rounds: what goes on from one to the next, and after a stop."""

import numpy as np
import pytest
import torch
from records import runs, tiny

from peftbench.config.sweep import plan
from peftbench.core.runtime import RuntimeConfig
from peftbench.evaluation import continual
from peftbench.methods.base import build_method
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.results.store import ResultsFolder
from peftbench.suites import base
from peftbench.training import trainer
from peftbench.training.continual_stage import ContinualStage
from peftbench.training.session import TrainingInterrupted


def one(*words):
    (evaluation,) = plan(*tiny("suite=continual", *words)).evaluations
    return evaluation, base.build_suite(evaluation.suite)


def followed(folder, evaluation, **more):
    """A stream, after the run that trains on everything at once."""
    results = ResultsFolder(folder)
    if not results.has(evaluation.run.key):
        outcome = trainer.execute(evaluation.run)
        results.save(outcome.record, outcome.predictions)
    return results, *continual.run_continual(evaluation, results, **more)


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(("method=full",), marks=pytest.mark.slow),
        ("method=bayes_hybrid", "method.samples=2"),
        ("method=sparse_adapter",),
    ],
    ids=lambda words: words[0],
)
def test_one_round_of_everything_is_the_run_itself(tmp_path, method):
    evaluation, _ = one(*method, "suite.chunks=[32]")
    results, found, arrays = followed(tmp_path, evaluation)
    known = results.predictions(results.load(evaluation.run.key))
    assert np.array_equal(arrays["scores/0/validation"], known["scores"])
    assert found.findings["validation"] == [found.findings["joint"]]
    assert found.findings["forgetting"] is None


def test_at_once_is_trained_on_the_chunks_alone(tmp_path):
    """Where these are fewer than the run's examples, by the run of so many, to the bit."""
    evaluation, rounds = one("method=full", "size=32", "suite.chunks=[8,16]")
    *_, last = rounds.rounds(evaluation.run, None)
    assert last.at_once
    assert len(last.rows) == 24
    _, found, arrays = followed(tmp_path, evaluation)
    (fewer,) = plan(*tiny("method=full", "size=24")).runs
    known = trainer.execute(fewer)
    assert np.array_equal(arrays["scores/2/validation"], known.predictions["scores"])
    assert found.findings["joint"] == known.record.score
    assert len(found.findings["validation"]) == 2
    assert [len(row) for row in found.findings["scores"]] == [1, 2]
    whole, _ = one("method=full", "suite.chunks=[8,24]")
    assert (evaluation.suite["revision"], "revision" in whole.suite) == (2, False)


@pytest.mark.slow
def test_values_go_on_from_round_to_round_in_their_unit(tmp_path):
    """Rounds whose labels have other means and spreads; at a rate of nearly 0 nothing changes."""
    words = ("method=full", "task=synthetic_similarity", "suite.chunks=[8,24]", "train.lr=1e-12")
    evaluation, _ = one(*words, "train.precision=fp32")
    _, found, arrays = followed(tmp_path, evaluation)
    first, second = (arrays[f"scores/{number}/validation"] for number in (0, 1))
    assert 1 < first.mean() < 4
    np.testing.assert_allclose(first, second, rtol=1e-4)
    assert len(found.findings["validation"]) == 2


def test_a_stopped_stream_goes_on_to_the_same_bits(tmp_path):
    evaluation, _ = one("method=full", "suite.chunks=[8,8,16]", "budget.steps=6")
    whole = followed(tmp_path / "whole", evaluation)[2]
    asked = 0

    def stop():  # at the second step of the second round
        nonlocal asked
        asked += 1
        return asked >= 6 + 2

    with pytest.raises(TrainingInterrupted):
        followed(tmp_path / "cut", evaluation, stop=stop)
    assert len(list((tmp_path / "cut" / "checkpoints").iterdir())) == 2
    before = continual.load_progress(ResultsFolder(tmp_path / "cut"), evaluation).spent
    results, found, arrays = followed(tmp_path / "cut", evaluation)
    assert arrays.keys() == whole.keys()
    assert all(np.array_equal(array, whole[name]) for name, array in arrays.items())
    spent = found.findings["spent"]
    assert (len(before), spent[: len(before)]) == (1, before)
    for phase, part in (("train", "seconds"), ("evaluate", "evaluate_seconds")):
        assert all(one[part] > 0 for one in spent)
        assert found.seconds[phase] == pytest.approx(sum(one[part] for one in spent))
    results.save_evaluated(found, arrays)
    assert list((tmp_path / "cut" / "checkpoints").iterdir()) == []


def test_words_learnt_in_a_round_are_kept_in_the_next(tmp_path):
    evaluation, _ = one("method=full", "suite.chunks=[8,8]", "train.lr=0.01")
    results = ResultsFolder(tmp_path)
    rounds = list(_rounds(evaluation))
    setting = RuntimeConfig(save_weights=True)
    states = []
    for number, rows in enumerate(rounds):
        stage = ContinualStage("0" * 12, number, rows, states[-1] if states else None)
        outcome = trainer.execute(evaluation.run, setting, stage=stage, results=results)
        states.append(continual.load(outcome.trained))
    name = "bert.embeddings.word_embeddings.weight"
    start = Backbone(evaluation.run.model).module.get_parameter(name).detach()
    first = (states[0][name] != start).any(1)
    second = (states[1][name] != states[0][name]).any(1)
    only = first & ~second  # words of the first round alone
    assert only.any()
    assert torch.equal(states[1][name][only], states[0][name][only])


def _rounds(evaluation):
    return [one.rows for one in base.build_suite(evaluation.suite).rounds(evaluation.run, None)]


def test_the_posterior_becomes_the_prior():
    (run,) = runs("method=bayes_hybrid")
    method, backbone = build_method(run.method), Backbone(run.model)
    earlier = AdaptedModel(backbone, 2, seed=0)
    method.insert(earlier)
    state = {name: t + 0.01 for name, t in earlier.state().items()}
    divergences = []
    for chain in (False, True):
        model = AdaptedModel(backbone, 2, seed=0)
        method.insert(model)
        ContinualStage("0" * 12, 1, np.arange(8), state, posterior_as_prior=chain).begin(
            model, method
        )
        divergences.append(method.divergence(model).item())
        assert torch.equal(model.state()["classifier.bias"], state["classifier.bias"])
    assert divergences[0] > 0.1
    assert divergences[1] == pytest.approx(0, abs=0)


@pytest.mark.slow
def test_each_task_of_a_sequence_has_a_head_of_its_own(tmp_path):
    words = "suite.sequence=[synthetic_similarity,synthetic_acceptability]"
    evaluation, _ = one("method=head", words)
    results, found, arrays = followed(tmp_path, evaluation)
    known = results.predictions(results.load(evaluation.run.key))
    assert np.array_equal(arrays["scores/0/0"], known["scores"])
    # nothing but heads trains, so nothing can be forgotten
    np.testing.assert_allclose(arrays["scores/2/0"], arrays["scores/0/0"], atol=1e-2)
    assert arrays["scores/2/1"].shape == (600, 1)
    assert found.findings["names"][1:] == ["synthetic_similarity", "synthetic_acceptability"]
    assert len(found.findings["scores"][2]) == 3
