"""What was handed to a scheduler, on disk: which runs are in which task of which job.

A submission is a folder in the results folder: `manifest.json` holds the overrides, the cluster
and the keys of each task; a file for each task holds its runs whole, so that a node reads no more
than its own. Nothing in them names another place on disk, so the results folder may be moved or
copied.
"""

import os
import pwd
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from peftbench.cluster.bundling import Array
from peftbench.config.cluster import Cluster
from peftbench.core.errors import ConfigError, OtherSchemaError, RecordError
from peftbench.core.evaluation import ClusterJob, cluster_job_of, job_json
from peftbench.core.run import Json
from peftbench.results import choices
from peftbench.results.store import ResultsFolder
from peftbench.runner.only_one import only_one
from peftbench.system import io
from peftbench.system.hardware import checkout

NAME = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")

#: Of what is written. Schema 1 has neither the place nor the user of a submission, 2 no searches, 3
#: no scheduler but Slurm and this machine.
SCHEMA = 4

#: What `alone` claims; no run has it, as keys have 12 digits.
_SUBMITTING = "1000000000001"

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
class Ending:
    """How a task ended, as a scheduler remembers it.

    Attributes:
        kind: memory, cancelled, time, node, left (it went back to the queue) or exit.
        words: the scheduler's own.
    """

    kind: str
    words: str


