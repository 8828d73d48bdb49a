"""The turns of a task, counted in a file of its own: how often it started, and how it left last.

Schedulers count restarts differently, or not at all.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from peftbench.cluster.manifest import Task, folder
from peftbench.results.store import ResultsFolder

#: How a task ended its turn by itself: with a checkpoint, for good or until its next turn.
LEFT, REQUEUED = "left", "requeued"


@dataclass(frozen=True)
class Turns:
    """What the file says.

    Attributes:
        count: turns that have begun.
        ended: LEFT or REQUEUED; None while it runs, and after an end of another kind.
        job: the scheduler's number for the latest turn that the node submitted, waiting or begun.
    """

    count: int = 0
    ended: str | None = None
    job: str | None = None


def read(results: ResultsFolder, task: Task) -> Turns:
    """The turns of a task; none where there is no file, or none that can be read."""
    try:
        return Turns(**json.loads(_path(results, task).read_bytes()))
    except (OSError, ValueError, TypeError):
        return Turns()


def begin(results: ResultsFolder, task: Task) -> Turns:
    """Count a turn."""
    before = read(results, task)
    return _write(results, task, Turns(before.count + 1, job=before.job))


def end(results: ResultsFolder, task: Task, how: str, job: str | None = None) -> None:
    """Note that a turn ended with a checkpoint."""
    before = read(results, task)
    _write(results, task, Turns(before.count, how, job or before.job))


def _path(results: ResultsFolder, task: Task) -> Path:
    return folder(results, task.submission) / f"{task}.turns"


def _write(results: ResultsFolder, task: Task, turns: Turns) -> Turns:
    results.write(_path(results, task), json.dumps(asdict(turns)).encode())
    return turns
