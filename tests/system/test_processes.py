"""A process that a file names is distinguished from another one with its number."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from peftbench.system import processes
from peftbench.system.processes import Process


def test_this_process_lives_and_comes_back_from_json():
    me = processes.current()
    assert me.pid == os.getpid()
    assert me.is_alive() is True
    assert Process.read(me.to_json()) == me
    assert me.title == f"process {os.getpid()} on {os.uname().nodename}"


@pytest.mark.parametrize(
    ("changes", "alive"),
    [
        ({"start": "1"}, False),  # its number was given again
        ({"boot": "before"}, False),  # the machine was started again
        ({"host": "node7 0123"}, None),  # simulated: another machine
        ({"space": "pid:[1]"}, None),  # simulated: a container beside this one
        ({"host": "node7 0123", "boot": "before"}, None),
    ],
)
def test_another_process_with_this_number_is_not_this_one(changes, alive):
    assert replace(processes.current(), **changes).is_alive() is alive


def test_a_process_that_has_ended_is_known_to_be_over_before_its_parent_has_asked():
    started = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    its = replace(
        processes.current(), pid=started.pid, start=processes.start_of(started.pid) or "none"
    )
    assert its.is_alive() is True
    started.kill()
    os.waitid(os.P_PID, started.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    assert its.is_alive() is False
    started.communicate()
    assert its.is_alive() is False


@pytest.mark.parametrize(
    "data",
    [None, [], {}, {"pid": 1}, "text", {"host": "a", "boot": "", "space": "", "start": ""}],
)
def test_what_names_no_process_is_none(data):
    assert Process.read(data) is None


@pytest.mark.parametrize("pid", [0, -1, "7", 1.5, None])
def test_a_number_that_means_a_group_or_nothing_is_refused(pid):
    assert Process.read(processes.current().to_json() | {"pid": pid}) is None


@pytest.fixture
def sleeping():
    started = subprocess.Popen(["sleep", "60"])
    yield (
        started,
        replace(
            processes.current(), pid=started.pid, start=processes.start_of(started.pid) or "none"
        ),
    )
    started.kill()
    started.wait()


@pytest.mark.parametrize(
    "changes",
    [
        {"start": "1"},
        {"boot": "before"},
        {"space": "pid:[1]"},
        {"host": "node7 0123", "boot": "its"},
        {"boot": ""},
    ],
)
def test_no_signal_reaches_another_process_with_this_number(sleeping, changes):
    started, its = sleeping
    assert replace(its, **changes).signal(signal.SIGKILL) is False
    assert started.poll() is None


def test_the_process_itself_gets_its_signal_also_where_the_machine_was_renamed(sleeping):
    started, its = sleeping
    assert replace(its, host="old-name 0123").signal(signal.SIGTERM) is True
    assert started.wait(timeout=30) == -signal.SIGTERM
    assert its.signal(signal.SIGTERM) is False


def test_without_a_boot_nothing_is_signalled(sleeping, monkeypatch):
    started, its = sleeping
    monkeypatch.setattr(processes, "_boot", lambda: "")
    processes._process.cache_clear()
    try:
        assert replace(its, boot="").signal(signal.SIGKILL) is False
    finally:
        processes._process.cache_clear()
    assert started.poll() is None


@pytest.mark.parametrize(
    ("changes", "elsewhere"),
    [
        ({}, False),
        ({"host": "node7 0123"}, False),  # the same boot: a container beside this one
        ({"boot": "before"}, False),  # this host, started again since
        ({"host": "node7 0123", "boot": "its"}, True),
    ],
)
def test_what_may_live_on_another_machine(changes, elsewhere):
    assert replace(processes.current(), **changes).may_be_elsewhere() is elsewhere


@pytest.mark.parametrize("started", [7, "7"])
def test_a_process_that_an_earlier_lock_names_is_read(started):
    me = processes.current()
    old = {"pid": me.pid, "host": me.machine, "boot": me.boot, "started": started}
    assert Process.read(old) == replace(me, start="7")
    assert Process.read(old | {"host": "renamed"}) == replace(me, start="7")
    other = Process.read(old | {"host": "node7", "boot": "its"})
    assert other is not None
    assert other.may_be_elsewhere()
    assert other.title == f"process {me.pid} on node7"


@pytest.mark.skipif(not os.path.exists("/proc/self/autogroup"), reason="Linux groups sessions")
def test_a_niced_session_is_a_niced_group():
    code = "import os; os.nice(7); from peftbench.system import processes as p; p.keep_niceness()"
    code += "; print(open('/proc/self/autogroup').read())"
    line = [sys.executable, "-c", code]
    told = subprocess.run(line, capture_output=True, text=True, start_new_session=True, check=True)
    assert told.stdout.strip().endswith(f"nice {min(19, os.nice(0) + 7)}")
