"""What jobs of a scheduler printed."""

import os
from pathlib import Path

from peftbench.cluster.manifest import Task, folder
from peftbench.results.store import ResultsFolder

#: How the line begins that a job prints if its environment could not be made.
SETUP_FAILED = "peftbench: cluster."

#: Bytes at the end of a log in which its last line is looked for.
_TAIL = 4096


def log(results: ResultsFolder, task: Task) -> Path:
    """The file with what a task printed, in all its turns."""
    return folder(results, task.submission) / f"{task}.log"


def last_line(results: ResultsFolder, task: Task) -> str:
    """The last line of a task's log, at most 200 characters; empty if there is none."""
    try:
        with open(log(results, task), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            text = file.read().decode(errors="replace")
    except OSError:  # a task that never started has none
        return ""
    lines = [line.strip() for line in text.split("\n")]
    return next((line for line in reversed(lines) if line), "")[:200]
