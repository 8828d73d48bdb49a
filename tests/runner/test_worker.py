"""A worker's own part, in this process where it can be: its input, its folder, its causes."""

import bdb
import errno
import io
import json
import os
import queue
import subprocess
import sys
import threading
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import records
import suite_records
import torch
from short_runs import after
from stage import Stage, one

from peftbench.core.errors import ClosedFileError, ConfigError
from peftbench.core.evaluation import job_json
from peftbench.core.failures import FAILURE_KINDS, TRANSIENT_FAILURES
from peftbench.core.runtime import RuntimeConfig
from peftbench.evaluation import evaluator
from peftbench.methods import dry_run
from peftbench.results.store import ResultsFolder
from peftbench.runner import worker
from peftbench.runner.failure_causes import classify, place, reason
from peftbench.training import session, trainer
from peftbench.training.distributed import PeerLost

CPU = RuntimeConfig(device="cpu", threads=1)


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A stage for runs in this process, which is where the stage is."""
    monkeypatch.setenv("ZOO", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(worker, "_told", set())
    return Stage(tmp_path)


def serve(stage, *runs, check=(), together=()):
    """Give a worker orders, in this process; return what it tells."""
    orders = queue.Queue()
    if check:
        orders.put({"check": [run.to_json() for run in check], "suites": []})
    for run in runs:
        orders.put({"jobs": [job_json(run)]})
    if together:
        orders.put({"jobs": [job_json(run) for run in together]})
    orders.put(None)
    told, training = io.StringIO(), threading.Event()
    first = {"results": str(stage.results.folder), "setting": asdict(CPU)}
    worker._serve(first, orders, threading.Event(), training, told)
    return [json.loads(line) for line in told.getvalue().splitlines()]


def wrapped(error, cause):
    error.__cause__ = cause
    return error


OUTSIDE = [
    (OSError(errno.EFBIG, "File too large"), "disk"),  # ulimit -f
    (OSError(errno.EDQUOT, "quota"), "disk"),
    (RuntimeError("I/O error: No space left on device (os error 28)"), "disk"),  # safetensors
    (OSError("[Errno 122] Error writing bytes. Detail: quota"), "disk"),  # Arrow
    (wrapped(ValueError("cannot save"), OSError(errno.ENOSPC, "full")), "disk"),
    (OSError(errno.ESTALE, "Stale file handle"), "system"),
    (OSError(errno.EIO, "Input/output error"), "system"),
    (OSError(errno.EMFILE, "Too many open files"), "system"),
    (RuntimeError("unable to open file: (os error 24)"), "system"),
    (PermissionError(errno.EACCES, "Permission denied"), "system"),
    (ConnectionResetError(errno.ECONNRESET, "reset"), "system"),
    (RuntimeError("can't start new thread"), "system"),
    (PeerLost("killed", "process 1 of the run: the worker was killed by SIGKILL"), "killed"),
    (PeerLost("memory", "killed by the kernel"), "memory"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
    (RuntimeError("unable to mmap 9 bytes from file </m>: Cannot allocate memory (12)"), "memory"),
]


@pytest.mark.parametrize(("error", "kind"), OUTSIDE)
def test_what_comes_from_outside_is_tried_again(error, kind):
    assert classify(error) == kind
    assert kind in FAILURE_KINDS
    assert kind in TRANSIENT_FAILURES or kind == "memory"


def test_what_torch_raises_where_the_machine_has_no_memory_is_memory():
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator") as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert classify(raised.value) == "memory"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (32x28 and 24x2)"),
        ValueError("errno 28"),
        KeyError("28"),
        OSError(errno.ENOENT, "no such file"),
        OSError("no number"),
        IsADirectoryError(errno.EISDIR, "is a directory"),
    ],
)
def test_what_the_code_of_a_run_raises_is_not(error):
    assert classify(error) == "error"


def test_a_reason_says_what_asked_for_a_person():
    for error in (EOFError("EOF when reading a line"), bdb.BdbQuit()):
        told = reason(error)
        assert told.startswith(f"{type(error).__name__}: the method waits for a person (input()")
        assert "\n" not in told
    assert reason(EOFError("Ran out of input")) == "EOFError: Ran out of input"  # pickle's
    assert reason(ValueError("first\nsecond")) == "ValueError: first"
    assert reason(KeyError()) == "KeyError: KeyError"


def test_the_place_of_an_error_is_that_of_the_code_and_not_of_a_debugger():
    def fails():
        raise FloatingPointError

    with pytest.raises(FloatingPointError) as caught:
        fails()
    assert place(caught.value) == f"test_worker.py:{fails.__code__.co_firstlineno + 1}"


def test_a_record_that_nfs_does_not_show_yet_is_not_made_again(tmp_path, monkeypatch):
    """A client shows a new file once the folder has changed here, or after a minute."""
    results, (run,) = ResultsFolder(tmp_path), records.runs("method=lora")
    results.save(records.record(run), {})
    shown, load = (tmp_path / "records").stat().st_mtime_ns, ResultsFolder.load

    def cached(self, key):
        if (self.folder / "records").stat().st_mtime_ns == shown:
            raise FileNotFoundError(key)
        return load(self, key)

    monkeypatch.setattr(ResultsFolder, "load", cached)
    assert not results.done(run)
    told = []
    doing = worker._JobRunner(results, CPU, None, lambda: False, lambda e, **more: told.append(e))
    assert not doing._enter(run)
    assert told == ["done"]
    assert [path.name for path in (tmp_path / "records").iterdir()] == [f"{run.key}.json"]


def test_a_gpu_that_cannot_be_used_is_told_once_before_any_run(stage, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "CPU", RuntimeConfig(device="cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    told = serve(stage)
    assert told == [
        {"event": "refused", "reason": "--device cuda: torch sees no GPU here; use --device cpu"}
    ]


def test_an_evaluation_of_a_run_that_is_removed_meanwhile_is_not_kept(tmp_path, monkeypatch):
    (evaluation,) = suite_records.planned("suite=noise", "method=lora")
    results, told = ResultsFolder(tmp_path), []
    results.save(records.record(evaluation.run), records.predictions())

    def evaluate(job, store, *_, **__):
        for path in store.files_of(job.run.key):
            path.unlink()  # as `rm` does
        return suite_records.noisy(job, 0.75), records.predictions()

    monkeypatch.setattr(evaluator, "evaluate_suite", evaluate)
    tell = lambda event, **_: told.append(event)  # noqa: E731
    worker._JobRunner(results, CPU, None, lambda: False, tell).one(evaluation)
    assert (told[-1], results.evaluations()) == ("failed", [])
    note = results.failure(evaluation.key)
    assert note.kind == "data"
    assert f"the record of {evaluation.run.key} was removed during this evaluation" in note.reason


INPUT = """
import os, subprocess, sys
from peftbench.runner.worker import take_input
taken = take_input()
try:
    input()