@dataclass(frozen=True)
class QueueAnswer:
    """What a scheduler shows of submissions.

    Attributes:
        alive: PENDING or RUNNING for each task that is not over, and the scheduler's reason.
        unsure: submissions of which tasks may be alive without being shown, by name, and why.
        held: those of `alive` that never start by themselves, and the command that lets them go.
    """

    alive: dict[Task, tuple[str, str]] = field(default_factory=dict)
    unsure: dict[str, str] = field(default_factory=dict)
    held: dict[Task, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sent:
    """An array as it was handed over: keys of each task, and the scheduler's number for it.

    Attributes:
        after: numbers of arrays of the same submission that it waits for, however they end.
    """

    tasks: list[list[str]]
    minutes: int | None
    memory_gb: float | None
    job: str | None = None
    after: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Submission:
    """A manifest.

    Attributes:
        name: when it was made, in UTC, and four digits by chance.
        words: overrides, those of the cluster included, that submit the rest again.
        cluster: as it was.
        version: of peftbench; `commit` where it ran from a checkout.
        submitted: seconds since 1970, by the clock of the submitting machine.
        data_root: folders of data sets, None for the hub.
        order: how nodes run, the fields of `core.plan.RunOptions`.
        attempts: by key, of those that had failed before, how often.
        cancelled: whether a person took it back.
        site: the cluster or the machine that it went to.
        owner: the number of the user who made it.
        inherited: variables of the submitting environment that jobs have too, see `environment`.
        search: whether its runs are trials, from which later jobs of it choose learning rates.
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
    site: str | None = None
    owner: int | None = None
    inherited: list[str] = field(default_factory=list)
    search: bool = False

    def store(self, results: ResultsFolder) -> ResultsFolder:
        """Where its runs have their records and failures, in this folder of results."""
        return results.trials() if self.search else results

    def tasks(self) -> Iterator[tuple[Task, list[str]]]:
        """Each task with the keys of its jobs."""
        for a, array in enumerate(self.arrays):
            for number, keys in enumerate(array.tasks):
                yield Task(self.name, a, number), keys

    @property
    def owner_name(self) -> str:
        """The name of the user who made it; a number where the system has none for it."""
        with suppress(KeyError, TypeError):
            return pwd.getpwuid(self.owner).pw_name  # type: ignore[arg-type]
        return "another user" if self.owner is None else f"user {self.owner}"


@dataclass(frozen=True)
class Unreadable:
    """A submission whose manifest cannot be read.

    Attributes:
        reason: what is wrong with it, and what to do.
        keys: of the runs and evaluations in its task files, as far as those can be read.
    """

    name: str
    reason: str
    keys: frozenset[str]


def folder(results: ResultsFolder, name: str) -> Path:
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
    site: str | None = None,
    inherited: Sequence[str] = (),
    search: bool = False,
) -> Submission:
    """A new submission of these arrays; nothing is written yet."""
    now = time.time()
    return Submission(
        name=f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{secrets.token_hex(2)}",
        words=list(overrides),
        cluster=cluster,
        version=version("peftbench"),
        commit=checkout()["commit"],
        submitted=now,
        data_root=data_root,
        order=order,
        attempts=attempts,
        arrays=[
            Sent(
                [[job.key for job in bundle] for bundle in a.bundles],
                a.minutes,
                a.memory_gb,
                after=list(a.after),
            )
            for a in arrays
        ],
        site=site,
        owner=os.getuid(),
        inherited=list(inherited),
        search=search,
    )


def done_keys(results: ResultsFolder) -> set[str]:
    """Keys of all that submissions into the folder may hold and that is there."""
    chosen = choices.answer_keys(results)
    return {*results.keys(), *results.evaluations(), *results.trials().keys(), *chosen}


def write_jobs(results: ResultsFolder, task: Task, jobs: Sequence[ClusterJob]) -> None:
    """Write what the node of a task is to do, in this order."""
    data = [job_json(job) for job in jobs]
    path = folder(results, task.submission) / f"{task}.json"
    results.write(path, io.sealed({"jobs": data}))


def read_jobs(results: ResultsFolder, task: Task) -> list[ClusterJob]:
    """Read what `write_jobs` wrote.

    Raises:
        OSError: if the results folder was moved or removed.
        RecordError: if it is not whole.
    """
    data = io.unsealed(folder(results, task.submission) / f"{task}.json")
    return [cluster_job_of(job) for job in data["jobs"]]


def save(results: ResultsFolder, submission: Submission) -> None:
    """Write the manifest, whole."""
    data = asdict(submission) | {"schema": SCHEMA}
    results.write(folder(results, submission.name) / "manifest.json", io.sealed(data))


def load(results: ResultsFolder, name: str) -> Submission:
    """Read a manifest.

    Raises:
        ConfigError: if there is none of this name.
        RecordError: if it is torn or cannot be read.
        OtherSchemaError: if a newer peftbench wrote it.
    """
    path = folder(results, name) / "manifest.json"
    try:
        data = io.unsealed(path)
    except FileNotFoundError:
        raise ConfigError(f"no submission {name} in {results.folder}") from None
    except OSError as error:
        reason = f"{path} cannot be read: {error.strerror}"
        raise RecordError(f"{reason}; {_advice(results, name)}") from error
    except RecordError as error:
        raise RecordError(f"{error}; {_advice(results, name)}") from error
    schema = data.pop("schema", None)
    if schema not in range(1, SCHEMA + 1):
        raise OtherSchemaError(
            f"{path} has schema {schema}, this peftbench ({version('peftbench')}) reads up to "
            f"{SCHEMA}; its runs count as unknown here: use peftbench "
            f"{data.get('version', 'of a later version')} for this folder"
        )
    arrays = [Sent(**array) for array in data.pop("arrays")]
    return Submission(cluster=Cluster.from_json(data.pop("cluster")), arrays=arrays, **data)


def scan(results: ResultsFolder) -> tuple[list[Submission], list[Unreadable]]:
    """Read all manifests: those that can be read, from the first to the latest, and the others."""
    place = results.submissions()
    if not place.is_dir():
        return [], []
    good, bad = [], []
    for name in sorted(path.name for path in place.iterdir() if NAME.fullmatch(path.name)):
        try:
            good.append(load(results, name))
        except ConfigError:  # it was cut off before its manifest: nothing was handed over
            continue
        except RecordError as error:
            bad.append(Unreadable(name, str(error), _keys(results, name)))
    # by the clock and not by name: until schema 2 names were in local time
    return sorted(good, key=lambda one: (one.submitted, one.name)), bad


def _advice(results: ResultsFolder, name: str) -> str:
    """What a person can do about a manifest that cannot be read."""
    tasks = _task_files(results, name)
    jobs = ",".join(job_name(name, array) for array in sorted({task.array for task in tasks}))
    return (
        "its runs count as unknown until it is restored (a copy of the folder, a backup), or until "
        f"its jobs are ended (`scancel --name={jobs or job_name(name, 0)}` on Slurm; with "
        "cluster=local, kill the process `peftbench.cluster.job_runner …/"
        f"{name}`; elsewhere by their name) and {folder(results, name)} is removed"
    )


def _keys(results: ResultsFolder, name: str) -> frozenset[str]:
    found: set[str] = set()
    for task in _task_files(results, name):
        with suppress(OSError, RecordError):
            found |= {job.key for job in read_jobs(results, task)}
    return frozenset(found)


def _task_files(results: ResultsFolder, name: str) -> list[Task]:
    paths = folder(results, name).glob("*_*.json")
    return [Task.read(name, path.stem) for path in paths if re.fullmatch(r"\d+_\d+", path.stem)]


def job_name(name: str, array: int) -> str:
    """What a scheduler calls the jobs of an array of a submission."""
    return f"peftbench-{name}.{array}"


@contextmanager
def alone(results: ResultsFolder) -> Iterator[None]:
    """Hold off other submissions into the folder, on all machines that share it.

    Raises:
        ConfigError: if no claim can be taken.
    """
    with only_one(results, _SUBMITTING, "submits into"):
        io.make_folder(results.submissions())
        yield
