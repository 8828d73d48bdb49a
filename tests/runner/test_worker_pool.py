"""Workers that are killed, and supervisors that are: with small scripts in place of workers.

A script stands for a worker from its start to its end; none of them loads torch.
"""

import json
import os
import signal
import sys
import tempfile
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from records import plan, record, runs, tiny

from peftbench.core.errors import ConfigError
from peftbench.core.failures import Failure
from peftbench.core.runtime import RuntimeConfig
from peftbench.results.store import ResultsFolder
from peftbench.runner import scratch, sweep, worker_pool
from peftbench.runner.worker_pool import MOST_LOST, Stopped, WorkerPool
from peftbench.system import processes

RUNS = runs("method=lora", "seed=0,1")

SETTING = RuntimeConfig(threads=1)

#: What every script starts with: lines on standard input, events on standard output.
START = """
import json, os, signal, sys, time
from pathlib import Path

def tell(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)

here = Path(os.environ["SCRIPTED"])
with open(here / "started", "a") as journal:
    journal.write(f"{os.getpid()}\\n")
count = len((here / "started").read_text().splitlines())
order = json.loads(sys.stdin.readline())
"""

#: Answers checks, and trains nothing: jobs are done.
SERVE = """
tell("ready")
for line in sys.stdin:
    order = json.loads(line)
    if "check" in order:
        tell("checked", errors=[], told=["checked by worker %d" % count])
        continue
    for job in order["jobs"]:
        tell("done", key=KEYS.pop(0), elsewhere=False)
    tell("ready")
"""


@pytest.fixture
def scripted(tmp_path, monkeypatch):
    """Let workers be a script; returns how to make a pool of them."""
    monkeypatch.setenv("SCRIPTED", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    pools = []

    def make(*parts, results=tmp_path / "runs", setting=SETTING, gpus=(), workers=1):
        keys = f"KEYS = {[run.key for run in RUNS]!r}\n"
        script = tmp_path / "worker"
        lines = [f"#!{sys.executable}\n", START, keys, *map(textwrap.dedent, parts)]
        script.write_text("".join(lines))
        script.chmod(0o755)
        monkeypatch.setattr(worker_pool.sys, "executable", str(script))
        pools.append(WorkerPool(ResultsFolder(results), setting, workers, list(gpus)))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def started(tmp_path):
    return [int(line) for line in (tmp_path / "started").read_text().split()]


def test_a_worker_that_is_killed_while_it_loads_is_named_and_replaced(scripted, tmp_path, capsys):
    pool = scripted("if count == 1: os.kill(os.getpid(), signal.SIGKILL)\n", SERVE)
    assert pool.check_runs(RUNS) == ["checked by worker 2"]
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "worker 0 had no run: the worker was killed by SIGKILL; another one takes its place"
    ]
    pool.work([[run] for run in RUNS])
    assert pool.failures == []
    assert len(started(tmp_path)) == 2


def test_a_worker_that_is_killed_by_its_check_is_replaced_so_often_and_no_more(
    scripted, tmp_path, capsys
):
    dies = """
    tell("ready")
    sys.stdin.readline()
    print("reading the data", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)
    """
    pool = scripted(dies)
    with pytest.raises(ConfigError) as refused:
        pool.check_runs(RUNS)
    assert "worker 0 had no run: the worker was killed by SIGSEGV" in str(refused.value)
    assert f"the last of {MOST_LOST} in a row" in str(refused.value)
    assert str(refused.value).endswith("it printed:\nreading the data")
    assert len(started(tmp_path)) == MOST_LOST
    assert capsys.readouterr().err.count("another one takes its place") == MOST_LOST - 1


