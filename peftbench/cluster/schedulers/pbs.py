"""PBS Professional and OpenPBS.

A user cannot put a job back to the queue there: a task that stops at its time is sent again by the
next `submit`, or by its node (`cluster.resubmit`). Jobs are found by number, since every text form
cuts their names. Exit codes of qdel and qstat say little, so what they did is asked for again.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from peftbench.cluster import turns
from peftbench.cluster.base import Check, Requeued
from peftbench.cluster.commands import ask, reading, refusal, run
from peftbench.cluster.manifest import (
    PENDING,
    RUNNING,
    Ending,
    SchedulerUnreachable,
    Sent,
    Submission,
    Task,
    folder,
    job_name,
)
from peftbench.cluster.scripted import Seen, WithHistory, owners
from peftbench.core.errors import ConfigError
from peftbench.results.store import ResultsFolder

#: Exit codes of qdel for a job that is over, or that the server has forgotten.
_GONE = (35, 153)

#: `Exit_status` of a job that broke a limit.
_LIMITS = {-26: "memory", -27: "memory", -29: "time"}

#: A line of `qstat -w`: number, index, user, queue, name, and the state before the last word.
_JOB = re.compile(r"(\d+)(?:\[(\d*)\])?\S*\s+\S+\s+\S+\s+(\S+)\s.*\s([A-Z])\s+\S+\s*$")

#: Reasons that are none.
_NO_REASON = ("--", "Job Array Began", "Job run at", "Subjob finished")


class Pbs(WithHistory):
    """The PBS that this machine's commands reach."""

    title = "PBS"
    commands = ("qsub", "qstat", "qdel")
    submit = ("qsub",)
    origin = "recorded answers of an OpenPBS 23.06"
    settle = 15.0  # TERM, and KILL ten seconds later
    resources = (("gpu_resource", "gpus"),)
    reserved = ("f", "N", "S", "j", "o", "e", "k", "J", "r", "R", "V", "I", "X", "z")

    @property
    def array_limit(self) -> int:
        """The least of the server's and the queue's `max_array_size`, where they say one."""
        told = [_if_answered("qmgr", "-c", "list server max_array_size")]
        if self.cluster.partition:
            told.append(_if_answered("qstat", "-Q", "-f", self.cluster.partition))
        found = [int(n) for text in told for n in re.findall(r"max_array_size = (\d+)", text)]
        return min(found, default=10000)

    @property
    def site(self) -> str | None:
        """The server that commands ask, as they find it: by a variable, else by a file."""
        for name in ("PBS_DEFAULT", "PBS_SERVER"):
            if os.environ.get(name):
                return os.environ[name]
        try:
            path = Path(os.environ.get("PBS_CONF_FILE", "/etc/pbs.conf"))
            text = path.read_text(encoding="utf-8")
        except OSError:
            return None
        found = re.search(r"^PBS_SERVER=(\S+)", text, re.MULTILINE)
        return found[1] if found else None

    def check_config(self) -> None:
        """Also that the commands are not those of Grid Engine or Torque; see `base.Scheduler`."""
        super().check_config()
        done = run("qstat", "--version")
        said = " ".join(f"{done.stdout} {done.stderr}".split())
        if "pbs_version" not in said:
            raise ConfigError(
                f"qstat here is not that of PBS Professional or OpenPBS (`qstat --version` says "
                f"{said[:80]!r}); is it Grid Engine (cluster=grid_engine)?"
            )

    def complaint(self, done: "subprocess.CompletedProcess[str]") -> str:
        """Also what to do about an array that is refused; see `Scripted`."""
        said = super().complaint(done)
        if "-J" in said:
            said += (
                "; a PBS before 2020.1 limits no array: set cluster.parallel to at least "
                "cluster.array_size"
            )
        return said

    def submitted(self, printed: str) -> str:
        """`12[].server`, without an array `12.server`."""
        number = printed.split()[-1]
        if not re.match(r"\d+(\[\])?(\.|$)", number):
            raise ValueError("no number of a job")
        return number

    def find(self, submissions: list[Submission], results: ResultsFolder) -> dict[Task, Seen]:
        """By their numbers, of the users who made the submissions; see `Scripted`."""
        answer = ask("qstat", "-t", "-w", "-s", "-u", ",".join(owners(submissions)))
        known = _numbers(submissions, results)
        with reading("qstat", answer):
            return read_tasks(answer, known)

    def hidden(self, submission: Submission) -> str | None:
        """Also jobs of others: a server may show them to their owner alone; see `Scripted`."""
        if submission.owner not in (None, os.getuid()):
            owner = submission.owner_name
            return (
                f"{owner} submitted it, and PBS may show jobs to their owner alone "
                f"(query_other_jobs): ask {owner} for `peftbench collect`, which notes what is over"
            )
        return super().hidden(submission)

    def end(self, submission: Submission, seen: dict[Task, Seen], whole: set[int]) -> None:
        """One range in each call: of a list qdel deletes two, and exits with 0."""
        words = []
        for array in sorted({task.array for task in seen}):
            chosen = {task.number: one.number for task, one in seen.items() if task.array == array}
            job = submission.arrays[array].job
            if array in whole and job and "[]" in job:
                chosen = {n: number for n, number in chosen.items() if "[" not in number}
                words.append(job)
            for first, last in _ranges([n for n, number in chosen.items() if "[" in number]):
                span = f"[{first}]" if first == last else f"[{first}-{last}]"
                words.append(re.sub(r"\[\d+\]", span, chosen[first]))
            words += [number for number in chosen.values() if "[" not in number]
        against = []
        for word in words:
            done = run("qdel", word)
            if done.returncode not in (0, *_GONE):
                against.append(f"qdel {word}: {refusal(done)}")
        if against:
            raise SchedulerUnreachable("; ".join(against[:3]))

    def history(self, sent: Sent) -> dict[int, Ending]:
        """From the server, where it keeps one."""
        answer = ask("qstat", "-x", "-t", "-f", "-F", "json", str(sent.job))
        with reading("qstat", answer):
            return read_endings(json.loads(answer).get("Jobs", {}))

    def explain(
        self, submission: Submission, tasks: list[Task], results: ResultsFolder
    ) -> dict[Task, Ending]:
        """Of a task that its node sent again, how the latest of its jobs ended; see `Scripted`."""
        found = super().explain(submission, tasks, results)
        for task in tasks:
            if again := turns.read(results, task).job:
                with suppress(SchedulerUnreachable):
                    endings = self.history(Sent([[]], None, None, again))
                    found.update((task, ending) for ending in endings.values())
        return found

    def requeue(
        self, results: ResultsFolder, submission: Submission, task: Task
    ) -> Requeued | None:
        """A new job for the rest of this one's task, if the cluster's yaml wants it so."""
        if not submission.cluster.resubmit:
            return None
        text = self.script(results, submission, task.array, only=task.number)
        path = folder(results, submission.name) / f"{task}.again.sh"
        try:
            job = self.hand_over(text, path, results)
        except ConfigError as error:
            return Requeued(self.left_code, f"it cannot be sent again: {error}")
        return Requeued(self.left_code, f"it goes on as {job}", job)

    def examine(self, results: ResultsFolder) -> Iterator[Check]:
        """Queue, limits, GPUs, history; see `base.Scheduler`."""
        asked, queue = self.cluster, self.cluster.partition
        about = _if_answered("qstat", "-Q", "-f", queue) if queue else ""
        if queue and not about:
            found = "there is none; `qstat -Q` lists them"
            yield Check(f"queue {queue}", found, "cluster.partition=", bad=True)
        limit = re.search(r"resources_max\.walltime = (\d+):(\d+)", about)
        minutes = asked.minutes or asked.most_minutes
        if limit and (most := 60 * int(limit[1]) + int(limit[2])) < minutes:
            found = f"its limit is {most} minutes, {minutes} may be asked for"
            yield Check(f"queue {queue}", found, f"cluster.most_minutes={most}", bad=True)
        if asked.gpus:
            nodes = _if_answered("pbsnodes", "-a")
            found = f"asked for as {asked.gpu_resource}={asked.gpus}"
            if nodes and f"resources_available.{asked.gpu_resource} =" not in nodes:
                found += ", which no node has"
                yield Check("GPUs", found, "cluster.gpu_resource=", bad=True)
            else:
                do = "without the site's cgroups hook jobs see all GPUs of a node"
                yield Check("GPUs", found, do)
        if "job_history_enable = True" not in _if_answered("qstat", "-B", "-f"):
            found = "the server keeps no history: how jobs ended is not known"
            yield Check("history", found, "nothing has to be done")
        if not asked.resubmit:
            found = "a job cannot go back to the queue: at its time limit a task is left"
            yield Check("time limit", found, "submit again then, or set cluster.resubmit=true")


