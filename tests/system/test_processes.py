"""A process that a file names is distinguished from another one with its number."""

import os
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
        processes.current(), pid=started.pid, start=processes._start(started.pid) or "none"
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
