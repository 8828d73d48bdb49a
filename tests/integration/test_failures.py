"""Each kind of failed run, in one command that goes on with the others; then again."""

import json
import os
import signal
from types import SimpleNamespace

import pytest
from stage import Stage, finish, no_traceback, parent

from peftbench.core.failures import FAILURE_KINDS

pytestmark = pytest.mark.slow  # processes that load torch, one after the other

MISBEHAVING = "method=slow,breaks,leaves,hungry,starved,diverges,constant,steady"

GOOD = {"steady", "hungry", "constant"}


def tell_zoo(stage):
    """Every misbehaviour in one command; then again; then repaired; then again."""
    stage.switch(broken=True, leaving=True, slow=True)
    words = (MISBEHAVING, "--workers", "1")
    first = stage.start(*words)
    killed = stage.next_training("slow", first)
    child = parent(killed) == first.pid
    os.kill(killed, signal.SIGKILL)
    told = SimpleNamespace(stage=stage, child=child, first=finish(first))
    told.notes = {
        path.stem: json.loads(path.read_text())
        for path in (stage.results.folder / "failures").glob("*.json")
    }
    told.logs = {path.stem: path.read_text() for path in (stage.results.folder / "logs").iterdir()}
    told.records = {record.run.method.name: record for record in stage.results.scan()[0]}
    stage.switch(leaving=False, slow=False)
    before = stage.journal
    told.second = stage.run(*words)
    told.second_trained = [method for method, _ in stage.journal[len(before) :]]
    stage.switch(broken=False)
    before = stage.journal
    more = ("method=breaks,starved,constant", "seed=0,1", "--workers", "1")
    told.third = stage.run(*more, "--retry", "error,memory", "--fail-fast")
    told.third_trained = [method for method, _ in stage.journal[len(before) :]]
    good = ("method=steady,breaks,leaves,hungry,constant,slow", "--workers", "1")
    before = stage.journal
    told.fourth = stage.run(*good)
    told.fourth_trained = stage.journal[len(before) :]
    return told


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    return tell_zoo(Stage(tmp_path_factory.mktemp("zoo")))


def test_failed_runs_leave_the_others_alone(told):
    assert told.first.code == 1
    assert no_traceback(told.first)
    assert set(told.records) == GOOD
    assert told.first.said.count("unreadable") == 0


def test_each_failure_has_its_class_its_reason_and_its_log(told):
    found = {note["run"]["method"]["name"]: note for note in told.notes.values()}
    assert {name: note["kind"] for name, note in found.items()} == {
        "breaks": "error",
        "leaves": "exit",
        "starved": "memory",
        "diverges": "diverged",
        "slow": "killed",
    }
    assert found["breaks"]["reason"] == "RuntimeError: something broke"
    assert found["leaves"]["reason"] == "the worker ended with exit code 3"
    assert found["slow"]["reason"] == "the worker was killed by SIGKILL"
    assert "at step 3" in found["diverges"]["reason"]
    for key, note in told.notes.items():
        name = note["run"]["method"]["name"]
        assert note["kind"] in FAILURE_KINDS
        line = next(x for x in told.first.err.splitlines() if x.startswith(f"failed: {name} "))
        assert note["kind"] in line
        assert note["reason"] in line
        assert f"{key}.log" in line


def test_the_log_of_a_failed_run_has_the_traceback(told):
    key = next(k for k, note in told.notes.items() if note["run"]["method"]["name"] == "breaks")
    log = told.logs[key]
    assert log.startswith("breaks · synthetic_paraphrase · tiny")
    assert "Traceback (most recent call last)" in log
    assert "zoo.py" in log
    assert "RuntimeError: something broke\nand more about it" in log


def test_the_killed_worker_was_the_supervisors_child(told):
    assert told.child


def test_out_of_memory_halves_the_micro_batch_at_the_same_batch(told):
    work = told.records["hungry"].work
    assert work["micro_batch_size"] == 4
    assert work["examples"] == 4 * 16
    assert told.records["steady"].work["micro_batch_size"] == 16


def test_a_collapsed_run_is_a_result(told):
    record = told.records["constant"]
    assert record.collapsed
    assert record.metrics["f1"] == 0
    assert "collapsed" in told.first.err


def test_failures_from_outside_are_tried_again_and_others_not(told):
    assert sorted(told.second_trained) == ["leaves", "slow"], told.second.said
    assert told.second.code == 1
    for name in ("breaks", "starved", "diverges"):
        lines = [x for x in told.second.err.splitlines() if x.startswith(f"failed: {name} ")]
        assert len(lines) == 1
        assert "not tried again; see --retry" in lines[0]
    for name in ("leaves", "slow"):
        assert not [x for x in told.second.err.splitlines() if x.startswith(f"failed: {name} ")]


def test_retry_takes_up_the_classes_that_it_names(told):
    assert told.third_trained[:2] == ["breaks", "breaks"]
    assert "failed: breaks" not in told.third.err


def test_fail_fast_stops_at_the_first_failure(told):
    assert told.third.code == 1
    assert told.third_trained[2:] == ["hungry"] * 5  # one run: 16 examples a pass, 8, 4, 2, 1
    assert "failed: starved" in told.third.err
    assert "without a record: 3 of 6 runs" in told.third.err


def test_the_same_command_again_trains_nothing(told):
    assert told.fourth.code == 0
    assert told.fourth_trained == []
    assert "6 done, 0 missing" in told.fourth.err
    assert "breaks" in told.fourth.out
