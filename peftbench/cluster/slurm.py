"""Slurm: the only module that calls its commands.

What became of a run is read from its files, whether a job lives from `squeue`. Jobs are found by
their names, so those of a submission that was cut off before it noted their numbers are found too.
`sacct`, where there is one, only explains.
"""

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from functools import cached_property

from peftbench.cluster import environment, slurm_script
from peftbench.cluster.manifest import (
    PENDING,
    RUNNING,
    QueueAnswer,
    SchedulerUnreachable,
    Submission,
    Task,
    folder,
    job_name,
)
from peftbench.config.cluster import Cluster
from peftbench.core.errors import ConfigError
from peftbench.results.store import Results

#: States after which nothing comes.
OVER = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"),
    *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
}

#: Seconds after which a command of Slurm is given up.
PATIENCE = 60

#: Seconds in which a job that was cancelled has left the queue, or is about to.
SETTLE = 5.0

#: Names or numbers in one command.
_AT_ONCE = 500


@dataclass(frozen=True)
class _Seen:
    """A line of `squeue`."""

    number: str
    state: str
    reason: str

    @property
    def over(self) -> bool:
        return self.state in OVER


class Slurm:
    """The Slurm that this machine's commands reach."""

    def __init__(self, cluster: Cluster):
        self.cluster = cluster

    @staticmethod
    def there() -> bool:
        """Whether its commands are on the path."""
        return all(shutil.which(name) for name in ("sbatch", "squeue", "srun", "scancel"))

    @property
    def array_limit(self) -> int:
        """MaxArraySize bounds the index, which begins at 0."""
        return int(self._config.get("MaxArraySize", 1000))

    @property
    def site(self) -> str | None:
        """The name of the cluster."""
        return self._config.get("ClusterName")

    def check(self) -> None:
        """Refuse what the script of a job cannot have; see `Scheduler`."""
        slurm_script.check(self.cluster)

    def send(self, results: Results, submission: Submission, array: int) -> str:
        """Hand over an array of tasks; see `Scheduler`."""
        options = slurm_script.options(results, submission, array)
        path = folder(results, submission.name) / f"{array}.sh"
        results.write(path, slurm_script.script(results, submission, array).encode())
        try:
            done = _run("sbatch", "--parsable", *options, str(path))
        except SchedulerUnreachable as error:
            raise ConfigError(
                f"{error}; whether Slurm took the jobs is what `peftbench status` says later"
            ) from error
        if done.returncode:
            said = [line.removeprefix("sbatch: error: ") for line in done.stderr.splitlines()]
            reason = "; ".join(filter(None, said)) or f"exit code {done.returncode}"
            raise ConfigError(f"Slurm refuses: {reason}")
        return done.stdout.split()[-1].partition(";")[0]

    def alive(self, submissions: list[Submission], results: Results) -> QueueAnswer:
        """One question for the jobs of all submissions, whoever made them; see `Scheduler`."""
        answer = QueueAnswer()
        seen = _find(submissions)
        for task, one in seen.items():
            if not one.over:
                waits = one.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED")
                answer.alive[task] = (PENDING, one.reason) if waits else (RUNNING, "")
        for submission in submissions:
            absent = any(task not in seen for task, _ in submission.tasks())
            if absent and (reason := self._blind(submission)):
                answer.unsure[submission.name] = reason
        return answer

    def cancel(
        self, submission: Submission, tasks: list[Task], results: Results
    ) -> dict[Task, str]:
        """End tasks, and look whether they do; see `Scheduler`."""
        numbers = [one.number for task, one in _find([submission]).items() if task in tasks]
        against = ""
        for start in range(0, len(numbers), _AT_ONCE):
            try:
                _ask("scancel", *numbers[start : start + _AT_ONCE])
            except SchedulerUnreachable as error:  # one of them has just ended, or is another's
                against = str(error)
        end = time.monotonic() + SETTLE
        while left := [
            task
            for task, one in _find([submission]).items()
            if task in tasks and not one.over and one.state != "COMPLETING"
        ]:
            if against or time.monotonic() > end:
                break
            time.sleep(0.5)
        why = against or f"it is in the queue {SETTLE:.0f} s after scancel"
        return dict.fromkeys(left, why)

    def explain(self, submission: Submission, tasks: list[Task]) -> dict[Task, str]:
        """From `squeue`, which remembers for some minutes, else from `sacct`; see `Scheduler`."""
        seen = _find([submission])
        told = {task: seen[task].state for task in tasks if task in seen}
        rest = {job: task for task in tasks if task not in told and (job := submission.job(task))}
        if rest:
            jobs = ",".join(sorted({job.partition("_")[0] for job in rest}))
            columns = ("--noheader", "--allocations", "--parsable2", "--format=JobID,State")
            try:
                lines = _ask("sacct", *columns, "--allusers", f"--jobs={jobs}")
            except SchedulerUnreachable:  # no accounting: it is not explained
                return told
            for line in lines.splitlines():
                job, _, state = line.partition("|")
                if job in rest:
                    told[rest[job]] = state.split()[0]  # CANCELLED by 1000
        return told

    @cached_property
    def _config(self) -> dict[str, str]:
        lines = [line.partition("=") for line in _ask("scontrol", "show", "config").splitlines()]
        return {name.strip(): value.strip() for name, equals, value in lines if equals}

    def _blind(self, submission: Submission) -> str | None:
        """Why jobs of a submission may live that `squeue` does not show here."""
        if submission.site not in (None, self.site):
            return (
                f"it went to the Slurm cluster {submission.site}, the commands here reach "
                f"{self.site}: look there (or set SLURM_CONF)"
            )
        private = self._config.get("PrivateData", "").split(",")
        if "jobs" in private and submission.owner not in (None, os.getuid()):
            owner = submission.owner_name
            return (
                f"{owner} submitted it, and this Slurm shows jobs to their owner alone "
                f"(PrivateData): ask {owner} for `peftbench collect`, which notes what is over"
            )
        return None