except EOFError as error:
    print(error)
child = [sys.executable, "-c", "import sys; print(repr(sys.stdin.read()))"]
print(subprocess.run(child, capture_output=True, text=True).stdout.strip())
print(taken.readline().strip())
"""


def test_orders_are_for_the_worker_and_input_is_empty_for_all_else():
    done = subprocess.run(
        [sys.executable, "-c", INPUT], input="an order\n", capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["EOF when reading a line", "''", "an order"], done.stderr


@pytest.mark.parametrize(("trains", "seconds"), [(False, 1), (True, worker.GRACE)])
def test_without_a_supervisor_only_a_training_gets_time_for_its_checkpoint(
    monkeypatch, trains, seconds
):
    told = []
    monkeypatch.setattr(worker.time, "sleep", told.append)
    monkeypatch.setattr(worker.os, "_exit", told.append)
    training, stop, orders = threading.Event(), threading.Event(), queue.Queue()
    if trains:
        training.set()
    worker._listen(io.StringIO('{"jobs": []}\n'), orders, stop, training)
    assert told == [seconds, 1]
    assert stop.is_set()
    assert [orders.get(), orders.get()] == [{"jobs": []}, None]


def test_a_method_that_changes_the_folder_leaves_its_record_where_it_belongs(stage):
    run = one(stage, "method=wanders", "budget.steps=2")
    after_it = one(stage, "method=steady", "budget.steps=2")
    stage.results = ResultsFolder(stage.folder / "runs")
    told = serve(stage, run, after_it, check=[run])
    assert [one["event"] for one in told if one["event"] != "step"] == [
        *("ready", "checked", "done", "ready", "done", "ready")
    ]
    assert {run.key, after_it.key} == set(stage.results.keys())
    assert os.getcwd() == str(stage.folder)


def test_a_method_that_asks_is_an_error_with_a_reason(stage, monkeypatch):
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        told = serve(stage, run := one(stage, "method=asks", "budget.steps=2"))
    (failed,) = (one for one in told if one["event"] == "failed")
    assert failed["kind"] == "error"
    assert "the method waits for a person" in failed["reason"]
    assert stage.results.failure(run.key).reason == failed["reason"]


def test_code_that_raises_what_it_likes_is_refused_by_the_check_with_its_place(stage, monkeypatch):
    def fails(run):
        raise KeyError("querry")

    monkeypatch.setattr(dry_run, "check_prompt", fails)
    run = one(stage, "method=steady")
    (error,) = serve(stage, check=[run])[1]["errors"]
    assert error.startswith(f"{run.title}: KeyError: 'querry' (in test_worker.py:")


@pytest.mark.filterwarnings("always")
def test_a_bad_checkpoint_is_told_to_the_person(stage):
    run = one(stage, "method=lora", "budget.steps=6")
    with pytest.raises(session.TrainingInterrupted):
        trainer.execute(run, CPU, results=stage.results, stop=after(3))
    path = stage.results.checkpoint(run.key)
    body = bytearray(path.read_bytes())
    body[-7] ^= 1
    path.write_bytes(body)
    told = serve(stage, run)
    (note,) = (one["text"] for one in told if one["event"] == "note")
    assert note.startswith(f"{run.title}: checkpoint {run.key}.safetensors was altered")
    assert note.endswith("the run starts again")
    assert not stage.results.load(run.key).work["resumed"]


def test_a_claim_that_fails_later_is_noted_and_ends_no_worker(stage, monkeypatch):
    """Simulated: the lock service of the file server is gone when the run's turn comes."""
    runs = [one(stage, "method=steady", f"seed={seed}", "budget.steps=2") for seed in (0, 1)]
    real = ResultsFolder.claim

    def claim(self, key):
        if key == runs[0].key:
            raise OSError(errno.ENOLCK, "No locks available")
        return real(self, key)

    monkeypatch.setattr(ResultsFolder, "claim", claim)
    told = serve(stage, *runs)
    events = {
        one["key"]: SimpleNamespace(**one) for one in told if one["event"] in ("done", "failed")
    }
    assert events[runs[0].key].kind == "system"
    assert "No locks available" in events[runs[0].key].reason
    assert events[runs[1].key].event == "done"


