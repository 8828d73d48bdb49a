"""Data in rounds: what is trained on, and what is measured."""

import numpy as np
import pytest
from click.testing import CliRunner
from records import tiny

from peftbench.cli.main import main
from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.core.runtime import RuntimeConfig
from peftbench.data import loading
from peftbench.methods import dry_run
from peftbench.results.store import ResultsFolder
from peftbench.runner.worker import preflight
from peftbench.suites import base
from peftbench.suites.continual import measures


def one(*words):
    (evaluation,) = plan(*tiny("suite=continual", *words)).evaluations
    return evaluation, base.build_suite(evaluation.suite)


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
        (
            ["size=full", "prompt=words", "prompt.reserved=8", "suite.chunks=[1000,1995]"],
            "suite.chunks are 2995 examples, the run has 2992; use fewer",
        ),
        (["task=mrpc", "size=3000", "suite.sequence=[rte]"], "size=3000: rte has 2490 training"),
        (["suite.chunks=[]"], "suite.chunks is empty"),
        (["suite.chunks=[8,0]"], "suite.chunks must be a whole number of at least 1"),
        (["suite.chunks=[8]", "suite.replay=2"], "suite.replay must be a number from 0 to 1"),
        (
            ["suite.chunks=[8]", "checkpoint_selection=best_on_holdout"],
            "leave checkpoint_selection=last",
        ),
        (["suite.sequence=[synthetic_accept]"], "did you mean synthetic_acceptability or"),
        (["suite.sequence=[paws]"], "paws has nothing to train on"),
        (["task=mrpc", "suite.sequence=[socialqa]"], "socialqa wants texts, which no"),
        (["task=mrpc", "size=2", "suite.sequence=[mnli]"], "hold all 3 classes of mnli"),
        (
            ["suite.sequence=[synthetic_similarity]", "suite.replay=0.5"],
            "another task have another",
        ),
        (["suite.chunks=[8,x]"], "suite.chunks must be a whole number of at least 1, got 'x'"),
        (["suite.chunks=[[1]]"], "suite.chunks must be a whole number"),
        (["suite.chunks=3"], "suite.chunks must be a list"),
        (["suite.sequence=synthetic_similarity"], "suite.sequence must be a list"),
        (["suite.posterior_as_prior=null"], "suite.posterior_as_prior is true or false, got None"),
    ],
)
def test_bad_words_are_refused_when_planning(words, told):
    with pytest.raises(ConfigError) as caught:
        one(*words)
    assert told in str(caught.value)


def test_a_sequence_without_the_training_data_of_a_later_task_is_refused_before_training():
    """The sets are of validation splits; the training file is first read behind the run's own."""
    evaluation, rounds = one("task=synthetic_opinion", "suite.sequence=[synthetic_acceptability]")
    rounds.check_data(evaluation.run, None)
    real, asked = loading.load_split, []

    def lost(task, split, root):
        asked.append((task.name, split))
        if asked[-1] == ("synthetic_acceptability", "train"):
            raise ConfigError("no such file")
        return real(task, split, root)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load_split", lost)
        with pytest.raises(ConfigError, match="no such file"):
            rounds.check_data(evaluation.run, None)


def test_later_tasks_of_a_sequence_are_rehearsed_before_the_first_trains(monkeypatch):
    evaluation, _ = one("task=synthetic_opinion", "suite.sequence=[synthetic_similarity]")
    rehearsed = []
    monkeypatch.setattr(dry_run, "rehearse", lambda run, root: rehearsed.append(run.task.name))
    found = preflight([evaluation.run], [evaluation], RuntimeConfig(device="cpu"))
    assert (found["errors"], rehearsed) == ([], ["synthetic_opinion", "synthetic_similarity"])


def test_a_chain_of_priors_needs_posteriors():
    evaluation, _ = one("method=lora", "suite.chunks=[8,8]", "suite.posterior_as_prior=true")
    found = preflight([evaluation.run], [evaluation], RuntimeConfig(device="cpu"))
    assert "LoRA has no posterior" in " ".join(found["errors"])


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
