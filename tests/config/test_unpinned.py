"""Repositories of the hub that are named without a revision: one commit, kept and in the key."""

from dataclasses import replace
from pathlib import Path

import pytest
import records
from click.testing import CliRunner

from peftbench.cli import doctor
from peftbench.cli.main import main
from peftbench.cli.plan import checkpoint_lines
from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError, RecordError
from peftbench.core.plan import RunOptions
from peftbench.results import status
from peftbench.results.store import ResultsFolder
from peftbench.runner import prefetch, sweep
from peftbench.system import hub, io, offline_folder

TASK = """
name: {name}
kind: classification
classes: 2
range: null
source: {{hub: people/{name}, revision: {revision}, config: {name}}}
texts: [text]
label: label
splits: {{train: train, validation: validation}}
extra: {{}}
examples: {{train: 64, validation: 8}}
metrics: [accuracy]
"""

FIRST, SECOND = "a" * 40, "b" * 40


@pytest.fixture(autouse=True)
def _somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind in ("task", "shift_dataset"):
        folder = tmp_path / "configs" / kind
        folder.mkdir(parents=True)
    for name in ("jokes", "riddles"):
        own(name, "null")


def own(name, revision, group="task"):
    Path("configs", group, f"{name}.yaml").write_text(TASK.format(name=name, revision=revision))


@pytest.fixture
def commits(monkeypatch):
    """The hub's newest commits, and what it was asked for."""
    newest, asked = {"dataset": FIRST, "model": FIRST}, []

    def resolved(name, kind="model"):
        asked.append((kind, name))
        return newest[kind]

    monkeypatch.setattr(hub, "resolved", resolved)
    monkeypatch.setattr(prefetch, "fetch_from_hub", lambda *given: None)
    return newest, asked


def planned(*words, results="runs"):
    return plan(*records.tiny("method=bitfit", *words), results=results)


@pytest.mark.parametrize("name", ["jokes", "riddles"])
def test_the_commit_is_in_the_run_and_its_key(name, commits):
    found = planned(f"task={name}")
    assert found.runs[0].task.source["revision"] == FIRST
    assert found.revisions == {f"datasets/people/{name}": FIRST}
    own(name, FIRST)
    assert planned(f"task={name}").runs[0].key == found.runs[0].key, "as if it had been pinned"
    assert planned(f"task={name}").revisions == {}
    own(name, SECOND)
    assert planned(f"task={name}").runs[0].key != found.runs[0].key


def test_a_results_folder_keeps_its_commits(commits, monkeypatch):
    newest, asked = commits
    results = ResultsFolder("runs")
    found = planned("task=jokes", "seed=0,1,2")
    assert asked == [("dataset", "people/jokes")], "asked once for all runs"
    assert not results.folder.exists(), "a plan writes nothing"
    for run in found.runs:
        results.save(records.record(run), records.predictions(40))
    sweep.run_plan(found, results, RunOptions(quiet=True))
    newest["dataset"] = SECOND
    again = planned("task=jokes", "seed=0,1,2")
    assert again.runs == found.runs, "months later, or on another machine"
    assert planned("task=jokes", results="elsewhere").runs[0].task.source["revision"] == SECOND
    results.keep_revisions({"datasets/people/jokes": SECOND, "models/x": FIRST})
    assert results.revisions() == {"datasets/people/jokes": FIRST, "models/x": FIRST}
    path = results.folder / "revisions.json"
    path.write_bytes(path.read_bytes().replace(b"aaaa", b"aaab"))
    with pytest.raises(RecordError, match="was altered"):
        planned("task=jokes")


def test_prefetch_brings_the_commits_of_the_results_folder(commits, monkeypatch):
    ResultsFolder("mine").keep_revisions({"datasets/people/jokes": SECOND})
    brought = []
    monkeypatch.setattr(
        prefetch,
        "fill_caches",
        lambda found: [brought.append(run.task.source) for run in found.runs],
    )
    words = ["prefetch", *records.tiny("method=bitfit", "task=jokes")]
    for results in ("mine", "runs"):
        told = CliRunner().invoke(main, [*words, "--results", results])
        assert told.exit_code == 0, told.output
    assert [source["revision"] for source in brought] == [SECOND, FIRST]


def test_a_model_without_a_revision_is_kept_likewise(commits, tmp_path):
    newest, _ = commits
    words = ("model=auto", "model.checkpoint=people/small", "model.family=bert", "task=jokes")
    given = [w for w in records.tiny("method=bitfit", *words) if w != "model=tiny"]
    found = plan(*given, results="runs")
    assert found.revisions == {"models/people/small": FIRST, "datasets/people/jokes": FIRST}
    ResultsFolder("runs").keep_revisions(found.revisions)
    newest |= {"model": SECOND, "dataset": SECOND}
    assert plan(*given, results="runs").runs == found.runs


