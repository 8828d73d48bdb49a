"""What goes wrong on real machines, done to real processes.

A worker needs seconds to load its libraries, so the commands of this file are told as a few
stories that start when the first test does, run beside each other, and are looked at from all sides
by the tests.
"""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import zoo
from records import tiny
from short_runs import after, losses
from tiny import METHODS

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import FAILURE_KINDS, explain_exit
from peftbench.data.tokenization import cache_folder
from peftbench.results.store import Results
from peftbench.runner.worker import _check as check_runs
from peftbench.runner.worker import classify
from peftbench.training import loop, trainer
from peftbench.training.runtime import RuntimeConfig

#: Seconds after which a test would rather fail than wait.
PATIENCE = 300

CPU = RuntimeConfig(device="cpu", threads=1)


class Stage:
    """A folder in which commands run: configurations, switches and journal of the zoo, results."""

    def __init__(self, folder):
        self.folder = folder
        self.configs = zoo.write_configs(folder / "configs")
        self.results = Results(folder / "runs")
        self.switch(slow=False)

    def switch(self, **states):
        """Put files of these names into the folder, or take them away."""
        for name, on in states.items():
            (self.folder / name).touch() if on else (self.folder / name).unlink(missing_ok=True)

    @property
    def environment(self):
        """That of commands; bytecode is kept, or every worker would compile its libraries."""
        inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        path = [str(Path(zoo.__file__).parent), *inherited.get("PYTHONPATH", "").split(":")]
        return inherited | {"ZOO": str(self.folder), "PYTHONPATH": ":".join(filter(None, path))}

    def start(self, *words, results=None):
        """Start `peftbench run`."""
        command = [sys.executable, "-m", "peftbench", "run", *tiny(*words)]
        command += ["--device", "cpu", "--threads", "1", "--results", str(results or "runs")]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words, results=None):
        """`peftbench run`, to its end."""
        return finish(self.start(*words, results=results))

    @property
    def journal(self):
        """(method, process) of every training that was started."""
        path = self.folder / "journal"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(line.split()[0], int(line.split()[1])) for line in lines]

    def trained(self, method):
        """Processes that started a training of the method, in order."""
        return [pid for name, pid in self.journal if name == method]

    def next_training(self, method, process, already=0):
        """The worker that takes up its `already`+1st training of a method."""
        end = time.monotonic() + PATIENCE
        while len(self.trained(method)) <= already:
            assert time.monotonic() < end, "no training has started"
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        return self.trained(method)[already]

    def files(self, kind):
        """Names of the files of a kind in the results folder."""
        return sorted(path.name for path in (self.results.folder / kind).glob("*"))


def finish(process):
    """Wait for a command; what it said and gave."""
    out, err = process.communicate(timeout=PATIENCE)
    return SimpleNamespace(code=process.returncode, out=out, err=err, said=out + err)