@pytest.mark.parametrize("again", [False, True])
def test_what_ran_out_of_memory_beside_others_is_tried_once_more_by_itself(
    again, scripted, tmp_path, monkeypatch, capsys
):
    """The first run is large; the second waits until the first is gone."""
    large = """
    tell("ready")
    for line in sys.stdin:
        (job,) = json.loads(line)["jobs"]
        seed = job["run"]["seed"]
        if seed == 0:
            tell("begun", key=KEYS[0])
            if AGAIN or not (here / "oom").exists():
                while not (here / "beside").exists() and not (here / "oom").exists():
                    time.sleep(0.01)
                with open(here / "oom", "a") as kills:
                    kills.write("1")
                os.kill(os.getpid(), signal.SIGKILL)
        else:
            tell("begun", key=KEYS[1])
            (here / "beside").touch()
            while not (here / "oom").exists():
                time.sleep(0.01)
            time.sleep(0.3)
        tell("done", key=KEYS[seed], elsewhere=False)
        tell("ready")
    """
    kills = tmp_path / "oom"
    monkeypatch.setattr(
        worker_pool, "oom_kills", lambda: len(kills.read_text()) if kills.exists() else 0
    )
    pool = scripted(f"AGAIN = {again}\n", large, workers=2)
    done = []
    pool.listen = lambda event: done.append((event.job.seed, event.kind))
    pool.work([[run] for run in RUNS])
    told = "which ran out of memory; try fewer --workers; it is tried again by itself, after the"
    assert capsys.readouterr().err.count(told) == 1
    assert done == [(1, "done"), (0, "failed" if again else "done")]
    assert [(one.job.seed, one.kind) for one in pool.failures] == [(0, "memory")] * again
    assert len(pool._workers) == 1
    if not again:
        pool.work([[RUNS[0]]])
        assert done[-1] == (0, "done")
        assert len(pool._workers) == 2


def test_a_worker_that_fails_by_itself_is_not_tried_again(scripted, tmp_path):
    pool = scripted("raise ImportError('no module named torch')\n")
    with pytest.raises(ConfigError) as refused:
        pool.check_runs(RUNS)
    assert "the worker ended with exit code 1" in str(refused.value)
    assert "ImportError: no module named torch" in str(refused.value)
    assert len(started(tmp_path)) == 1


def test_a_gpu_that_refuses_kernels_ends_the_sweep_before_it_starts(scripted, tmp_path):
    pool = scripted('tell("refused", reason="it refuses kernels; use another")', gpus=["3", "4"])
    with pytest.raises(ConfigError) as refused:
        pool.check_runs(RUNS)
    assert str(refused.value) == "GPU 3: it refuses kernels; use another"
    assert pool.failures == []
    assert len(started(tmp_path)) == 1


@pytest.mark.parametrize(
    ("given", "order"), [(None, "PCI_BUS_ID"), ("3,4", "not given")], ids=["by NVML", "given"]
)
def test_a_worker_sees_gpus_by_the_numbers_under_which_they_were_found(
    given, order, scripted, monkeypatch
):
    """NVML numbers by the bus, CUDA by speed by default; given numbers are CUDA's own."""
    for name, value in (("CUDA_VISIBLE_DEVICES", given), ("CUDA_DEVICE_ORDER", None)):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    told = """
    seen = os.environ["CUDA_VISIBLE_DEVICES"]
    order = os.environ.get("CUDA_DEVICE_ORDER", "not given")
    tell("refused", reason=f"sees {seen} by {order}")
    """
    with pytest.raises(ConfigError, match=f"sees 3 by {order}$"):
        scripted(told, gpus=["3", "4"]).check_runs(RUNS)


def test_workers_that_leave_when_they_are_told_to_are_replaced_each_time(scripted, tmp_path):
    """As when a scheduler signals single workers: their runs go on in others."""
    leaves = """
    tell("ready")
    for line in sys.stdin:
        for job in json.loads(line)["jobs"]:
            if count <= 3:
                tell("interrupted", key=KEYS[0], reason="stopped at step 3")
                sys.exit(0)
            tell("done", key=KEYS[0], elsewhere=False)
        tell("ready")
    """
    pool = scripted(leaves)
    pool.work([[RUNS[0]]])
    assert pool.failures == []
    assert len(started(tmp_path)) == 4