@pytest.mark.parametrize("method", ["steady", "bitfit"])
def test_a_pack_leaves_alone_what_another_process_has_and_what_cannot_be_read(
    stage, monkeypatch, method
):
    runs = [one(stage, f"method={method}", f"seed={n}", "budget.steps=2") for n in (0, 1, 2)]
    held, trained, closed = (run.key for run in runs)
    claim, done, released = ResultsFolder.claim, ResultsFolder.done, []
    monkeypatch.setattr(ResultsFolder, "claim", lambda s, key: key != held and claim(s, key))

    def unreadable(self, job):
        if job.key == closed:
            raise ClosedFileError("records cannot be read: Permission denied")
        return done(self, job)

    release = ResultsFolder.release
    monkeypatch.setattr(ResultsFolder, "done", unreadable)
    monkeypatch.setattr(
        ResultsFolder, "release", lambda s, key: released.append(key) or release(s, key)
    )
    log = stage.results.log(held)
    log.parent.mkdir(parents=True)
    log.write_text("of the process that has it")
    told = serve(stage, together=runs)
    assert told[-1] == {"event": "ready"}
    events = [(one["event"], one["key"]) for one in told if one["event"] != "step" and "key" in one]
    events = [(event, key) for event, key in events if event not in ("begun", "note")]
    assert events[0] == ("held", held)
    assert sorted(events[1:]) == [("done", trained), ("failed", closed)]
    assert log.read_text() == "of the process that has it"
    assert stage.results.log(trained).read_text().startswith(runs[1].title)
    assert {trained, closed} <= set(released)
    assert held not in released


def test_a_log_of_a_colleague_is_replaced(stage):
    """Root may write to any file, so that the check is of the file that is there afterwards."""
    run = one(stage, "method=steady", "budget.steps=2")
    log = stage.results.log(run.key)
    log.parent.mkdir(parents=True)
    log.write_text("theirs")
    log.chmod(0o444)
    before = log.stat().st_ino
    keep = os.open(log, os.O_RDONLY)  # or the new file may get the number of the old one
    serve(stage, run)
    assert log.stat().st_ino != before
    assert os.read(keep, 10) == b"theirs"
    os.close(keep)
    assert log.read_text().startswith(run.title)


def test_a_run_without_data_is_still_bad_data():
    assert classify(ConfigError("no data")) == "data"
