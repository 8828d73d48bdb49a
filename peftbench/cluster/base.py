"""What jobs are handed to: one small interface, Slurm and this machine behind it."""

from typing import Protocol

from peftbench.cluster.manifest import Submission, Task
from peftbench.config.cluster import Cluster
from peftbench.core.errors import ConfigError
from peftbench.results.store import Results


class Scheduler(Protocol):
    """Takes arrays of tasks, says what became of them."""

    @property
    def array_limit(self) -> int:
        """How many tasks an array may have."""

    def send(self, results: Results, submission: Submission, array: int) -> str:
        """Hand over an array; return the scheduler's number for it.

        Raises:
            ConfigError: with what the scheduler says against it.
        """

    def alive(self, submissions: list[Submission], results: Results) -> dict[Task, tuple[str, str]]:
        """PENDING or RUNNING for each task that is not over, and the scheduler's reason.

        Raises:
            Silent: if it cannot be asked.
        """

    def cancel(self, submission: Submission, tasks: list[Task], results: Results) -> None:
        """End these tasks."""

    def explain(self, submission: Submission, tasks: list[Task]) -> dict[Task, str]:
        """What the scheduler says of how tasks ended, as far as it remembers."""


def build_scheduler(cluster: Cluster) -> Scheduler:
    """The scheduler of a cluster.

    Raises:
        ConfigError: where there is none.
    """
    if cluster.scheduler == "local":
        from peftbench.cluster.local import Background

        return Background()
    from peftbench.cluster.slurm import Slurm

    found = Slurm(cluster)
    if not found.there():
        raise ConfigError(
            "there is no Slurm here (no sbatch, squeue and srun on the path): submit on a login "
            "node, or with cluster=local"
        )
    return found