def test_where_a_worker_cannot_be_started_those_that_could_are_ended(scripted, tmp_path):
    pool = scripted(SERVE)
    (tmp_path / "worker").unlink()
    with pytest.raises(ConfigError, match=r"no worker can be started here: .*No such file"):
        WorkerPool(pool.results, SETTING, 2, [])
    assert len(list((tmp_path / "tmp").iterdir())) == 1  # the scratch of the first pool alone


# signals before training


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_a_signal_while_workers_load_or_check_starts_no_training(scripted, tmp_path, name):
    """The signal comes from the worker itself, before it has answered."""
    pool = scripted(f"os.kill(os.getppid(), signal.{name})\ntime.sleep(0.3)\n", SERVE)
    with pytest.raises(Stopped):
        pool.check_runs(RUNS)
    with pytest.raises(Stopped):
        pool.work([[run] for run in RUNS])
    assert pool.halted
    assert started(tmp_path) == [pool._workers[0].process.pid]


def options(**given):
    return replace(sweep.RunOptions(device="cpu", workers=1, threads=1), **given)


def todo():
    return sweep.Todo(list(RUNS), [], None, sweep.Forecast([]))


@pytest.mark.parametrize("dry", [False, True])
def test_ctrl_c_when_the_check_is_over_stops_the_command(scripted, tmp_path, monkeypatch, dry):
    scripted(SERVE).close()
    before = len(started(tmp_path)) if (tmp_path / "started").exists() else 0
    checked = sweep.preflight

    def interrupted(pool, work, silent):
        checked(pool, work, silent)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(sweep, "preflight", interrupted)
    assert sweep.execute(todo(), ResultsFolder(tmp_path / "runs"), options(dry_run=dry), []) is True
    assert len(started(tmp_path)) == before + 1
    assert ResultsFolder(tmp_path / "runs").keys() == []


def test_ctrl_c_while_the_hub_is_asked_stops_before_a_worker_starts(
    scripted, tmp_path, monkeypatch
):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep.prefetch, "fetch_from_hub", interrupted)
    assert sweep.execute(todo(), ResultsFolder(tmp_path / "runs"), options(), []) is True
    assert not (tmp_path / "started").exists()


# what workers are given


