"""Data in rounds: what is trained on, what goes on, what is measured."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from records import runs, tiny

from peftbench.cli.main import main
from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.core.runtime import RuntimeConfig
from peftbench.data import loading
from peftbench.evaluation import continual
from peftbench.methods.base import build_method
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.results.store import ResultsFolder
from peftbench.runner.worker import preflight
from peftbench.suites import base
from peftbench.suites.continual import measures
from peftbench.training import trainer
from peftbench.training.continual_stage import ContinualStage
from peftbench.training.loop import TrainingInterrupted


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


# what is trained on


def test_chunks_are_consecutive_pieces_of_the_runs_own_subset():
    evaluation, rounds = one("size=70", "suite.chunks=[10,20,40]")
    trained = [r.rows for r in rounds.rounds(evaluation.run, None)]
    assert [len(rows) for rows in trained] == [10, 20, 40]
    label = loading.load_split(evaluation.run.task, "train", None).label
    seed = evaluation.run.seeds()["subset"]
    assert set(np.concatenate(trained)) == set(loading.stratified(label, 2, seed)[:70])
    asked = [list(r.asked) for r in rounds.rounds(evaluation.run, None)]
    assert asked[2] == ["validation", "0", "1", "2"]


@pytest.mark.parametrize(("replay", "counts"), [(0.2, [10, 22, 46]), (1.0, [10, 30, 70])])
def test_replay_adds_a_part_of_every_earlier_chunk(replay, counts):
    evaluation, rounds = one("size=70", "suite.chunks=[10,20,40]", f"suite.replay={replay}")
    trained = [set(r.rows) for r in rounds.rounds(evaluation.run, None)]
    assert [len(rows) for rows in trained] == counts
    assert len(trained[0] & trained[2]) == replay * 10


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["suite.chunks=[20,20]"], "suite.chunks are 40 examples, the run has 32"),
        (["suite.chunks=[]"], "suite.chunks is empty"),
        (["suite.chunks=[8,0]"], "suite.chunks must be a whole number of at least 1"),
        (["suite.chunks=[8]", "suite.replay=2"], "suite.replay must be a number from 0 to 1"),
        (
            ["suite.chunks=[8]", "checkpoint_selection=best_on_holdout"],
            "leave checkpoint_selection=last",
        ),
        (["suite.sequence=[synthetic_accept]"], "did you mean synthetic_acceptability or"),
        (["suite.sequence=[paws]"], "paws has nothing to train on"),
        (
            ["suite.sequence=[synthetic_similarity]", "suite.replay=0.5"],
            "another task have another",
        ),
    ],
)
def test_bad_words_are_refused_when_planning(words, told):
    with pytest.raises(ConfigError) as caught:
        one(*words)
    assert told in str(caught.value)


def test_a_chain_of_priors_needs_posteriors():
    evaluation, _ = one("method=lora", "suite.chunks=[8,8]", "suite.posterior_as_prior=true")
    found = preflight([evaluation.run], [evaluation], RuntimeConfig(device="cpu"))
    assert "LoRA has no posterior" in " ".join(found["errors"])


# what goes on


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
    results, found, arrays = followed(tmp_path / "cut", evaluation)
    assert arrays.keys() == whole.keys()
    assert all(np.array_equal(array, whole[name]) for name, array in arrays.items())
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


# what is measured


def test_measures_are_those_of_the_papers():
    told = measures([[0.5], [0.6, 0.7], [0.4, 0.9, 0.8]])
    assert told["average"] == pytest.approx(0.7)
    assert told["backward_transfer"] == pytest.approx((-0.1 + 0.2) / 2)
    assert told["forgetting"] == pytest.approx((0.2 - 0.2) / 2)
    assert measures([[0.5], [None, 0.7]]) == dict.fromkeys(told)


@pytest.mark.slow
def test_report_of_rounds(tmp_path):
    words = tiny(
        "method=bayes_hybrid", "method.samples=1", "suite=continual", "suite.chunks=[8,24]"
    )
    folder = ["--results", str(tmp_path), "--workers", "1"]
    asked = [*words, "suite.posterior_as_prior=true,false", *folder]
    plain = [word for word in words if not word.startswith("suite")]
    for line in (["run", *plain, *folder], ["evaluate", *asked]):
        told = CliRunner().invoke(main, line)
        assert told.exit_code == 0, told.output
    assert not (tmp_path / "trained").exists()  # rounds ask no weights
    text = (tmp_path / "reports" / "continual.md").read_text()
    assert [line.split("|")[2].strip() for line in text.splitlines()[4:6]] == ["False", "True"]
    assert " at once |" in text
    key = ResultsFolder(tmp_path).evaluations()[0]
    shown = CliRunner().invoke(main, ["show", key[:8], "--results", str(tmp_path)]).output
    assert (
        "continual of bayes_hybrid · synthetic_paraphrase · tiny · size 32 · seed 0\n"
        f"key          {key}" in shown
    )
    assert "\nforgetting " in shown
    assert (tmp_path / "reports" / "continual.png").exists()