def gone(pid):
    """Whether a process has ended; one that nobody has asked after is a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_gone(pid):
    end = time.monotonic() + PATIENCE
    while not gone(pid):
        assert time.monotonic() < end, f"process {pid} is still there"
        time.sleep(0.05)


def first_child(process):
    """The first process that a command starts."""
    end = time.monotonic() + PATIENCE
    while not (found := Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()):
        assert time.monotonic() < end, "no worker was started"
        time.sleep(0.02)
    return int(found.split()[0])


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def one(stage, *words):
    (run,) = plan(*tiny(*words), configs=stage.configs).runs
    return run


# the stories

MISBEHAVING = "method=slow,breaks,leaves,hungry,starved,diverges,constant,steady"


def tell_zoo(stage):
    """Every misbehaviour in one command; then again; then mended; then again."""
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


def tell_twins(stage):
    """Two commands at once on one folder; then two of its records are damaged."""
    words = ("method=steady", "seed=range(0,6)", "--workers", "1")
    processes = [stage.start(*words), stage.start(*words)]
    told = SimpleNamespace(stage=stage, twins=[finish(process) for process in processes])
    told.journal = stage.journal
    keys = stage.results.keys()
    told.keys = keys
    told.before = {key: stage.results.predictions(stage.results.load(key)) for key in keys}
    edited, truncated = (stage.results.folder / "records" / f"{key}.json" for key in keys[:2])
    edited.write_text(edited.read_text().replace('"seed": ', '"seed": 1', 1))
    truncated.write_bytes(truncated.read_bytes()[:700])
    told.planned = subprocess.run(
        [sys.executable, "-m", "peftbench", "plan", *tiny(*words[:2]), "--results", "runs"],
        cwd=stage.folder,
        env=stage.environment,
        capture_output=True,
        text=True,
    )
    told.again = stage.run(*words, "--quiet")
    told.trained_again = len(stage.journal) - len(told.journal)
    told.after = {key: stage.results.predictions(stage.results.load(key)) for key in keys}
    return told


LONG = (
    "method=slow",
    "budget.steps=240",
)  # it must not end before it is stopped, on busy cores too


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
            time.sleep(0.5)
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
    time.sleep(0.5)
    os.kill(worker, signal.SIGTERM)  # the worker alone, as a cluster's scheduler may do
    stage.next_training("slow", process, 4)
    stage.switch(slow=False)
    told.end = finish(process)
    return told


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


def tell_full_disk(stage):
    """The disk is full when the first record is to be written."""
    room = os.statvfs(stage.disk)
    filler = stage.disk / "filler"
    filler.write_bytes(b"x" * (room.f_bavail * room.f_frsize - 2 * room.f_frsize))
    stage.results = Results(stage.disk / "runs")
    words = ("method=steady", "seed=0,1", "--workers", "1")
    told = SimpleNamespace(stage=stage, full=stage.run(*words, results=stage.results.folder))
    told.records, told.drafts = stage.files("records"), stage.files("drafts")
    return told


STORIES = {
    "zoo": tell_zoo,
    "stops": tell_stops,
    "twins": tell_twins,
    "pack": tell_pack,
    "full_disk": tell_full_disk,
}


@contextmanager
def small_disk(folder):
    """A file system of 256 KiB, where root on Linux can make one; else None."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="module", autouse=True)
def stories(request, tmp_path_factory):
    """The stories that tests of this session look at, as futures; two run at a time."""
    calls = (getattr(item, "callspec", None) for item in request.session.items)
    wanted = {call.params.get("told") for call in calls if call}
    with (
        small_disk(tmp_path_factory.mktemp("mounts") / "disk") as disk,
        ThreadPoolExecutor(max_workers=2) as pool,
    ):
        futures = {}
        for name, tell in STORIES.items():
            if name in wanted and (name != "full_disk" or disk is not None):
                stage = Stage(tmp_path_factory.mktemp(name))
                stage.disk = disk
                futures[name] = pool.submit(tell, stage)
        yield futures


def about(name):
    """The story that a test looks at, as its argument `told`."""
    return pytest.mark.parametrize("told", [name], indirect=True)