def test_targets_of_suites_have_their_commit(commits):
    own("riddles", "null", "shift_dataset")
    found = planned("task=jokes", "suite=shift", "suite.targets={riddles: {}}")
    (one,) = found.evaluations
    assert one.suite["targets"]["riddles"]["task"]["source"]["revision"] == FIRST
    assert set(found.revisions) == {"datasets/people/jokes", "datasets/people/riddles"}


def test_a_folder_of_data_needs_no_commit(commits, tmp_path):
    (tmp_path / "data" / "jokes").mkdir(parents=True)
    assert planned("task=jokes", f"data.root={tmp_path / 'data'}").revisions == {}
    assert commits[1] == []


def test_a_prefetched_folder_tells_its_commits(tmp_path, monkeypatch):
    place = tmp_path / "brought"
    told = {"files": {}, "words": [], "revisions": {"datasets/people/jokes": SECOND}}
    io.write_whole(place / "manifest.json", io.sealed(told))
    monkeypatch.setenv(offline_folder.VARIABLE, str(place))
    assert hub.resolved("people/jokes", "dataset") == SECOND
    assert hub.resolved("people/riddles", "dataset") is None
    assert planned("task=jokes").runs[0].task.source["revision"] == SECOND


def test_a_misspelt_folder_of_a_checkpoint_is_said_to_be_none(cache_folder):
    done = CliRunner().invoke(main, ["plan", "model=auto", "model.checkpoint=nope_folder"])
    assert done.exit_code == 2
    assert "no folder nope_folder here, and on the hub: nope_folder: revision not" in done.output
    assert "give model.revision=COMMIT, or use `peftbench run` or" in done.output


def test_a_hub_that_cannot_be_asked(tmp_path, monkeypatch, cache_folder):
    """Offline; a copy in the hub's cache has a commit."""
    with pytest.raises(ConfigError, match=r"people/jokes at its newest commit could not be loaded"):
        planned("task=jokes")
    monkeypatch.setattr(hub, "cache", lambda: tmp_path / "hub")
    here = tmp_path / "hub" / "datasets--people--jokes"
    (here / "snapshots" / SECOND).mkdir(parents=True)
    (here / "refs").mkdir()
    (here / "refs" / "main").write_text(SECOND)
    assert planned("task=jokes").runs[0].task.source["revision"] == SECOND
    assert (cache_folder / "revisions/datasets/people--jokes").read_text() == f"{SECOND}\n"


# what a run would fetch


def test_a_plan_says_what_would_be_fetched(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "cache", lambda: tmp_path / "hub")
    words = ["plan", "model=bert_base,roberta_large", "task=mrpc", "method=lora"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert (
        "to be fetched: google-bert/bert-base-uncased (about 436 MB), FacebookAI/roberta-large "
        "(about 1,420 MB), nyu-mll/glue (size unknown)"
    ) in done.output
    wanted = plan(*words[1:])
    state = status.sweep_status(wanted, ResultsFolder("runs"))
    assert any(line.startswith("to be fetched") for line in checkpoint_lines(state))
    state = replace(state, done={run.key for run in wanted.runs})
    assert checkpoint_lines(state) == []
    told = CliRunner().invoke(main, ["plan", "model=minilm,tiny", "task=synthetic_paraphrase"])
    assert "to be fetched" not in told.output


def test_what_is_in_the_cache_is_not_fetched(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "cache", lambda: tmp_path / "hub")
    found = plan("model=tiny", "task=mrpc", "method=lora")
    source = found.runs[0].task.source
    assert prefetch.to_fetch(found, None) == {"nyu-mll/glue": None}
    assert prefetch.to_fetch(found, str(tmp_path)) == {}, "from a folder"
    here = tmp_path / "hub/datasets--nyu-mll--glue/snapshots" / source["revision"] / "mrpc"
    here.mkdir(parents=True)
    for split in ("train", "validation"):
        assert prefetch.to_fetch(found, None) == {"nyu-mll/glue": None}
        (here / f"{split}-00000-of-00001.parquet").write_bytes(b"")
    assert prefetch.to_fetch(found, None) == {}


@pytest.mark.parametrize(
    ("free", "state"), [(1, doctor.BAD), (3, doctor.ODD), (20, doctor.GOOD)], ids=str
)
def test_doctor_compares_the_room_with_what_is_fetched(free, state, monkeypatch, tmp_path):
    usage = type("Usage", (), {"free": free * 2**30})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    found = doctor.room_for_downloads({"people/large": 2 * 2**30, "people/unknown": None})
    assert found.state == state
    assert "about 2.0 GiB to be fetched" in found.found
    assert bool(found.do) == (state != doctor.GOOD)
