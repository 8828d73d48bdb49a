"""Runs that are stopped by signals, and go on to what they would have been."""

import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
from short_runs import losses
from stage import Stage, finish, first_child, gone, no_traceback, one, wait_gone

from peftbench.core.runtime import RuntimeConfig
from peftbench.training import trainer

pytestmark = pytest.mark.slow  # processes that load torch, one after the other

#: A run that does not end before it is stopped, on busy cores too.
LONG = ("method=slow", "budget.steps=240")


def tell_stops(stage):
    """A long run is stopped in four ways and goes on each time."""
    stage.switch(slow=True)
    told = SimpleNamespace(stage=stage, stops={}, key=one(stage, *LONG).key)
    words = ("method=slow,steady", *LONG[1:], "--workers", "1")
    for name in ("early SIGTERM", "SIGINT", "SIGTERM", "SIGKILL"):
        process = stage.start(*words)
        if name.startswith("early"):  # while the worker loads its libraries
            worker = first_child(process)
        else:
            worker = stage.next_training("slow", process, len(stage.trained("slow")))
            stage.some_steps(worker)
        process.send_signal(getattr(signal, name.split()[-1]))
        stopped = finish(process)
        told.stops[name] = stopped
        stopped.worker_left = gone(worker)
        wait_gone(worker)
        stopped.records = stage.files("records")
        stopped.drafts = stage.files("drafts")
        stopped.checkpoint = stage.results.checkpoint(told.key).exists()
    process = stage.start(*words)
    worker = stage.next_training("slow", process, 3)
    stage.some_steps(worker)
    os.kill(worker, signal.SIGTERM)  # the worker alone, as a cluster's scheduler may do
    stage.next_training("slow", process, 4)
    stage.switch(slow=False)
    told.end = finish(process)
    return told


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    return tell_stops(Stage(tmp_path_factory.mktemp("stops")))


@pytest.mark.parametrize("name", ["early SIGTERM", "SIGINT", "SIGTERM"])
def test_a_stopped_command_says_how_to_go_on(told, name):
    stopped = told.stops[name]
    assert stopped.code == 130
    assert no_traceback(stopped)
    last = stopped.err.splitlines()[-1]
    assert last.startswith("stopped; finished runs are kept")
    assert "peftbench run model=tiny" in last
    assert "--results runs" in last
    assert stopped.worker_left, "a worker outlived its supervisor"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_whatever_ends_the_supervisor_leaves_a_checkpoint_and_nothing_half(told, name):
    stopped = told.stops[name]
    assert stopped.records == []
    assert stopped.drafts == []
    assert stopped.checkpoint
    assert told.stage.files("failures") == []


def test_a_run_that_was_stopped_four_times_is_the_run_that_never_was(told, monkeypatch):
    assert told.end.code == 0, told.end.err
    assert len(told.stage.trained("slow")) == 5
    assert not told.stage.results.checkpoint(told.key).exists()
    monkeypatch.setenv("ZOO", str(told.stage.folder))
    whole = trainer.execute(one(told.stage, *LONG), RuntimeConfig(device="cpu", threads=1))
    record = told.stage.results.load(told.key)
    np.testing.assert_array_equal(
        told.stage.results.predictions(record)["scores"], whole.predictions["scores"]
    )
    assert record.metrics == whole.record.metrics
    assert record.work == whole.record.work | {"resumed": True}
    assert record.seconds["train"] == pytest.approx(record.curve[-1]["seconds"])
    assert losses(record) == losses(whole.record)
