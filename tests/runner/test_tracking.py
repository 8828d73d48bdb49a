"""Finished runs in the files of real trackers; those that are not installed are skipped."""

import csv
import os
import warnings

import pytest
from records import predictions, record, runs

from peftbench.core.errors import ConfigError
from peftbench.results.store import ResultsFolder
from peftbench.runner import tracking
from peftbench.runner.tracking import Tracking, check_trackers
from peftbench.runner.worker_pool import Event

RUNS = runs("method=lora,bitfit", "seed=0")
NEWS = [
    {"step": 1, "fraction": 0.25, "loss": 0.75, "speed": None},
    {"step": 3, "fraction": 0.75, "loss": 0.5, "speed": 32.0},
]


@pytest.fixture
def tracked(tmp_path):
    """A folder of two records, and what hands one over to a tracker."""
    results, heard, told = ResultsFolder(tmp_path / "results"), [], []

    def go(name, elsewhere=False):
        listen = Tracking([name], results, heard.append, told.append)
        for run in RUNS:
            saved = results.save(record(run), predictions())
            for news in NEWS:
                listen(Event("step", 0, run, news))
            listen(Event("done", 0, run, {"elsewhere": elsewhere}))
        assert len(heard) == 3 * len(RUNS)
        return results, saved, told

    return go


def test_csv_has_every_value_with_its_step(tracked):
    results, saved, told = tracked("csv")
    assert not told
    with open(results.trackers() / "csv" / f"{saved.run.key}.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    losses = [(row["step"], float(row["value"])) for row in rows if row["name"] == "train/loss"]
    assert losses == [("1", 0.75), ("3", 0.5)]
    settings = {row["name"]: row["value"] for row in rows if not row["step"]}
    assert settings["method.name"] == saved.run.method.name
    assert float(settings["train.lr"]) == saved.run.train.lr
    final = {row["name"]: float(row["value"]) for row in rows if row["name"].startswith("final/")}
    assert final == {f"final/{name}": pytest.approx(v) for name, v in saved.metrics.items()}


def test_what_others_did_is_not_handed_over(tracked):
    results, _, _ = tracked("csv", elsewhere=True)
    assert not results.trackers().exists()


def test_a_record_that_is_removed_before_it_is_handed_over_costs_nothing_else(tmp_path):
    results, told = ResultsFolder(tmp_path), []
    listen = Tracking(["csv"], results, lambda event: None, told.append)
    results.save(record(RUNS[1]), predictions())
    for run in RUNS:
        listen(Event("done", 0, run, {}))
    (line,) = told
    assert line.startswith(f"--track: {RUNS[0].title} is left out: ")
    assert line.endswith(f"{RUNS[0].key}.json: No such file or directory")
    assert [path.stem for path in (results.trackers() / "csv").iterdir()] == [RUNS[1].key]


def test_tensorboard_reads_the_losses(tracked):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    results, saved, told = tracked("tensorboard")
    assert not told
    found = EventAccumulator(str(results.trackers() / "tensorboard" / saved.run.key)).Reload()
    losses = [(one.step, one.value) for one in found.Scalars("train/loss")]
    assert losses == [(1, 0.75), (3, 0.5)]


def test_mlflow_has_both_runs_in_its_store(tracked, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results, saved, told = tracked("mlflow")
        assert not told
        client = mlflow.MlflowClient(f"sqlite:///{results.trackers().resolve()}/mlflow.db")
        [experiment] = [e for e in client.search_experiments() if e.name == "peftbench"]
        found = client.search_runs([experiment.experiment_id])
    assert {run.data.params["method.name"] for run in found} == {"lora", "bitfit"}
    one = next(run for run in found if saved.run.key in run.info.run_name)
    history = client.get_metric_history(one.info.run_id, "train/loss")
    assert sorted((point.step, point.value) for point in history) == [(1, 0.75), (3, 0.5)]


def test_wandb_writes_its_files_offline(tracked, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    results, _, told = tracked("wandb")
    assert not told
    assert len(list((results.trackers() / "wandb").glob("offline-run-*/run-*.wandb"))) == len(RUNS)


def test_a_tracker_that_fails_is_told_once_and_left_out(tracked, monkeypatch):
    def refuse(name, run, folder):
        raise ConnectionError("no route to the server")

    monkeypatch.setattr(tracking, "_tracker", refuse)
    _, _, told = tracked("csv")
    assert told == ["--track csv is left out from here on: no route to the server"]


def test_unknown_and_missing_trackers_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match="tensorboard"):
        check_trackers(["tensorbord"])
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="install mlflow-skinny sqlalchemy alembic"):
        check_trackers(["mlflow"])
