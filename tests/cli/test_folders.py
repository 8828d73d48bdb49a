"""The commands for whole results folders: `merge`, `gc` and `export records`."""

import json
import os
import time
from dataclasses import replace

import pandas as pd
import pytest
import records
from click.testing import CliRunner

from peftbench.cli.main import main
from peftbench.cluster import bundling, manifest
from peftbench.config import cluster
from peftbench.results.store import ResultsFolder


@pytest.fixture(autouse=True)
def _somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def call(*words, code=0):
    done = CliRunner().invoke(main, words, prog_name="peftbench")
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done.output


def fill(path, *words, score=0.75):
    made = ResultsFolder(path)
    for run in records.runs(*words):
        made.save(records.record(run, score + run.seed / 100), records.predictions())
    return made


# merge


def test_merge_says_what_it_copied_and_refuses_other_numbers():
    a, b = fill("a", "seed=0,1"), fill("b", "seed=2")
    assert call("merge", "a", "b", "-o", "all") == "all: 3 runs (3 new)\n"
    assert call("merge", "a", "b", "-o", "all") == "all: 3 runs (0 new)\n"
    told = json.loads(call("merge", "a", "b", "-o", "all", "--json"))
    assert told["counts"] == {"run": {"total": 3, "new": 0}}
    (again,) = fill("c", "seed=1", score=0.5).keys()
    said = call("merge", "a", "c", "-o", "more", code=2)
    assert f"{again}  lora" in said
    assert "a: accuracy 76" in said
    assert "c: accuracy 51" in said
    assert not ResultsFolder("more").folder.exists()
    assert "kept that of a" in call("merge", "a", "c", "-o", "more", "--keep-first")
    assert ResultsFolder("more").load(again).score == 0.76
    (a.folder / "records" / f"{a.keys()[0]}.json").write_text("{")
    assert "left out: unreadable" in call("merge", "a", "b", "-o", "new", code=1)
    assert len(ResultsFolder("new").keys()) == 2
    assert b.keys()


def test_merge_names_its_own_arguments_where_a_file_is_no_folder(tmp_path):
    fill("a", "seed=0")
    (tmp_path / "all.zip").write_text("")
    assert "-o all.zip is not a folder" in call("merge", "a", "-o", "all.zip", code=2)


def test_warnings_on_costs_come_along():
    for name, told in (("a", "A was busy."), ("b", "B was busy.")):
        fill(name, f"seed={'ab'.index(name)}")
        (ResultsFolder(name).folder / "notes.yaml").write_text(f"costs: {told}\n")
    for _ in range(2):
        call("merge", "a", "b", "-o", "all")
        assert (ResultsFolder("all").folder / "notes.yaml").read_text() == (
            "costs: A was busy. B was busy.\n"
        )


# gc


def old(path, days=40):
    then = time.time() - days * 86_400
    os.utime(path, (then, then))


def submission(results, *words, days=40, cancelled=False):
    """A submission of these runs to this machine, made so many days ago."""
    jobs = records.runs(*words)
    local = cluster.read(["cluster=local"])
    units = bundling.units(jobs, lambda job: 1.0, lambda job: None)
    arrays = bundling.arrays(units, local, 1001, 1)
    made = manifest.begin(words, local, arrays, None, {}, {})
    made = replace(made, submitted=time.time() - days * 86_400, cancelled=cancelled)
    manifest.save(results, made)
    manifest.write_jobs(results, manifest.Task(made.name, 0, 0), jobs)
    return manifest.folder(results, made.name)


