"""What jobs are handed to: one small interface, all schedulers and this machine behind it."""

import signal
from collections.abc import Iterable
from importlib import import_module
from typing import ClassVar, NamedTuple, Protocol

from peftbench.cluster.manifest import Ending, QueueAnswer, Submission, Task
from peftbench.config.cluster import Cluster
from peftbench.core.errors import ConfigError
from peftbench.results.store import ResultsFolder


class Check(NamedTuple):
    """A finding about a scheduler: what, what was found, what to do, whether jobs cannot run so."""

    what: str
    found: str
    do: str = ""
    bad: bool = False


class Requeued(NamedTuple):
    """How a job goes back to the queue.

    Attributes:
        code: the exit code with which its process ends.
        said: for the log.
        job: its number in the queue, where that is another one now.
    """

    code: int
    said: str
    job: str | None = None


class Scheduler(Protocol):
    """Takes arrays of tasks, says what became of them.

    Attributes:
        title: its name, for people.
        commands: what must be on the path.
        origin: what it was written from, where it is untested on a real cluster; else empty.
        waits: whether an array can wait for the end of others.
        passes_environment: whether jobs get all variables of the submitting shell; else those that
            `exports` gives.
        warnings: signals that come some time before the end.
        left_code: the exit code after which a job does not come back.
    """

    title: ClassVar[str]
    commands: ClassVar[tuple[str, ...]]
    origin: ClassVar[str]
    waits: ClassVar[bool]
    passes_environment: ClassVar[bool]
    warnings: ClassVar[frozenset[signal.Signals]]
    left_code: ClassVar[int]

    def __init__(self, cluster: Cluster): ...

    @property
    def array_limit(self) -> int:
        """How many tasks an array may have."""

    @property
    def site(self) -> str | None:
        """The name of the cluster or machine, by which two of them are distinguished."""

    def exports(self) -> dict[str, str]:
        """Variables of the submitting shell that a script sets."""

    def check_config(self) -> None:
        """Refuse settings of the cluster that it cannot follow.

        Raises:
            ConfigError: saying which, and what to do.
        """

    def resolved(self) -> Cluster:
        """The cluster with what settings of this shell decide, as they may be others later."""

    def send(self, results: ResultsFolder, submission: Submission, array: int) -> str:
        """Hand over an array; return the scheduler's number for it.

        Raises:
            ConfigError: with what the scheduler says against it.
        """

    def alive(self, submissions: list[Submission], results: ResultsFolder) -> QueueAnswer:
        """Which tasks are not over; a task that is not shown is over unless it may be hidden.

        Raises:
            SchedulerUnreachable: if it cannot be asked.
        """

    def cancel(
        self, submission: Submission, tasks: list[Task], results: ResultsFolder
    ) -> dict[Task, str]:
        """End these tasks; return those that go on all the same, and why.

        Raises:
            SchedulerUnreachable: if it cannot be asked.
        """

    def explain(
        self, submission: Submission, tasks: list[Task], results: ResultsFolder
    ) -> dict[Task, Ending]:
        """How tasks ended, as far as the scheduler remembers.

        Raises:
            SchedulerUnreachable: if it cannot be asked.
        """

    def requeue(
        self, results: ResultsFolder, submission: Submission, task: Task
    ) -> Requeued | None:
        """On the node: put the job of this process back to the queue; None where that cannot be."""

    def examine(self, results: ResultsFolder) -> Iterable[Check]:
        """What is odd in what the cluster's yaml asks for.

        Raises:
            SchedulerUnreachable: if it cannot be asked.
        """


def find_scheduler(name: str) -> type[Scheduler]:
    """The class of a scheduler: one of peftbench, or of a module of one's own (`package.module`).

    Raises:
        ConfigError: where there is no such module.
    """
    module = name if "." in name else f"peftbench.cluster.schedulers.{name}"
    try:
        found: type[Scheduler] = import_module(module).SCHEDULER
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"scheduler: {name}: {error}; a scheduler of your own is a module on PYTHONPATH whose "
            "SCHEDULER is a class, see docs/cluster.md"
        ) from error
    return found


def build_scheduler(cluster: Cluster) -> Scheduler:
    """The scheduler of a cluster, on a machine that has its commands.

    Raises:
        ConfigError: where there is none.
    """
    from shutil import which

    found = find_scheduler(cluster.scheduler)
    if missing := [name for name in found.commands if which(name) is None]:
        raise ConfigError(
            f"there is no {found.title} here (no {', '.join(missing)} on the path): submit on a "
            "login node, or with cluster=local"
        )
    return found(cluster)