def _find(submissions: list[Submission]) -> dict[Task, _Seen]:
    """Tasks that Slurm shows, of all users and partitions; those that have just ended too."""
    names = {job_name(s.name, a): (s.name, a) for s in submissions for a in range(len(s.arrays))}
    how = ("--noheader", "--array", "--all", "--states=all", "--format=%i|%T|%r|%j")
    found = {}
    known = list(names)
    for start in range(0, len(known), _AT_ONCE):
        chosen = ",".join(known[start : start + _AT_ONCE])
        for line in _ask("squeue", *how, f"--name={chosen}").splitlines():
            parts = [part.strip() for part in line.split("|", 3)]
            if len(parts) < 4:  # of an answer that is not understood nothing is concluded
                raise SchedulerUnreachable(f"squeue printed {line!r}")
            number, state, reason, name = parts
            if name in names:
                task = Task(*names[name], int(number.partition("_")[2] or 0))
                found[task] = _Seen(number, state, reason)
    return found


def examine(cluster: Cluster) -> list[tuple[str, str, str]]:
    """What is odd in what a cluster's yaml asks for: what, what was found, what to do.

    Raises:
        SchedulerUnreachable: if Slurm does not answer.
    """
    told = []
    names = _ask("sinfo", "-h", "-o", "%R|%l|%G|%D").splitlines()
    partitions = {line.split("|")[0]: line.split("|")[1:] for line in names}
    wanted = cluster.partition
    if wanted is not None and any(name not in partitions for name in wanted.split(",")):
        known = ", ".join(sorted(partitions))
        told.append(
            (f"partition {wanted}", f"there is none; there are {known}", "cluster.partition=")
        )
    elif wanted is not None:
        limits = [_minutes(partitions[name][0]) for name in wanted.split(",")]
        asked = cluster.minutes or cluster.most_minutes
        if all(limit is not None and limit < asked for limit in limits):
            most = max(limit for limit in limits if limit is not None)
            found = f"its limit is {most} minutes, {asked} may be asked for"
            told.append((f"partition {wanted}", found, f"cluster.most_minutes={most}"))
    if cluster.gpus and not any("gpu" in about[1] for about in partitions.values()):
        told.append(("GPUs", "no partition has any", "cluster.gpus=0"))
    if shutil.which("sacct") is None or not _answers("sacct", "-n", "-X"):
        found = "no accounting: how jobs ended is only known for some minutes"
        told.append(("sacct", found, "nothing has to be done"))
    return told


def _answers(*command: str) -> bool:
    try:
        _ask(*command)
    except SchedulerUnreachable:
        return False
    return True


def _minutes(limit: str) -> int | None:
    """Minutes of Slurm's [days-][hours:]minutes:seconds; None for infinite."""
    if not limit[:1].isdigit():
        return None
    days, _, clock = limit.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    while len(parts) < 3:
        parts.insert(0, 0)
    return int(days or 0) * 1440 + parts[0] * 60 + parts[1]


def _ask(*command: str) -> str:
    """What a command of Slurm prints.

    Raises:
        SchedulerUnreachable: if it fails or takes too long.
    """
    done = _run(*command)
    if done.returncode:
        reason = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise SchedulerUnreachable(f"{command[0]}: {reason[-1]}")
    return done.stdout


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of Slurm in an environment that does not change what it means.

    Raises:
        SchedulerUnreachable: if it is not there or takes too long.
    """
    try:
        return subprocess.run(
            command,
            env=environment.cleaned(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    except FileNotFoundError as error:
        raise SchedulerUnreachable(f"{command[0]} is not on the path") from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerUnreachable(f"{command[0]} did not answer within {PATIENCE} s") from error
