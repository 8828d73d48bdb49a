"""This machine as a scheduler of one place: a process in the background that outlives the terminal.

A task that lives holds a lock, which it inherits from the process that started it and the kernel
drops with it: there is no moment in which it is not known, and no number of a process to be
mistaken.
"""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

from peftbench.run import ConfigError
from peftbench.store import Results
from peftbench.submission import RUNNING, Submission, Task, folder


class Background:
    """See `scheduler.Scheduler`."""

    array_limit = 1

    def __init__(self) -> None:
        self._places: dict[str, Path] = {}

    def send(self, results: Results, submission: Submission, array: int) -> str:
        """Start the task of an array; its number is that of the process."""
        place = folder(results, submission.name)
        task = Task(submission.name, array, 0)
        with open(_lock(place, task), "w") as lock, open(place / f"{task}.log", "ab") as log:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                process = subprocess.Popen(
                    [sys.executable, "-m", "peftbench.node", str(place.resolve()), str(task)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=os.environ | submission.cluster.environment,
                    start_new_session=True,
                    pass_fds=[lock.fileno()],
                )
            except OSError as error:
                raise ConfigError(f"no process can be started here: {error}") from error
        return str(process.pid)

    def alive(self, submissions: list[Submission], results: Results) -> dict[Task, tuple[str, str]]:
        """Those whose lock is held."""
        found = {}
        for submission in submissions:
            place = folder(results, submission.name)
            for task, _ in submission.tasks():
                self._places[submission.name] = place
                if _held(_lock(place, task)):
                    found[task] = (RUNNING, "")
        return found

    def cancel(self, submission: Submission, tasks: list[Task]) -> None:
        """Ask each to leave; it writes checkpoints first."""
        for task in tasks:
            job = submission.job(task)
            place = self._places.get(submission.name)
            if job is not None and place is not None and _held(_lock(place, task)):
                os.kill(int(job), signal.SIGTERM)

    def explain(self, submission: Submission, tasks: list[Task]) -> dict[Task, str]:
        """Nobody remembers."""
        return {}


def _lock(place: Path, task: Task) -> Path:
    return place / f"{task}.lock"


def _held(path: Path) -> bool:
    try:
        with open(path) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