class ArrayJob(NamedTuple):
    """An array, or the job of one task alone."""

    number: str
    submission: str
    array: int
    task: int | None
    waits: bool


def _numbers(submissions: list[Submission], results: ResultsFolder) -> dict[str, ArrayJob]:
    """What is looked for, by the digits of its number."""
    found: list[ArrayJob] = []
    for one in submissions:
        for a, sent in enumerate(one.arrays):
            number = sent.job
            if number is None:  # cut off before it was noted, or never sent: then no later one was
                name = job_name(one.name, a)
                number = next(
                    iter(ask("qselect", "-u", owners([one])[0], "-N", name).split()), None
                )
            if number is None:
                break
            alone = 0 if len(sent.tasks) == 1 else None
            found.append(ArrayJob(number, one.name, a, alone, bool(sent.after)))
        if one.cluster.resubmit:
            for task, _ in one.tasks():
                if again := turns.read(results, task).job:
                    found.append(ArrayJob(again, one.name, task.array, task.number, False))
    return {digits_of(job.number): job for job in found}


def digits_of(job: str) -> str:
    """The number of a job or array, without its server and index: 12 of `12[3].host`."""
    return re.split(r"[.\[]", job)[0]


def read_tasks(answer: str, known: dict[str, ArrayJob]) -> dict[Task, Seen]:
    """Tasks of `qstat -t -w -s`; the line after a job is its comment."""
    lines = answer.splitlines()
    start = next((n for n, line in enumerate(lines) if line.startswith("-----")), len(lines))
    if lines and start == len(lines):
        raise ValueError("no head of a table")
    found: dict[Task, tuple[ArrayJob, Seen]] = {}
    held = set()  # arrays: only they say so of their tasks
    last: Task | None = None
    for line in lines[start + 1 :]:
        if line.startswith("  ") or not line.strip():
            comment = line.strip().removeprefix("Not Running: ")
            if last is not None and comment and not comment.startswith(_NO_REASON):
                job, one = found[last]
                found[last] = job, replace(one, reason=comment)
            continue
        seen = _JOB.match(line)
        if seen is None:
            raise ValueError(f"a line {line!r}")
        digits, index, name, state = seen.groups()
        last = None
        if digits not in known or not name.startswith("peftbench"):
            continue
        job = known[digits]
        if index == "":
            held |= {job} if state == "H" else set()
        elif state not in "FXMC":
            number = int(index or 0) if job.task is None else job.task
            last = Task(job.submission, job.array, number)
            whole = job.number.replace("[]", f"[{number}]")
            runs = state in "RE"
            release = "qrls JOB" if state == "H" and not job.waits else None
            one = Seen(RUNNING if runs else PENDING, whole, "", release, leaving=state == "E")
            found[last] = job, one
    return {
        task: replace(one, release="qrls JOB", reason=one.reason or "held")
        if job in held and not job.waits and one.state == PENDING
        else one
        for task, (job, one) in found.items()
    }


def read_endings(jobs: dict[str, dict[str, Any]]) -> dict[int, Ending]:
    """How tasks ended; a record without a count of its runs may be a copy of the array's."""
    found = {}
    for name, about in jobs.items():
        index = (re.match(r"\d+(?:\[(\d*)\])?", name) or [name, ""])[1]
        if index == "" or about["job_state"] not in ("F", "X"):
            continue
        if index is not None and "run_count" not in about:
            continue
        code, comment = about.get("Exit_status"), about.get("comment", "")
        if about.get("substate") == 91 or "terminated by" in comment:
            ending = Ending("cancelled", comment.rpartition(" and ")[2] or "deleted")
        elif code is None:
            continue
        else:
            words = comment.rpartition(" and ")[2] if code in _LIMITS else "its job ended"
            ending = Ending(_LIMITS.get(code, "exit"), f"{words} (exit status {code})")
        found[int(index or 0)] = ending
    return found


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def _if_answered(*command: str) -> str:
    try:
        return ask(*command)
    except SchedulerUnreachable:
        return ""


SCHEDULER = Pbs
