"""What was handed to a scheduler, on disk: which runs are in which task of which job.

A submission is a folder in the results folder: `manifest.json` holds the overrides, the cluster
and the keys of each task; a file for each task holds its runs whole, so that a node reads no more
than its own. Nothing in them names another place on disk, so the results folder may be moved or
copied.
"""

import fcntl
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from peftbench.cluster.bundling import Array
from peftbench.config.cluster import Cluster
from peftbench.core.errors import ConfigError, RecordError
from peftbench.core.evaluation import Job, job_json, job_of
from peftbench.core.run import Json
from peftbench.results.store import Results
from peftbench.runner.progress import note
from peftbench.system import io
from peftbench.system.hardware import checkout

NAME = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")
SCHEMA = 1


#: What a scheduler says of a task that is not over.
PENDING, RUNNING = "pending", "running"


class SchedulerUnreachable(Exception):
    """The scheduler does not answer; nothing may be concluded from that."""


@dataclass(frozen=True)
class Task:
    """One job of a scheduler, by the submission, its number among the arrays, its number there."""

    submission: str
    array: int
    number: int

    def __str__(self) -> str:
        return f"{self.array}_{self.number}"

    @classmethod
    def read(cls, submission: str, text: str) -> "Task":
        """Undo `str`."""
        array, number = text.split("_")
        return cls(submission, int(array), int(number))


@dataclass(frozen=True)
class Sent:
    """An array as it was handed over: keys of each task, and the scheduler's number for it."""

    tasks: list[list[str]]
    minutes: int | None
    memory_gb: float | None
    job: str | None = None


@dataclass(frozen=True)
class Submission:
    """A manifest.

    Attributes:
        name: when it was made, and four digits by chance.
        words: overrides, those of the cluster included, that submit the rest again.
        cluster: as it was.
        version: of peftbench; `commit` where it ran from a checkout.
        submitted: seconds since 1970, by the clock of the submitting machine.
        data_root: folders of data sets, None for the hub.
        order: how nodes run, the fields of `core.plan.RunOptions`.
        attempts: by key, of those that had failed before, how often.
        cancelled: whether a person took it back.
    """

    name: str
    words: list[str]
    cluster: Cluster
    version: str
    commit: str | None
    submitted: float
    data_root: str | None
    order: Json
    attempts: dict[str, int]
    arrays: list[Sent]
    cancelled: bool = False

    def tasks(self) -> Iterator[tuple[Task, list[str]]]:
        """Each task with the keys of its jobs."""
        for a, array in enumerate(self.arrays):
            for number, keys in enumerate(array.tasks):
                yield Task(self.name, a, number), keys

    def job(self, task: Task) -> str | None:
        """The scheduler's number for a task; None where it was not handed over."""
        array = self.arrays[task.array]
        if array.job is None or len(array.tasks) == 1:
            return array.job
        return f"{array.job}_{task.number}"


def folder(results: Results, name: str) -> Path:
    """Where a submission lies.

    Raises:
        ConfigError: if this is no name of one.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"a submission is called like 20261122-131500-3f2a, got {name!r}")
    return results.submissions() / name


def begin(
    overrides: Sequence[str],
    cluster: Cluster,
    arrays: Sequence[Array],
    data_root: str | None,
    order: Json,
    attempts: dict[str, int],
) -> Submission:
    """A new submission of these arrays; nothing is written yet."""
    return Submission(
        name=f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}",
        words=list(overrides),
        cluster=cluster,
        version=version("peftbench"),
        commit=checkout()["commit"],
        submitted=time.time(),
        data_root=data_root,
        order=order,
        attempts=attempts,
        arrays=[
            Sent([[job.key for job in bundle] for bundle in a.bundles], a.minutes, a.memory_gb)
            for a in arrays
        ],
    )


def write_jobs(results: Results, task: Task, jobs: Sequence[Job]) -> None:
    """Write what the node of a task is to do, in this order."""
    data = [job_json(job) for job in jobs]
    path = folder(results, task.submission) / f"{task}.json"
    results.write(path, io.sealed({"jobs": data}))


def read_jobs(results: Results, task: Task) -> list[Job]:
    """Read what `write_jobs` wrote.

    Raises:
        FileNotFoundError: if the results folder was moved or removed.
        RecordError: if it is not whole.
    """
    data = io.unsealed(folder(results, task.submission) / f"{task}.json")
    return [job_of(job) for job in data["jobs"]]


def save(results: Results, submission: Submission) -> None:
    """Write the manifest, whole."""
    data = asdict(submission) | {"schema": SCHEMA}
    results.write(folder(results, submission.name) / "manifest.json", io.sealed(data))


def load(results: Results, name: str) -> Submission:
    """Read a manifest.

    Raises:
        ConfigError: if there is none of this name.
        RecordError: if it is not whole.
    """
    path = folder(results, name) / "manifest.json"
    try:
        data = io.unsealed(path)
    except FileNotFoundError:
        raise ConfigError(f"there is no submission {name} in {results.folder}") from None
    if data.pop("schema", None) != SCHEMA:
        raise RecordError(f"{path} was written by another version of peftbench")
    arrays = [Sent(**array) for array in data.pop("arrays")]
    return Submission(cluster=Cluster.from_json(data.pop("cluster")), arrays=arrays, **data)


def every(results: Results) -> list[Submission]:
    """All submissions of a results folder, in the order in which they were made."""
    place = results.submissions()
    if not place.is_dir():
        return []
    names = sorted(path.name for path in place.iterdir() if NAME.fullmatch(path.name))
    return [load(results, n) for n in names if (place / n / "manifest.json").exists()]


@contextmanager
def alone(results: Results) -> Iterator[None]:
    """Hold off other submissions into the folder, on all machines that share it."""
    place = results.submissions()
    place.mkdir(parents=True, exist_ok=True)
    with open(place / "lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"another command submits into {results.folder}; waiting for it")
            fcntl.lockf(lock, fcntl.LOCK_EX)
        yield
