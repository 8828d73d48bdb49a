"""Who may submit into a folder, with locks and where file systems have none."""

import errno
import fcntl
import os
import subprocess
import sys
import threading

import pytest

from peftbench.cluster import manifest
from peftbench.results.store import ResultsFolder

HOLDER = """
import errno, fcntl, os, sys
from peftbench.cluster import manifest
from peftbench.results.store import ResultsFolder
def refuse(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
if sys.argv[2] == "without":
    fcntl.lockf = refuse
with manifest.alone(ResultsFolder(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("locks", ["with", "without"])
def test_a_second_submission_waits_for_the_first(tmp_path, capsys, monkeypatch, locks):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    if locks == "without":
        monkeypatch.setattr(fcntl, "lockf", refuse)
    results = ResultsFolder(tmp_path / "runs")
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(results.folder), locks],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with first:
        assert first.stdout.readline() == "in\n"
        killed = threading.Event()
        threading.Timer(0.5, lambda: (killed.set(), first.kill())).start()
        with manifest.alone(results):
            assert killed.is_set()
    said = capsys.readouterr().err
    assert said.count(f"another command submits into {results.folder}; waiting for it (") == 1
    assert (f"process {first.pid} on" in said) == (locks == "without")
    with manifest.alone(results), manifest.alone(ResultsFolder(tmp_path / "other")):
        pass
