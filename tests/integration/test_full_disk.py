"""A disk that is full when a record is to be written."""

import os
import subprocess
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from stage import Stage, no_traceback

from peftbench.results.store import ResultsFolder

pytestmark = pytest.mark.slow  # processes that load torch, one after the other


def tell_full_disk(stage):
    """The disk is full when the first record is to be written."""
    room = os.statvfs(stage.disk)
    filler = stage.disk / "filler"
    filler.write_bytes(b"x" * (room.f_bavail * room.f_frsize - 2 * room.f_frsize))
    stage.results = ResultsFolder(stage.disk / "runs")
    words = ("method=steady", "seed=0,1", "--workers", "1")
    told = SimpleNamespace(stage=stage, full=stage.run(*words, results=stage.results.folder))
    told.records, told.drafts = stage.files("records"), stage.files("drafts")
    return told


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


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    with small_disk(tmp_path_factory.mktemp("mounts") / "disk") as disk:
        if disk is None:
            pytest.skip("no small disk can be mounted here")
        stage = Stage(tmp_path_factory.mktemp("full_disk"))
        stage.disk = disk
        yield tell_full_disk(stage)


def test_a_full_disk_stops_the_command_and_leaves_no_half_record(told):
    assert told.full.code == 1
    assert no_traceback(told.full)
    assert told.records == []
    assert told.drafts == []
    assert "failed: steady" in told.full.err
    assert "disk" in told.full.err
    assert "can take no more; free it and run again" in told.full.err