def test_gc_lists_what_is_not_needed_and_removes_it_when_told():
    results = fill("results/runs", "seed=0,1")
    done, torn = results.keys()
    (unfinished,) = [run.key for run in records.runs("seed=2")]
    (results.folder / "records" / f"{torn}.json").write_text("{")
    for key in (done, torn, unfinished):
        results.write(results.checkpoint(key), b"1" * 1000)
    drafts = results.folder / "drafts"
    for name in (f"{unfinished}.json-1", "report.md-1", "scores.md-1"):
        (drafts / name).write_bytes(b"2" * 1000)
    old(drafts / "report.md-1", days=1)
    results.write(results.cache("calibration-1.json"), b"3" * 1000)
    results.write(results.cache("frame"), b"new")
    old(results.cache("calibration-1.json"))
    results.write(results.cache("running") / "gone.json", b"torn")
    expected = {
        "checkpoints of finished runs": [results.checkpoint(done)],
        "drafts of killed processes": [drafts / f"{unfinished}.json-1", drafts / "report.md-1"],
        "progress of commands that are over": [results.cache("running") / "gone.json"],
        "old caches": [results.cache("calibration-1.json")],
    }
    listed = [path for paths in expected.values() for path in paths]
    told = json.loads(call("gc", "--json"))
    assert told["removed"] is False
    assert {one["what"]: one["files"] for one in told["garbage"]} == {
        what: list(map(str, paths)) for what, paths in expected.items()
    }
    assert [one["bytes"] for one in told["garbage"]] == [1000, 2000, 4, 1000]
    said = call("gc")
    assert "checkpoints of finished runs: 0.0 MB\n  results/runs/checkpoints/" in said
    assert "nothing was removed, add --yes" in said
    for path in listed:
        assert path.exists()
    before = sorted(path for path in results.folder.rglob("*") if path.is_file())
    call("gc", "--yes")
    after = sorted(path for path in results.folder.rglob("*") if path.is_file())
    assert set(before) - set(after) == set(listed)
    assert call("gc") == "results/runs: nothing to remove\n"


def test_gc_leaves_the_draft_of_a_run_in_progress(monkeypatch):
    results = fill("results/runs", "seed=0")
    (busy,) = [run.key for run in records.runs("seed=1")]
    draft = results.folder / "drafts" / f"{busy}.npz-1"
    draft.write_bytes(b"half")
    claim = ResultsFolder.claim
    monkeypatch.setattr(ResultsFolder, "claim", lambda self, key: key != busy and claim(self, key))
    assert call("gc", "--yes") == "results/runs: nothing to remove\n"
    assert draft.exists()


def test_gc_removes_submissions_that_are_old_and_done():
    results = fill("results/runs", "seed=0,1")
    gone = submission(results, "seed=0,1")
    kept = [submission(results, "seed=0,1", days=3), submission(results, "seed=0,1,2")]
    (told,) = json.loads(call("gc", "--json"))["garbage"]
    assert told["what"] == "finished submissions"
    assert told["files"] == [str(gone / "0_0.json"), str(gone / "manifest.json")]
    call("gc", "--yes")
    assert not gone.exists()
    assert all(path.exists() for path in kept)
    cancelled = submission(results, "seed=3", cancelled=True)
    call("gc", "--yes", "--days", "1")
    assert not cancelled.exists()
    assert kept[1].exists()  # of a run without a record
    assert not kept[0].exists()
    assert len(results.keys()) == 2


# export records


def test_records_are_exported_as_a_table():
    fill("results/runs", "method=lora,bitfit", "seed=0,1")
    assert call("export", "records", "-o", "runs.parquet") == "runs.parquet: 4 records\n"
    assert len(pd.read_parquet("runs.parquet")) == 4
    words = ("export", "records", "runs.csv", "--where", "method=lora seed>0")
    assert call(*words) == "runs.csv: 1 record\n"
    assert pd.read_csv("runs.csv")["score"].tolist() == [0.76]
    for words, said in (
        (["records"], "give one place to write to"),
        (["records", "a.csv", "-o", "b.csv"], "give one place to write to"),
        (["records", "-o", "runs.xls"], "allowed: .csv, .parquet"),
        (["records", "-o", "runs.csv", "--form", "peft"], "takes no options but"),
        (["0123", "-o", "folder", "--where", "seed=0"], "--where selects records"),
    ):
        assert said in call("export", *words, code=2)
