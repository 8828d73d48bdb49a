"""What jobs are handed to: one small interface, Slurm and this machine behind it."""

from typing import Protocol

from peftbench.cluster.manifest import QueueAnswer, Submission, Task
from peftbench.config.cluster import Cluster
from peftbench.core.errors import ConfigError
from peftbench.results.store import Results


class Scheduler(Protocol):
    """Takes arrays of tasks, says what became of them."""

    @property
    def array_limit(self) -> int:
        """How many tasks an array may have."""

    @property
    def site(self) -> str | None:
        """The name of the cluster or machine, by which two of them are distinguished."""

    def check(self) -> None:
        """Refuse settings of the cluster that it cannot follow.

        Raises:
            ConfigError: saying which, and what to do.
        """

    def send(self, results: Results, submission: Submission, array: int) -> str:
        """Hand over an array; return the scheduler's number for it.

        Raises:
            ConfigError: with what the scheduler says against it.
        """

    def alive(self, submissions: list[Submission], results: Results) -> QueueAnswer:
        """Which tasks are not over; a task that is not shown is over unless it may be hidden.

        Raises:
            SchedulerUnreachable: if it cannot be asked.
        """

    def cancel(
        self, submission: Submission, tasks: list[Task], results: Results
    ) -> dict[Task, str]:
        """End these tasks; return those that go on all the same, and why.

        Raises:
            SchedulerUnreachable: if it cannot be asked.
        """

    def explain(self, submission: Submission, tasks: list[Task]) -> dict[Task, str]:
        """What the scheduler says of how tasks ended, as far as it remembers."""


def build_scheduler(cluster: Cluster) -> Scheduler:
    """The scheduler of a cluster.

    Raises:
        ConfigError: where there is none.
    """
    if cluster.scheduler == "local":
        from peftbench.cluster.local import Background

        return Background(cluster)
    from peftbench.cluster.slurm import Slurm

    found = Slurm(cluster)
    if not found.there():
        raise ConfigError(
            "there is no Slurm here (no sbatch, squeue and srun on the path): submit on a login "
            "node, or with cluster=local"
        )
    return found
