"""Workers that train several runs at a time, and are killed."""

import os
import signal
from types import SimpleNamespace

import pytest
from stage import Stage, finish

pytestmark = pytest.mark.slow  # processes that load torch, one after the other


def tell_pack(stage):
    """A worker that trains two runs at a time is killed in its calibration, another in a pair."""
    stage.switch(slow=True)
    words = ("method=slow", "seed=range(0,6)", "budget.steps=4", "--workers", "1", "--pack", "2")
    process = stage.start(*words)
    os.kill(stage.next_training("slow", process), signal.SIGKILL)
    os.kill(stage.next_training("slow", process, 5), signal.SIGKILL)  # after two calibrations
    told = SimpleNamespace(stage=stage, first=finish(process))
    told.notes = {key: stage.results.failure(key) for key in stage.results.failed()}
    told.records = stage.files("records")
    told.trained = len(stage.journal)
    stage.switch(slow=False)
    told.again = stage.run(*words)
    return told


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    return tell_pack(Stage(tmp_path_factory.mktemp("pack")))


def test_a_killed_pack_loses_what_it_had_begun_and_nothing_else(told):
    assert told.first.code == 1
    assert {note.kind for note in told.notes.values()} == {"killed"}
    assert 2 <= len(told.notes) <= 3  # the run that was calibrated for, and one pair
    assert len(told.records) == 6 - len(told.notes)  # what it had not begun went to another worker


def test_after_that_the_same_command_trains_only_what_is_missing(told):
    assert told.again.code == 0, told.again.said
    assert len(told.stage.journal) - told.trained == len(told.notes)
    keys = told.stage.results.keys()
    assert len(keys) == 6
    assert any(told.stage.results.load(key).work.get("packed_with") for key in keys)
