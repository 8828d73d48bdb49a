"""Why a job has no result: classes of failures, and what the exit code of a process means."""

import signal
from dataclasses import dataclass, field, replace

from peftbench.core.evaluation import ClusterJob


@dataclass(frozen=True)
class Failure:
    """Why a run has no record, or an evaluation no findings.

    Attributes:
        job: the run, the evaluation, or the choice of a rate.
        kind: the class of the failure, see `FAILURE_KINDS`.
        reason: one line.
        attempts: how often it has failed.
        seconds: that the last one took; None where that was not taken.
        by_kind: of the attempts, how many failed in each way; empty in older notes.
    """

    job: ClusterJob
    kind: str
    reason: str
    attempts: int = 1
    seconds: float | None = None
    by_kind: dict[str, int] = field(default_factory=dict, hash=False)

    def times(self, kind: str) -> int:
        """How often it failed in a way; all attempts count as of this kind where no note says."""
        return (self.by_kind or {self.kind: self.attempts}).get(kind, 0)

    @property
    def alike(self) -> int:
        """How often it failed as it did last."""
        return self.times(self.kind)

    def after(self, before: "Failure | None") -> "Failure":
        """This failure as the next one after another of its job."""
        if before is None:
            return replace(self, attempts=1, by_kind={self.kind: 1})
        counts = before.by_kind or {before.kind: before.attempts}
        counts = counts | {self.kind: counts.get(self.kind, 0) + 1}
        return replace(self, attempts=before.attempts + 1, by_kind=counts)


#: Why a run may have no record, and what that means.
FAILURE_KINDS = {
    "diverged": "the loss or the predictions were no longer finite",
    "memory": "out of memory, on the GPU at one example a pass or by the kernel's killer",
    "killed": "the process was killed by a signal",
    "exit": "the process ended by itself",
    "disk": "the results folder could take no more",
    "data": "data or weights could not be loaded",
    "system": "the operating system refused: a file server, a permission, too many open files",
    "lost": "its job on a cluster ended without a word",
    "cancelled": "its job on a cluster was cancelled",
    "error": "an exception; the log has the traceback",
}

#: Failures that come from outside: such runs are tried again unless --retry says otherwise.
TRANSIENT_FAILURES = ("killed", "exit", "disk", "data", "system", "lost", "cancelled")


def explain_exit(code: int, kernel_kills: int) -> tuple[str, str]:
    """Class and reason of a process that ended with this code while it had a run."""
    if code >= 0:
        return "exit", f"the worker ended with exit code {code}"
    known = {number.value: number.name for number in signal.Signals}
    name = known.get(-code, f"signal {-code}")
    if -code == signal.SIGKILL and kernel_kills > 0:
        return "memory", "killed by the kernel, which ran out of memory; try fewer --workers"
    return "killed", f"the worker was killed by {name}"
