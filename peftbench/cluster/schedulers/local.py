"""This machine as a scheduler of one place: a process in the background that outlives the terminal.

A task that lives holds a lock, which it inherits from the process that started it and the kernel
drops with it: there is no moment in which it is not known. The file that is locked says which
process that is, on which machine; on a file system without locks that alone is asked.
"""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from peftbench.cluster.base import Check
from peftbench.cluster.manifest import RUNNING, Ending, QueueAnswer, Submission, Task, folder
from peftbench.config.cluster import Cluster
from peftbench.core.errors import ConfigError
from peftbench.results.store import ResultsFolder
from peftbench.system import io, processes
from peftbench.system.processes import Process
from peftbench.system.run_locks import NO_LOCKS

#: Seconds in which a task that was just started has written which process it is.
START = 15.0


class Background:
    """See `base.Scheduler`."""

    title = "this machine"
    commands = ()
    origin = ""
    waits = True
    passes_environment = True
    warnings = frozenset({signal.SIGUSR2})
    left_code = 75
    array_limit = 1

    def __init__(self, cluster: Cluster):
        self.cluster = cluster

    @property
    def site(self) -> str:
        """The name of this machine."""
        return socket.gethostname()

    def resolved(self) -> Cluster:
        """See `Scheduler`."""
        return self.cluster

    def exports(self) -> dict[str, str]:
        """None: there is no script."""
        return {}

    def check_config(self) -> None:
        """Refuse what would be ignored; see `Scheduler`."""
        for name in ("modules", "setup"):
            if given := getattr(self.cluster, name):
                raise ConfigError(
                    f"cluster.{name}={given} is for other clusters: with cluster=local jobs have "
                    "the environment of the shell, so do that there, before `peftbench submit`"
                )

    def send(self, results: ResultsFolder, submission: Submission, array: int) -> str:
        """Start the task of an array; its number is that of the process."""
        place = folder(results, submission.name)
        task = Task(submission.name, array, 0)
        with (
            open(_lock(place, task), "w", encoding="utf-8") as lock,
            open(place / f"{task}.log", "ab") as log,
        ):
            for path in (lock, log):
                io.share(Path(path.name))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
            try:
                process = subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "peftbench.cluster.job_runner",
                        str(place.resolve()),
                        str(task),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=os.environ | submission.cluster.environment,
                    start_new_session=True,
                    pass_fds=[lock.fileno()],
                )
            except OSError as error:
                raise ConfigError(f"no process can be started here: {error}") from error
            start = processes.start_of(process.pid) or ""
            begun = replace(processes.current(), pid=process.pid, start=start)
            lock.write(json.dumps(begun.to_json()))
        return str(process.pid)

    def alive(self, submissions: list[Submission], results: ResultsFolder) -> QueueAnswer:
        """Those that are held; one of another machine may be held there, unseen from here."""
        answer = QueueAnswer()
        for one in submissions:
            for task, _ in one.tasks():
                path = _lock(folder(results, one.name), task)
                held = _held(path)
                if held:
                    answer.alive[task] = (RUNNING, "")
                elif (process := _holder(path)) and (held is None or process.may_be_elsewhere()):
                    answer.unsure[one.name] = (
                        f"it was started on {process.machine}, this is {self.site}: look there, or "
                        f"`peftbench cancel {one.name}` if that machine is gone"
                    )
        return answer

    def cancel(
        self, submission: Submission, tasks: list[Task], results: ResultsFolder
    ) -> dict[Task, str]:
        """Ask each to leave; it writes checkpoints first. See `Scheduler`."""
        left = {}
        for task in tasks:
            if reason := _end(_lock(folder(results, submission.name), task), self.site):
                left[task] = reason
        return left

    def explain(
        self, submission: Submission, tasks: list[Task], results: ResultsFolder
    ) -> dict[Task, Ending]:
        """Nobody remembers."""
        return {}

    def requeue(self, results: ResultsFolder, submission: Submission, task: Task) -> None:
        """There is no queue."""

    def examine(self, results: ResultsFolder) -> list[Check]:
        """Nothing is asked for."""
        return []


def note_process(place: Path, task: Task) -> None:
    """Write which process does a task; for that process, which holds the lock on the file.

    Its parent wrote the same, unless it was killed before.
    """
    file = os.open(_lock(place, task), os.O_WRONLY | os.O_CREAT, 0o666)
    with open(file, "wb") as lock:
        lock.write(json.dumps(processes.current().to_json()).encode())
        lock.truncate()


def _end(path: Path, site: str) -> str | None:
    """Signal the process that holds a lock; what stands against it, None if it ends."""
    end = time.monotonic() + START
    while (process := _holder(path)) is None and _held(path):
        if time.monotonic() > end:
            return f"{path} does not say which process it is; end it by hand, it ends by TERM"
        time.sleep(0.1)
    if process is None:  # it has just ended by itself
        return None
    try:
        if process.signal(signal.SIGTERM) or _held(path) is False:
            return None
    except PermissionError:
        return f"{process.title} belongs to another user"
    return f"it runs on {process.machine}, this is {site}: `peftbench cancel` there ends it"


def _lock(place: Path, task: Task) -> Path:
    return place / f"{task}.lock"


def _holder(path: Path) -> Process | None:
    """The process that a lock names; None where the file has none (yet)."""
    with suppress(OSError, ValueError):
        return Process.read(json.loads(path.read_bytes()))
    return None


def _held(path: Path) -> bool | None:
    """Whether a task lives; None where there are no locks, and nobody here sees its process."""
    try:
        with open(path, encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        process = _holder(path)
        return process.is_alive() if process else False
    return False


SCHEDULER = Background
