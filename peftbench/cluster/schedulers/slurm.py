"""Slurm.

What became of a run is read from its files, whether a job lives from `squeue`. Jobs are found by
their names, so those of a submission that was cut off before it noted their numbers are found too.
`sacct`, where there is one, only explains.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from peftbench.cluster import environment
from peftbench.cluster.base import Check, Requeued
from peftbench.cluster.commands import AT_ONCE, answers, ask, reading
from peftbench.cluster.manifest import (
    PENDING,
    RUNNING,
    Ending,
    SchedulerUnreachable,
    Submission,
    Task,
)
from peftbench.cluster.scripted import OVER, Scripted, Seen, bare, named
from peftbench.core.errors import ConfigError
from peftbench.results.store import ResultsFolder

#: States after which nothing comes, and what they mean.
ENDINGS = {
    **dict.fromkeys(("BOOT_FAIL", "NODE_FAIL", "PREEMPTED", "REVOKED"), "node"),
    **dict.fromkeys(("DEADLINE", "TIMEOUT"), "time"),
    **dict.fromkeys(("COMPLETED", "FAILED"), "exit"),
    "CANCELLED": "cancelled",
    "OUT_OF_MEMORY": "memory",
}

#: States of jobs that do not run at present.
_WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED")

#: Runs what follows without minding the signals that end the job.
_SHIELD = ("bash", "-c", 'trap "" TERM USR2 CONT; exec "$@"', "--")


class Slurm(Scripted):
    """The Slurm that this machine's commands reach."""

    title = "Slurm"
    passes_environment = True
    commands = ("sbatch", "squeue", "srun", "scancel")
    submit = ("sbatch", "--parsable")
    ends = ("scancel",)
    dashes = "--"
    reads = False
    trial = ("--test-only",)
    origin = ""
    reserved = (
        *("array", "chdir", "cluster-constraint", "clusters", "error", "input", "job-name"),
        *("open-mode", "output", "parsable", "test-only", "wait", "wrap"),
    )

    @property
    def array_limit(self) -> int:
        """MaxArraySize bounds the index, which begins at 0."""
        return int(self._config.get("MaxArraySize", 1000))

    @property
    def site(self) -> str | None:
        """The name of the cluster."""
        return self._config.get("ClusterName")

    def fields(self, results: ResultsFolder, submission: Submission, array: int) -> dict[str, Any]:
        """With the pattern of logs; see `Scripted`."""
        found = super().fields(results, submission, array)
        if "\\" in found["place"]:
            raise ConfigError(
                f"{found['place']}: Slurm replaces no number in the path of a log that has a "
                "backslash; choose another folder with --results"
            )
        # a % in a folder's name stands for itself
        place, number = found["place"].replace("%", "%%"), "%a" if found["count"] > 1 else "0"
        options = {bare(name): value for name, value in found["options"].items()}
        if found["after"]:  # trials may fail: what comes after them does with those that are there
            own = [f"afterany:{':'.join(found['after'])}", options.get("dependency")]
            options["dependency"] = ",".join(filter(None, own))
        return found | {"log": f"{place}/{array}_{number}.log", "options": options}

    def submitted(self, printed: str) -> str:
        """`12;cluster`, the cluster where there are several."""
        return printed.split()[-1].partition(";")[0]

    def find(self, submissions: list[Submission], results: ResultsFolder) -> dict[Task, Seen]:
        """Of all users and partitions, those too that have just ended; see `Scripted`."""
        names = named(submissions)
        how = ("--noheader", "--array", "--all", "--states=all", "--format=%i|%T|%r|%j")
        found = {}
        known = list(names)
        for start in range(0, len(known), AT_ONCE):
            chosen = ",".join(known[start : start + AT_ONCE])
            answer = ask("squeue", *how, f"--name={chosen}")
            with reading("squeue", answer):
                for line in answer.splitlines():
                    number, state, reason, name = (part.strip() for part in line.split("|", 3))
                    if name in names:
                        task = Task(*names[name], int(number.partition("_")[2] or 0))
                        found[task] = _seen(number, state, reason)
        return found

    def explain(
        self, submission: Submission, tasks: list[Task], results: ResultsFolder
    ) -> dict[Task, Ending]:
        """From `squeue`, which remembers for some minutes, else from `sacct`; see `Scheduler`."""
        told = super().explain(submission, tasks, results)
        rest = {
            (f"{job}_{task.number}" if len(array.tasks) > 1 else job): task
            for task in tasks
            if task not in told and (job := (array := submission.arrays[task.array]).job)
        }
        if rest:
            jobs = ",".join(sorted({job.partition("_")[0] for job in rest}))
            columns = ("--noheader", "--allocations", "--parsable2", "--format=JobID,State")
            try:
                lines = ask("sacct", *columns, "--allusers", f"--jobs={jobs}")
            except SchedulerUnreachable:  # no accounting: it is not explained
                return told
            waited: dict[str, Ending] = {}
            for line in lines.splitlines():
                job, _, state = line.partition("|")
                if not state:
                    continue
                state = state.split()[0]  # CANCELLED by 1000
                ending = Ending(ENDINGS.get(state, "exit"), state)
                # 12_[5-99%4]: all tasks of an array that never started are one line
                if "[" in job and state in ENDINGS:
                    waited[job.partition("_")[0]] = ending
                elif job in rest:
                    told[rest[job]] = ending
            for job, task in rest.items():
                if task not in told and (number := job.partition("_")[0]) in waited:
                    told[task] = waited[number]
        return told

    def hidden(self, submission: Submission) -> str | None:
        """Also jobs of others where PrivateData hides them; see `Scripted`."""
        if reason := super().hidden(submission):
            return f"{reason} (or set SLURM_CONF)"
        private = self._config.get("PrivateData", "").split(",")
        if "jobs" in private and submission.owner not in (None, os.getuid()):
            owner = submission.owner_name
            return (
                f"{owner} submitted it, and this Slurm shows jobs to their owner alone "
                f"(PrivateData): ask {owner} for `peftbench collect`, which notes what is over"
            )
        return None

    def requeue(self, results: ResultsFolder, submission: Submission, task: Task) -> Requeued:
        """By scontrol; the signals that end the job reach its children, which must not mind."""
        job = os.environ["SLURM_JOB_ID"]
        if "SLURM_ARRAY_JOB_ID" in os.environ:
            job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
        command = [*_SHIELD, "scontrol", "requeue", job]
        done = subprocess.run(command, capture_output=True, text=True, env=environment.cleaned())
        said = done.stderr.strip() or f"job {job} goes back to the queue"
        return Requeued(self.left_code, said)

    def examine(self, results: ResultsFolder) -> Iterator[Check]:
        """Partition, limits, GPUs, accounting; see `Scheduler`."""
        lines = ask("sinfo", "-h", "-o", "%R|%l|%G|%D").splitlines()
        partitions = {line.split("|")[0]: line.split("|")[1:] for line in lines}
        wanted = self.cluster.partition
        if wanted is not None and any(name not in partitions for name in wanted.split(",")):
            found = f"there is none; there are {', '.join(sorted(partitions))}"
            yield Check(f"partition {wanted}", found, "cluster.partition=", bad=True)
        elif wanted is not None:
            limits = [_minutes(partitions[name][0]) for name in wanted.split(",")]
            asked = self.cluster.minutes or self.cluster.most_minutes
            if all(limit is not None and limit < asked for limit in limits):
                most = max(limit for limit in limits if limit is not None)
                found = f"its limit is {most} minutes, {asked} may be asked for"
                do = f"cluster.most_minutes={most}"
                yield Check(f"partition {wanted}", found, do, bad=True)
        if self.cluster.gpus and not any("gpu" in about[1] for about in partitions.values()):
            yield Check("GPUs", "no partition has any", "cluster.gpus=0", bad=True)
        if shutil.which("sacct") is None or not answers("sacct", "-n", "-X"):
            found = "no accounting: how jobs ended is only known for some minutes"
            yield Check("sacct", found, "nothing has to be done")
        yield from super().examine(results)

    @cached_property
    def _config(self) -> dict[str, str]:
        lines = [line.partition("=") for line in ask("scontrol", "show", "config").splitlines()]
        return {name.strip(): value.strip() for name, equals, value in lines if equals}


def _seen(number: str, state: str, reason: str) -> Seen:
    if state in ENDINGS:
        return Seen(OVER, number, ending=Ending(ENDINGS[state], state))
    waits = state in _WAITING
    return Seen(
        PENDING if waits else RUNNING,
        number,
        reason,
        release="scontrol release JOB" if waits and "held" in reason.lower() else None,
        leaving=state == "COMPLETING",
    )


def _minutes(limit: str) -> int | None:
    """Minutes of Slurm's [days-][hours:]minutes:seconds; None for infinite."""
    if not limit[:1].isdigit():
        return None
    days, _, clock = limit.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    while len(parts) < 3:
        parts.insert(0, 0)
    return int(days or 0) * 1440 + parts[0] * 60 + parts[1]


SCHEDULER = Slurm
