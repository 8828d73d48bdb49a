"""Take submissions back, and look whether they end."""

from dataclasses import dataclass, field, replace

from peftbench.cluster import base, manifest
from peftbench.cluster.manifest import SchedulerUnreachable, Submission, Task, Unreadable, alone
from peftbench.core.errors import ConfigError
from peftbench.results.store import ResultsFolder


@dataclass(frozen=True)
class Cancelled:
    """What became of a submission that was taken back.

    Attributes:
        ended: how many jobs of it waited or ran, and do no more.
        left: jobs that go on, and why.
        doubt: why others may go on without being shown.
        cut_off: whether it was cut off while it was submitted.
        failed: why nothing of it is cancelled, or how far that came.
    """

    name: str
    ended: int
    left: dict[Task, str] = field(default_factory=dict)
    doubt: str | None = None
    cut_off: bool = False
    failed: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether none of its jobs may run on."""
        return not (self.left or self.doubt or self.failed)

    def sentences(self) -> list[str]:
        """For a person."""
        told = [self.failed] if self.failed else []
        if self.ended:
            told.append(f"{self.ended} job{'s' * (self.ended != 1)} cancelled")
        for reason in dict.fromkeys(self.left.values()):
            count = list(self.left.values()).count(reason)
            told.append(f"{count} job{'s' * (count != 1)} could not be cancelled: {reason}")
        if self.doubt:
            told.append(
                f"whether more of it waits or runs is unknown: {self.doubt}; it is noted as "
                "cancelled, so jobs that start from now on do nothing"
            )
        if self.cut_off and not self.ended:
            told.append(
                "it was cut off while it was submitted, and none of its jobs is in the queue; "
                "one that arrives later does nothing"
            )
        return [f"{self.name}: {line}" for line in told]


def cancel(results: ResultsFolder, names: list[str]) -> tuple[list[Cancelled], list[Unreadable]]:
    """Take submissions back, all of the folder by default.

    Returns:
        What became of those with jobs that wait or run, or may; and those that cannot be read.

    Raises:
        ConfigError: for a name that is none.
        RecordError: for a name whose manifest cannot be read.
    """
    found: list[Cancelled] = []
    with alone(results):  # a submission under way would write over what is noted here
        chosen, bad = [manifest.load(results, name) for name in names], list[Unreadable]()
        if not names:
            chosen, bad = manifest.scan(results)
        done = manifest.done_keys(results)
        for one in chosen:
            try:
                found += _cancel(one, results, done)
            except ConfigError as error:  # what became of those before it is reported all the same
                found.append(Cancelled(one.name, 0, failed=str(error)))
    return found, bad


def _cancel(one: Submission, results: ResultsFolder, done: set[str]) -> list[Cancelled]:
    asked = base.build_scheduler(one.cluster)
    try:
        answer = asked.alive([one], results)
    except SchedulerUnreachable as error:
        raise ConfigError(
            f"the scheduler does not answer ({error}), so nothing of it is cancelled; "
            "try again later"
        ) from error
    tasks = list(answer.alive)
    open_ = any(set(keys) - done for _, keys in one.tasks())
    doubt = answer.unsure.get(one.name) if open_ else None
    cut_off = open_ and not one.cancelled and any(array.job is None for array in one.arrays)
    if not tasks and doubt is None and not cut_off:
        return []
    try:  # first, so that none goes back to the queue
        manifest.save(results, replace(one, cancelled=True))
    except OSError as error:
        raise ConfigError(
            f"that {one.name} is cancelled cannot be noted in {results.folder} "
            f"({error.strerror}), so nothing of it is: it belongs to {one.owner_name}"
        ) from error
    try:
        left = asked.cancel(one, tasks, results) if tasks else {}
    except SchedulerUnreachable as error:
        raise ConfigError(
            f"the scheduler does not answer ({error}); it is noted as cancelled, so jobs that "
            "start from now on do nothing; those that run go on: cancel it again later"
        ) from error
    return [Cancelled(one.name, len(tasks) - len(left), left, doubt, cut_off)]