def test_workers_get_absolute_paths_and_a_cleaned_environment(scripted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in {
        **{"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "LOCAL_RANK": "0"},
        **{"ACCELERATE_MIXED_PRECISION": "bf16", "PEFTBENCH_CACHE": "cache", "KEPT": "as it is"},
    }.items():
        monkeypatch.setenv(name, value)
    writes = """
    (here / "given").write_text(json.dumps({"order": order, "environment": dict(os.environ)}))
    """
    setting = replace(SETTING, data_root=f"data{os.pathsep}/other")
    scripted(writes, SERVE, results="runs", setting=setting).check_runs(RUNS)
    given = json.loads((tmp_path / "given").read_text())
    assert given["order"]["results"] == str(tmp_path / "runs")
    assert given["order"]["setting"]["data_root"] == f"{tmp_path}/data{os.pathsep}/other"
    environment = given["environment"]
    assert environment["PEFTBENCH_CACHE"] == str(tmp_path / "cache")
    assert environment["KEPT"] == "as it is"
    assert environment["OMP_NUM_THREADS"] == "1"
    lost = {"WORLD_SIZE", "RANK", "MASTER_ADDR", "LOCAL_RANK", "ACCELERATE_MIXED_PRECISION"}
    assert not lost & environment.keys()


def test_what_is_left_out_is_said_in_one_line(scripted, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    scripted(SERVE).close()
    sweep.execute(todo(), ResultsFolder(tmp_path / "runs"), options(dry_run=True), [])
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "environment" in x]
    assert line.endswith("would change or hang runs: ACCELERATE_USE_FSDP, RANK")


def test_a_run_whose_record_is_gone_ends_no_display(scripted, tmp_path, capsys):
    """As when a method has changed the working folder under a relative path."""
    scripted(SERVE).close()
    sweep.execute(todo(), ResultsFolder(tmp_path / "runs"), options(), [])
    told = capsys.readouterr().err
    assert told.count("its record cannot be read") == 2
    assert "No such file" in told


#: Answers checks; the run of seed 0 finds the disk full, while that of seed 1 trains on and on.
FULL = """
tell("ready")
for line in sys.stdin:
    order = json.loads(line)
    if "check" in order:
        tell("checked", errors=[], told=[])
        continue
    seed = next(seed for seed in (0, 1, 2) if '"seed": %d' % seed in line)
    with open(here / "given", "a") as journal:
        journal.write(f"{seed}\\n")
    while seed == 1:
        tell("step", key=KEYS[1], fraction=0.1)
        time.sleep(0.02)
    while (here / "given").read_text().count("\\n") < 2:
        time.sleep(0.02)
    tell("failed", key=KEYS[0], kind="disk", reason="no space left on device")
    tell("ready")
"""


def test_a_full_disk_during_training_begins_no_evaluation(scripted, tmp_path, capsys):
    scripted(FULL).close()
    found = plan(*tiny("method=lora", "seed=0-2", "suite=calibration"))
    results = ResultsFolder(tmp_path / "runs")
    results.save(record(found.runs[2]), {})
    work = sweep.Todo(found.runs[:2], found.evaluations[2:], None, sweep.Forecast([]))
    assert [run.key for run in work.runs] == [run.key for run in RUNS]
    assert not sweep.execute(work, results, options(workers=2), [])
    assert sorted((tmp_path / "given").read_text().split()) == ["0", "1"]
    assert "can take no more; free it and run again" in capsys.readouterr().err


def test_a_full_disk_is_no_less_full_after_another_failure(scripted):
    pool = scripted(SERVE)
    for kind, given_up in (("error", False), ("disk", True), ("error", True)):
        pool.failures.append(Failure(RUNS[0], kind, ""))
        assert pool.gives_up(fail_fast=False) == given_up
        assert pool.gives_up(fail_fast=True)


# scratch folders


def scratch_folders(tmp_path):
    return sorted(path.name for path in (tmp_path / "tmp").iterdir())


def test_scratch_folders_of_killed_supervisors_are_removed_and_no_others(scripted, tmp_path):
    temporary = tmp_path / "tmp"
    me = processes.current()
    owners = {
        "peftbench-dead": replace(me, start="1"),
        "peftbench-rebooted": replace(me, boot="before"),
        "peftbench-alive": replace(
            me, pid=os.getppid(), start=processes.start_of(os.getppid()) or ""
        ),
        "peftbench-elsewhere": replace(me, host="node7 0"),  # simulated: a shared /tmp
    }
    for name, owner in owners.items():
        (temporary / name).mkdir()
        (temporary / name / "owner.json").write_text(json.dumps(owner.to_json()))
        (temporary / name / "worker-0").write_text("printed")
    (temporary / "peftbench-without").mkdir()  # of somebody who says nothing
    (temporary / "other").mkdir()
    pool = scripted(SERVE)
    kept = {"peftbench-alive", "peftbench-elsewhere", "peftbench-without", "other"}
    assert set(scratch_folders(tmp_path)) == kept | {pool._scratch.folder.name}
    pool.close()
    assert set(scratch_folders(tmp_path)) == kept


def test_a_scratch_folder_that_is_a_link_is_left_alone(scripted, tmp_path):
    target = tmp_path / "precious"
    target.mkdir()
    dead = replace(processes.current(), start="1")
    (target / "owner.json").write_text(json.dumps(dead.to_json()))
    (tmp_path / "tmp" / "peftbench-link").symlink_to(target)
    scratch.remove_abandoned()
    assert (target / "owner.json").exists()


def test_a_record_done_elsewhere_is_shown_with_its_scores(scripted, tmp_path, capsys):
    results = ResultsFolder(tmp_path / "runs")
    for run in RUNS:
        results.save(record(run), {})
    scripted(SERVE).close()
    sweep.execute(todo(), results, options(), [])
    assert capsys.readouterr().err.count("accuracy 75.0") == 2


def test_the_scratch_folder_is_where_the_system_wants_it(scripted, tmp_path):
    pool = scripted(SERVE)
    assert pool._scratch.folder.parent == Path(tempfile.gettempdir())
