"""IBM Spectrum LSF 10.1, from its manuals.

Tasks count from 1 there, and from 0 in files; an array of one task is an array too. A job that
leaves with code 75 is run again (`bsub -Q`), so one that leaves for good does so with 0.
"""

import json
import os
import re
from collections.abc import Iterator
from typing import Any

from peftbench.cluster.base import Check
from peftbench.cluster.commands import answers, ask, reading, refusal, run
from peftbench.cluster.manifest import (
    PENDING,
    RUNNING,
    Ending,
    SchedulerUnreachable,
    Submission,
    Task,
)
from peftbench.cluster.scripted import OVER, Scripted, Seen, named, owners
from peftbench.results.store import ResultsFolder

#: What `exit_reason` begins with.
_REASONS = {
    "TERM_MEMLIMIT": "memory",
    "TERM_RUNLIMIT": "time",
    "TERM_OWNER": "cancelled",
    "TERM_FORCE_OWNER": "cancelled",
    "TERM_ADMIN": "cancelled",
    "TERM_FORCE_ADMIN": "cancelled",
}

_WAIT = {"PEND": "", "PSUSP": "bresume JOB", "WAIT": ""}
_RUN = {"RUN", "SSUSP", "USUSP", "PROV", "UNKWN", "ZOMBI"}  # the last two: the host is silent


class Lsf(Scripted):
    """The LSF that this machine's commands reach."""

    title = "LSF"
    passes_environment = True
    commands = ("bsub", "bjobs", "bkill")
    submit = ("bsub",)
    ends = ("bkill",)
    again = 75
    left_code = 0
    settle = 30.0  # bkill sends INT, TERM and KILL, ten seconds apart
    reserved = ("J", "o", "oo", "e", "eo", "r", "Q", "K", "I", "cwd", "i")

    @property
    def array_limit(self) -> int:
        """MAX_JOB_ARRAY_SIZE bounds the index, which begins at 1."""
        found = re.search(r"MAX_JOB_ARRAY_SIZE\s*=\s*(\d+)", ask("bparams", "-a"))
        return int(found[1]) if found else 1000

    @property
    def site(self) -> str | None:
        """The name of the cluster."""
        found = re.search(r"My cluster name is (\S+)", ask("lsid"))
        return found[1] if found else None

    def hidden(self, submission: Submission) -> str | None:
        """Also jobs of others where SECURE_JOB_INFO_LEVEL may hide them; see `Scripted`."""
        if reason := super().hidden(submission):
            return reason
        if submission.owner in (None, os.getuid()):
            return None
        level = re.search(r"SECURE_JOB_INFO_LEVEL\s*=\s*(\d)", ask("bparams", "-a"))
        if level and level[1] == "0":
            return None
        owner = submission.owner_name
        return (
            f"{owner} submitted it, and this LSF may show jobs to their owner alone "
            f"(SECURE_JOB_INFO_LEVEL): ask {owner} for `peftbench collect`, which notes what is "
            "over"
        )

    def submitted(self, printed: str) -> str:
        """`Job <12> is submitted to queue <normal>.`"""  # noqa: D415 - as it is printed
        (number,) = re.findall(r"Job <(\d+)>", printed)
        return str(number)

    def find(self, submissions: list[Submission], results: ResultsFolder) -> dict[Task, Seen]:
        """By number, else by name; those too that ended within the last hour; see `Scripted`."""
        columns = "jobid jobindex stat exit_code exit_reason pend_reason job_name"
        users = [word for name in owners(submissions) for word in ("-u", name)]
        if len(users) > 2:  # one user, or all of them
            users = ["-u", "all"]
        done = run("bjobs", "-a", *users, "-o", columns, "-json")
        if done.returncode and not re.search(r"No .*job found", done.stderr):
            raise SchedulerUnreachable(f"bjobs: {refusal(done)}")
        known = {
            sent.job: (one.name, a)
            for one in submissions
            for a, sent in enumerate(one.arrays)
            if sent.job is not None
        }
        names = named(submissions)
        found: dict[Task, Seen] = {}
        with reading("bjobs", done.stdout):
            for one in json.loads(done.stdout)["RECORDS"] if done.stdout.strip() else []:
                name = one["JOB_NAME"].partition("[")[0]
                array = known.get(one["JOBID"]) or names.get(name)
                if array is not None:
                    found[Task(*array, int(one["JOBINDEX"]) - 1)] = _seen(one)
        return found

    def examine(self, results: ResultsFolder) -> Iterator[Check]:
        """Queue and GPUs; see `base.Scheduler`."""
        queue = self.cluster.partition
        if queue and not answers("bqueues", queue):
            found = "there is none; `bqueues` lists them"
            yield Check(f"queue {queue}", found, "cluster.partition=", bad=True)
        if self.cluster.gpus and not answers("bhosts", "-gpu"):
            yield Check("GPUs", "no host shows any (`bhosts -gpu`)", "cluster.gpus=0", bad=True)
        found = "how jobs ended is known for CLEAN_PERIOD, an hour by default"
        yield Check("history", found, "collect soon after the end")


def _seen(one: dict[str, Any]) -> Seen:
    number, state = f"{one['JOBID']}[{one['JOBINDEX']}]", one["STAT"]
    if state in _WAIT:
        reason = " ".join(one.get("PEND_REASON", "").split()).rstrip(";")
        return Seen(PENDING, number, reason or state.lower(), _WAIT[state] or None)
    if state in _RUN:
        return Seen(RUNNING, number)
    if state == "DONE":
        return Seen(OVER, number, ending=Ending("exit", "exit code 0"))
    if state == "EXIT":
        reason = one.get("EXIT_REASON", "").strip()
        words = reason or f"exit code {one.get('EXIT_CODE') or '?'}"
        kind = _REASONS.get(reason.partition(":")[0].strip(), "exit")
        return Seen(OVER, number, ending=Ending(kind, words))
    raise ValueError(f"state {state}")


SCHEDULER = Lsf
