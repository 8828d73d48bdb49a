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

from peftbench.cluster.manifest import RUNNING, Submission, Task, folder
from peftbench.core.errors import ConfigError
from peftbench.results.store import Results


class Background:
    """See `scheduler.Scheduler`."""

    array_limit = 1

    def send(self, results: Results, submission: Submission, array: int) -> str:
        """Start the task of an array; its number is that of the process."""
        place = folder(results, submission.name)
        task = Task(submission.name, array, 0)
        with (
            open(_lock(place, task), "w", encoding="utf-8") as lock,
            open(place / f"{task}.log", "ab") as log,
        ):
            fcntl.flock(lock, fcntl.LOCK_EX)
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
        return str(process.pid)

    def alive(self, submissions: list[Submission], results: Results) -> dict[Task, tuple[str, str]]:
        """Those whose lock is held."""
        return {
            task: (RUNNING, "")
            for one in submissions
            for task, _ in one.tasks()
            if _held(_lock(folder(results, one.name), task))
        }

    def cancel(self, submission: Submission, tasks: list[Task], results: Results) -> None:
        """Ask each to leave; it writes checkpoints first."""
        for task in self.alive([submission], results):
            job = submission.job(task)
            if task in tasks and job is not None:
                os.kill(int(job), signal.SIGTERM)

    def explain(self, submission: Submission, tasks: list[Task]) -> dict[Task, str]:
        """Nobody remembers."""
        return {}


def _lock(place: Path, task: Task) -> Path:
    return place / f"{task}.lock"


def _held(path: Path) -> bool:
    try:
        with open(path, encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
