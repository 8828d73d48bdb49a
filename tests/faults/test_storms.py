"""Sweeps in bad weather: whole commands, killed, asked, limited, in other people's environments."""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from records import tiny
from stage import Stage, finish, first_child, gone, no_traceback, one

from peftbench.core.runtime import RuntimeConfig
from peftbench.training import trainer

pytestmark = pytest.mark.slow  # processes that load torch, one after the other

#: What launchers leave behind: a worker would wait for a second process, or train otherwise.
FOREIGN = {
    **{"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"},
    **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"},
    **{"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4", "ACCELERATE_MIXED_PRECISION": "bf16"},
}


def ended(process, seconds=600):
    """Wait for a command, and fail where it hangs."""
    end = time.monotonic() + seconds
    while process.poll() is None:
        if time.monotonic() > end:
            process.kill()
            pytest.fail(f"the command hangs: {finish(process).said}")
        time.sleep(0.1)
    return finish(process)


def scratch_folders(temporary):
    return {path.name for path in temporary.glob("peftbench-*")}


# one command with methods that wander, ask and stop, started as by torchrun and accelerate


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    stage = Stage(tmp_path_factory.mktemp("foreign"))
    words = ("method=wanders,asks,debugged,steady", "budget.steps=4", "train.precision=fp32")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in FOREIGN.items():
            patch.setenv(name, value)
        done = ended(stage.start(*words, "--workers", "1"))
    return SimpleNamespace(stage=stage, done=done, words=words)


def test_nothing_hangs_and_what_is_left_out_is_said(foreign):
    assert foreign.done.code == 1
    assert no_traceback(foreign.done)
    (line,) = [x for x in foreign.done.err.splitlines() if "left out of the workers'" in x]
    assert line.endswith(", ".join(sorted(FOREIGN)))


def test_a_record_is_what_it_is_without_these_variables(foreign, monkeypatch):
    monkeypatch.setenv("ZOO", str(foreign.stage.folder))
    run = one(foreign.stage, "method=steady", *foreign.words[1:])
    whole = trainer.execute(run, RuntimeConfig(device="cpu", threads=1))
    results = foreign.stage.results
    np.testing.assert_array_equal(
        results.predictions(results.load(run.key))["scores"], whole.predictions["scores"]
    )


def test_a_method_that_wanders_has_its_record_in_the_results_folder(foreign):
    stage = foreign.stage
    names = {record.run.method.name for record in stage.results.scan()[0]}
    assert names == {"wanders", "steady"}
    assert "runs" not in os.listdir("/")


def test_methods_that_ask_a_person_say_so(foreign):
    for name, error in (("asks", "EOFError"), ("debugged", "BdbQuit")):
        (line,) = [x for x in foreign.done.err.splitlines() if x.startswith(f"failed: {name} ")]
        assert f"{error}: the method waits for a person (input() or breakpoint())" in line


# killed processes


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path)


def test_a_worker_that_is_killed_while_it_loads_costs_a_line(stage):
    process = stage.start("method=steady", "budget.steps=2", "--workers", "1")
    os.kill(first_child(process), signal.SIGKILL)
    done = ended(process)
    assert done.code == 0, done.said
    assert re.search(r"worker 0 had no run: .*SIGKILL; another one takes its place", done.err)
    assert len(stage.results.keys()) == 1


def test_ctrl_c_while_workers_load_trains_nothing(stage):
    process = stage.start("method=steady", "budget.steps=2", "--workers", "1")
    first_child(process)
    process.send_signal(signal.SIGINT)
    done = ended(process)
    assert done.code == 130
    assert no_traceback(done)
    assert stage.journal == []
    assert stage.results.keys() == []


def test_workers_of_a_killed_command_leave_at_once_where_nothing_is_to_be_kept(
    stage, tmp_path, monkeypatch
):
    """The worker is with a run, but has not taken a step: there is no checkpoint to wait for."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    stage.switch(slow=True)
    words = ("method=lingers", "budget.steps=2", "--workers", "1")
    process = stage.start(*words)
    worker = stage.next_training("lingers", process)
    (scratch,) = scratch_folders(temporary)
    process.kill()
    process.communicate()
    end = time.monotonic() + 30  # half of what a training gets for its checkpoint
    while not gone(worker):
        assert time.monotonic() < end, "the worker goes on"
        time.sleep(0.05)
    assert scratch in scratch_folders(temporary)
    stage.switch(slow=False)
    done = ended(stage.start(*words))
    assert done.code == 0, done.said
    assert scratch not in scratch_folders(temporary)
    assert len(stage.results.keys()) == 1


# a user without a home

#: A number that no passwd has.
UNKNOWN = 54321


def test_a_user_without_home_and_name_trains_all_the_same(stage, tmp_path):
    """In a user namespace, where this user has the number."""
    become = ["unshare", "--user", f"--map-user={UNKNOWN}", f"--map-group={UNKNOWN}"]
    if not shutil.which("unshare") or subprocess.run([*become, "true"]).returncode != 0:
        pytest.skip("no user namespace can be made here")
    lacking = ("HOME", "USER", "LOGNAME", "PEFTBENCH_CACHE", "HF_HOME", "XDG_CACHE_HOME")
    environment = {k: v for k, v in stage.environment.items() if k not in lacking}
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    words = tiny("method=steady", "budget.steps=2")
    command = [sys.executable, "-m", "peftbench", "run", *words, "--results", "runs"]
    process = subprocess.Popen(
        [*become, *command, "--device", "cpu", "--threads", "1"],
        cwd=tmp_path,
        env=environment | {"TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    done = ended(process)
    assert done.code == 0, done.said
    home = temporary / f"peftbench-home-{UNKNOWN}"
    assert f"caches are kept in {home}; set HOME" in done.err
    assert list((home / ".cache" / "peftbench" / "tokens").iterdir())


# limits


class Unkept(Stage):
    """A stage whose commands write no bytecode: Python cuts it off at a limit, and keeps it."""

    @property
    def environment(self):
        """That of commands."""
        return super().environment | {"PYTHONDONTWRITEBYTECODE": "1"}


def test_a_limit_of_file_sizes_is_a_failure_from_outside(tmp_path):
    """As `ulimit -f`: too little for predictions and a record."""
    stage = Unkept(tmp_path)
    words = ("method=steady", "budget.steps=2", "--workers", "1")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        process = stage.start(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    limited = ended(process)
    assert limited.code == 1
    assert "disk" in limited.err
    assert "File too large" in limited.err
    done = ended(stage.start(*words))
    assert done.code == 0, done.said