@pytest.fixture
def told(stories, request):
    if request.param not in stories:
        pytest.skip("no small disk can be mounted here")
    return stories[request.param].result()


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A stage for runs in this process."""
    monkeypatch.setenv("ZOO", str(tmp_path))
    return Stage(tmp_path)


def no_traceback(done):
    assert "Traceback" not in done.said, done.said
    return True


# in this process, while the stories run


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FloatingPointError("the loss is nan"), "diverged"),
        (torch.OutOfMemoryError("CUDA"), "memory"),
        (MemoryError(), "memory"),
        (OSError(errno.ENOSPC, "full"), "disk"),
        (OSError(errno.EROFS, "read-only"), "disk"),
        (OSError(errno.ENOENT, "no such file"), "error"),
        (ConfigError("no data"), "data"),
        (ValueError("a bug"), "error"),
    ],
)
def test_an_exception_has_a_class(error, kind):
    assert classify(error) == kind
    assert kind in FAILURE_KINDS


def test_the_end_of_a_process_has_a_class():
    assert explain_exit(3, 0) == ("exit", "the worker ended with exit code 3")
    assert explain_exit(0, 0)[0] == "exit"
    assert explain_exit(-signal.SIGKILL, 0)[0] == "killed"
    assert explain_exit(-signal.SIGSEGV, 1) == ("killed", "the worker was killed by SIGSEGV")
    assert explain_exit(-60, 0) == ("killed", "the worker was killed by signal 60")
    kind, reason = explain_exit(-signal.SIGKILL, 1)
    assert kind == "memory"
    assert "fewer --workers" in reason


@pytest.mark.parametrize(
    "words",
    [
        ("method=lora", "method.dropout=0.5"),
        ("method=full", "train.precision=fp32"),
        ("method=full", "select=holdout", "select.fraction=0.25", "train.evaluations=4"),
        ("method=robust_partial", "method.choose=lisa", "method.interval=3", "method.part=0.5"),
        ("method=bayes_hybrid", "method.noise=flipout"),
        ("method=sparse_adapter", "method.score=learned"),
        *((f"method={name}",) for name in METHODS),
    ],
    ids=" ".join,
)
def test_an_interrupted_training_continues_exactly(stage, words):
    run = one(stage, *words, "budget.steps=12", "train.lr=1e-2")
    whole = trainer.execute(run, CPU)
    again = trainer.execute(run, CPU)
    assert whole.record.work["steps"] == again.record.work["steps"]
    np.testing.assert_array_equal(whole.predictions["scores"], again.predictions["scores"])
    for steps in (2, 4):
        with pytest.raises(loop.TrainingInterrupted, match="stopped at step"):
            trainer.execute(run, CPU, results=stage.results, stop=after(steps))
        assert stage.results.checkpoint(run.key).exists()
    parts = trainer.execute(run, CPU, results=stage.results)
    for name, array in whole.predictions.items():
        np.testing.assert_array_equal(parts.predictions[name], array)
    assert parts.record.metrics == whole.record.metrics
    assert parts.record.work == whole.record.work | {"resumed": True}
    assert losses(parts.record) == losses(whole.record)


def test_a_torn_checkpoint_costs_time_and_nothing_else(stage):
    run = one(stage, "method=lora", "budget.steps=6")
    whole = trainer.execute(run, CPU)
    path = stage.results.checkpoint(run.key)
    for torn in (lambda body: body[:-100], lambda body: b""):
        with pytest.raises(loop.TrainingInterrupted):
            trainer.execute(run, CPU, results=stage.results, stop=after(3))
        path.write_bytes(torn(path.read_bytes()))
        with pytest.warns(UserWarning, match="is torn; the run starts again"):
            parts = trainer.execute(run, CPU, results=stage.results)
        np.testing.assert_array_equal(parts.predictions["scores"], whole.predictions["scores"])
        path.unlink()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("method.rank=0",), "rank must be a whole number of at least 1, got 0"),
        (("method.rank=4.5",), "rank must be a whole number of at least 1, got 4.5"),
        (("method.dropout=2",), "dropout must be a number from 0 to 0.9"),
        (("method.targets=[querry]",), "'querry' is no role; the roles are attention, query"),
        (("method.targets=[attn_norm]",), "LoRA updates linear layers"),
        (("method=starved", "method.room=null"), ""),
        (("method._target_=zoo.Nothing",), "cannot import zoo.Nothing"),
        (("method._target_=os.system",), "cannot import os.system"),
        (("method._target_=zoo.Steady",), "takes [], got ['alpha'"),
        (("task=mrpc", "data.root=/nowhere"), "there is no folder /nowhere"),
        (("task=mrpc", "data.root=."), "no mrpc/train-*.parquet in ."),
    ],
)
def test_what_planning_cannot_see_is_refused_before_the_first_run(stage, words, message):
    planned = plan(*tiny(*words), configs=stage.configs)
    setting = RuntimeConfig(device="cpu", data_root=planned.data_root)
    errors = check_runs(planned.runs, [], setting)["errors"]
    assert message in " ".join(errors)
    assert bool(errors) == bool(message)


@pytest.fixture
def small_run(stage):
    """A run on a hundred texts, which take no time to tokenise."""
    rows = [{"sentence": f"text {n}", "label": ("no", "yes")[n % 2]} for n in range(100)]
    path = stage.folder / "small.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return one(stage, "method=lora", "task=file", f"task.path={path}")


def test_a_corrupt_cache_of_tokens_is_named_and_made_again(stage, small_run, monkeypatch):
    monkeypatch.setenv("PEFTBENCH_CACHE", str(stage.folder / "cache"))
    whole = trainer.execute(small_run, CPU)
    files = sorted(cache_folder().glob("*.tokens"))
    assert len(files) == 2
    flipped = bytearray(files[0].read_bytes())
    flipped[-5] ^= 1
    files[0].write_bytes(flipped)
    files[1].write_bytes(files[1].read_bytes()[:100])
    with pytest.warns(UserWarning, match="corrupt and are made again") as warned:
        again = trainer.execute(small_run, CPU)
    assert len(warned) == 2
    np.testing.assert_array_equal(again.predictions["scores"], whole.predictions["scores"])
    trainer.execute(small_run, CPU)  # without a warning


def test_a_cache_that_cannot_be_written_costs_time_and_nothing_else(stage, small_run, monkeypatch):
    (stage.folder / "file").write_text("")
    monkeypatch.setenv("PEFTBENCH_CACHE", str(stage.folder / "file"))
    with pytest.warns(UserWarning, match="tokens are not kept"):
        trainer.execute(small_run, CPU)


def test_a_budget_of_seconds_counts_training_alone(stage):
    run = one(stage, "method=clocked", "budget=seconds", "budget.seconds=1", "train.evaluations=3")
    record = trainer.execute(run, CPU).record
    assert record.seconds["evaluate"] > 3 * 0.2
    step = record.seconds["train"] / record.work["steps"]
    overshoot = record.work["overshoot_seconds"]
    assert record.work["steps"] > 2
    assert 0 <= overshoot < 5 * step
    assert record.seconds["train"] == pytest.approx(1 + overshoot, abs=0.1)
    assert record.curve[-1]["seconds"] == pytest.approx(1 + overshoot)
    assert [point["fraction"] for point in record.curve] == sorted(
        point["fraction"] for point in record.curve
    )
    assert len(record.curve) == 3


# a run that fails takes nothing else with it

GOOD = {"steady", "hungry", "constant"}


@about("zoo")
def test_failed_runs_leave_the_others_alone(told):
    assert told.first.code == 1
    assert no_traceback(told.first)
    assert set(told.records) == GOOD
    assert told.first.said.count("unreadable") == 0


@about("zoo")
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


@about("zoo")
def test_the_log_of_a_failed_run_has_the_traceback(told):
    key = next(k for k, note in told.notes.items() if note["run"]["method"]["name"] == "breaks")
    log = told.logs[key]
    assert log.startswith("breaks · builtin_paraphrase · tiny")
    assert "Traceback (most recent call last)" in log
    assert "zoo.py" in log
    assert "RuntimeError: something broke\nand more about it" in log


@about("zoo")
def test_the_killed_worker_was_the_supervisors_child(told):
    assert told.child


@about("zoo")
def test_out_of_memory_halves_the_micro_batch_at_the_same_batch(told):
    work = told.records["hungry"].work
    assert work["micro_batch"] == 4
    assert work["examples"] == 4 * 16
    assert told.records["steady"].work["micro_batch"] == 16


@about("zoo")
def test_a_collapsed_run_is_a_result(told):
    record = told.records["constant"]
    assert record.collapsed
    assert record.metrics["f1"] == 0
    assert "collapsed" in told.first.err


@about("zoo")
def test_failures_from_outside_are_tried_again_and_others_not(told):
    assert sorted(told.second_trained) == ["leaves", "slow"]
    assert told.second.code == 1
    for name in ("breaks", "starved", "diverges"):
        lines = [x for x in told.second.err.splitlines() if x.startswith(f"failed: {name} ")]
        assert len(lines) == 1
        assert "not tried again; see --retry" in lines[0]
    for name in ("leaves", "slow"):
        assert not [x for x in told.second.err.splitlines() if x.startswith(f"failed: {name} ")]


@about("zoo")
def test_retry_takes_up_the_classes_that_it_names(told):
    assert told.third_trained[:2] == ["breaks", "breaks"]
    assert "failed: breaks" not in told.third.err


@about("zoo")
def test_fail_fast_stops_at_the_first_failure(told):
    assert told.third.code == 1
    assert told.third_trained[2:] == ["hungry"] * 5  # one run: 16 examples a pass, 8, 4, 2, 1
    assert "failed: starved" in told.third.err
    assert "3 of 6 runs have no record" in told.third.err


@about("zoo")
def test_the_same_command_again_trains_nothing(told):
    assert told.fourth.code == 0
    assert told.fourth_trained == []
    assert "6 done, 0 missing" in told.fourth.err
    assert "breaks" in told.fourth.out


# two commands at once, damaged records


@about("twins")
def test_two_commands_on_one_folder_share_the_work(told):
    assert [done.code for done in told.twins] == [0, 0]
    assert len(told.journal) == len(told.keys) == 6
    for done in told.twins:
        assert no_traceback(done)
        assert "6/6" in done.err
        assert "steady" in done.out
        assert "(6)" in done.out


@about("twins")
def test_damaged_records_are_named_and_made_again(told):
    assert told.planned.returncode == 0
    assert "4 done, 2 missing" in told.planned.stdout
    for said in (told.planned.stdout, told.again.err):
        assert f"{told.keys[0]}.json was altered" in said
        assert f"{told.keys[1]}.json is not whole" in said
    assert told.again.code == 0
    assert told.trained_again == 2
    for key, arrays in told.before.items():
        np.testing.assert_array_equal(told.after[key]["scores"], arrays["scores"])


# stopped and gone on


@about("stops")
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


@about("stops")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_whatever_ends_the_supervisor_leaves_a_checkpoint_and_nothing_half(told, name):
    stopped = told.stops[name]
    assert stopped.records == []
    assert stopped.drafts == []
    assert stopped.checkpoint
    assert told.stage.files("failures") == []


@about("stops")
def test_a_run_that_was_stopped_four_times_is_the_run_that_never_was(told, monkeypatch):
    assert told.end.code == 0, told.end.err
    assert len(told.stage.trained("slow")) == 5
    assert not told.stage.results.checkpoint(told.key).exists()
    monkeypatch.setenv("ZOO", str(told.stage.folder))
    whole = trainer.execute(one(told.stage, *LONG), CPU)
    record = told.stage.results.load(told.key)
    np.testing.assert_array_equal(
        told.stage.results.predictions(record)["scores"], whole.predictions["scores"]
    )
    assert record.metrics == whole.record.metrics
    assert record.work == whole.record.work | {"resumed": True}
    assert record.seconds["train"] == pytest.approx(record.curve[-1]["seconds"])
    assert losses(record) == losses(whole.record)


# disks


@about("full_disk")
def test_a_full_disk_stops_the_command_and_leaves_no_half_record(told):
    assert told.full.code == 1
    assert no_traceback(told.full)
    assert told.records == []
    assert told.drafts == []
    assert "failed: steady" in told.full.err
    assert "disk" in told.full.err
    assert "can take no more; free it and run again" in told.full.err


def test_a_folder_that_cannot_be_written_to_is_bad_input(stage):
    (stage.folder / "file").write_text("")
    done = stage.run("method=steady", results="file/runs")
    assert done.code == 2
    assert no_traceback(done)
    assert "cannot write to the results folder file/runs" in done.err
    assert stage.journal == []


# a pack that dies


@about("pack")
def test_a_killed_pack_loses_what_it_had_begun_and_nothing_else(told):
    assert told.first.code == 1
    assert {note.kind for note in told.notes.values()} == {"killed"}
    assert 2 <= len(told.notes) <= 3  # the run that was calibrated for, and one pair
    assert len(told.records) == 6 - len(told.notes)  # what it had not begun went to another worker


@about("pack")
def test_after_that_the_same_command_trains_only_what_is_missing(told):
    assert told.again.code == 0, told.again.said
    assert len(told.stage.journal) - told.trained == len(told.notes)
    keys = told.stage.results.keys()
    assert len(keys) == 6
    assert any(told.stage.results.load(key).work.get("packed_with") for key in keys)
