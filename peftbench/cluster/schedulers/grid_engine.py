"""Grid Engine: Son of Grid Engine 8.1.9 and its relatives (Univa, Altair, Open Cluster Scheduler).

Tasks count from 1 there, and from 0 in files. A job that leaves with code 99 goes back to the
queue. Why a job ended stands in the accounting file, which some sites hide.
"""

import math
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from peftbench.cluster.base import Check
from peftbench.cluster.commands import answers, ask, reading
from peftbench.cluster.manifest import (
    PENDING,
    RUNNING,
    Ending,
    SchedulerUnreachable,
    Sent,
    Submission,
    Task,
)
from peftbench.cluster.scripted import Seen, WithHistory, named, owners
from peftbench.core.errors import ConfigError
from peftbench.results.store import ResultsFolder

#: How `qstat -help` begins.
RELATIVES = ("SGE", "UGE", "OGS", "GE", "OCS", "GCS", "AGE", "N1GE")

#: Virtual memory that torch maps before it does anything, in GB (2.15, without a GPU in use).
TORCH_GB = 3.1

#: What `failed` of qacct means, beside 0; 25 is a task that went back to the queue.
_FAILED = {"25": "left", "26": "exit", "27": "exit", "28": "exit", "100": "exit"}


class GridEngine(WithHistory):
    """The Grid Engine that this machine's commands reach."""

    title = "Grid Engine"
    commands = ("qsub", "qstat", "qdel")
    submit = ("qsub", "-terse")
    ends = ("qdel",)  # words: a list after a comma would mean other jobs
    again = 99
    trial = ("-w", "v")
    origin = ""
    resources = (("memory_resource", "memory_gb"), ("gpu_resource", "gpus"))
    reserved = (
        *("N", "S", "t", "tc", "wd", "cwd", "j", "o", "e", "terse", "sync", "now", "b", "shell"),
        *("notify", "r", "V", "C", "hold-jid"),
    )
    # USR1 comes before a suspension and at s_rt
    warnings = frozenset({signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM})

    @property
    def array_limit(self) -> int:
        """`max_aj_tasks`, where this host may read it; else what it is by default."""
        try:
            found = re.search(r"^max_aj_tasks\s+(\d+)", ask("qconf", "-sconf"), re.MULTILINE)
        except SchedulerUnreachable:  # no admin host, as many login nodes
            found = None
        return (int(found[1]) if found else 0) or 75000

    @property
    def site(self) -> str | None:
        """The host of the qmaster."""
        cell = Path(os.environ.get("SGE_ROOT", "/var/lib/gridengine"))
        path = cell / os.environ.get("SGE_CELL", "default") / "common" / "act_qmaster"
        try:
            return path.read_text(encoding="utf-8").strip() or None
        except OSError:  # elsewhere the commands know by themselves
            return None

    def check_config(self) -> None:
        """Also that the commands are not those of PBS; see `base.Scheduler`."""
        super().check_config()
        head = ask("qstat", "-help").split()
        if head and not head[0].startswith(RELATIVES):
            raise ConfigError(
                f"qstat here calls itself {head[0]}, which is no Grid Engine; is it PBS "
                "(cluster=pbs)?"
            )

    def fields(self, results: ResultsFolder, submission: Submission, array: int) -> dict[str, Any]:
        """With slots, and the memory of each; see `Scripted`."""
        found = super().fields(results, submission, array)
        slots, memory = submission.cluster.cpus or 1, found["memory_mb"]
        share = math.ceil(memory / slots) if memory and self.cluster.memory_per_slot else memory
        return found | {"slots": slots, "share_mb": share}

    def submitted(self, printed: str) -> str:
        """`12.1-8:1`."""
        (number,) = re.findall(r"^(\d+)(?:\.|$)", printed.strip())
        return str(number)

    def find(self, submissions: list[Submission], results: ResultsFolder) -> dict[Task, Seen]:
        """By the names of jobs, of those who submitted them; see `Scripted`."""
        names = named(submissions)
        waits = {(s.name, a) for s in submissions for a, sent in enumerate(s.arrays) if sent.after}
        answer = ask("qstat", "-u", ",".join(owners(submissions)), "-xml")
        found = {}
        with reading("qstat", answer):
            for job in ElementTree.fromstring(answer).iter("job_list"):
                array = names.get(_text(job, "JB_name"))
                if array is None:
                    continue
                number, state = _text(job, "JB_job_number"), _text(job, "state")
                for index in _numbers(job.findtext("tasks") or "1"):
                    one = _seen(f"{number}.{index}", state, array in waits)
                    found[Task(*array, index - 1)] = one
        if errors := [one.number for one in found.values() if one.reason == "error"]:
            why = _reasons(errors)
            for task, one in found.items():
                if one.reason == "error" and one.number in why:
                    found[task] = Seen(
                        PENDING, one.number, f"error: {why[one.number]}", one.release
                    )
        return found

    def history(self, sent: Sent) -> dict[int, Ending]:
        """From the accounting file, where it can be read; the last turn of each task counts."""
        found = {}
        for about in _records(ask("qacct", "-j", str(sent.job))):
            number = about.get("taskid", "")
            found[int(number) - 1 if number.isdigit() else 0] = _ending(about, sent.minutes or 0)
        return found

    def examine(self, results: ResultsFolder) -> Iterator[Check]:
        """Queue, slots, GPUs, virtual memory, history; see `base.Scheduler`."""
        asked = self.cluster
        if asked.partition and not answers("qselect", "-q", asked.partition):
            found = "no queue of this name takes jobs; `qstat -g c` lists them"
            yield Check(f"queue {asked.partition}", found, "cluster.partition=", bad=True)
        environment = asked.parallel_environment
        if (asked.cpus or 1) > 1 and not answers("qselect", "-pe", str(environment)):
            found = "no queue has it; `qconf -spl` lists them"
            do = "cluster.parallel_environment="
            yield Check(f"parallel environment {environment}", found, do, bad=True)
        if asked.memory_resource == "h_vmem" and asked.memory_gb:
            gb = asked.memory_gb * (1 if asked.memory_per_slot else asked.cpus or 1)
            found = (
                f"h_vmem limits virtual memory to {gb:g} GB a job: torch alone maps {TORCH_GB} GB, "
                "with CUDA tens more"
            )
            little = gb < TORCH_GB + 1 or bool(asked.gpus and gb < 40)
            yield Check("memory", found, "cluster.memory_gb=" if little else "", bad=little)
        if asked.gpus:
            found = f"asked for as {asked.gpu_resource}={asked.gpus}"
            if not answers("qselect", "-l", f"{asked.gpu_resource}={asked.gpus}"):
                found += ", which no queue has; `qhost -F` lists what there is"
                yield Check("GPUs", found, "cluster.gpu_resource=", bad=True)
            else:
                do = "the site should set CUDA_VISIBLE_DEVICES; else jobs take the first GPUs"
                yield Check("GPUs", found, do)
        if not (history := self._accounting()):
            found = "no accounting file here: how jobs ended is not known"
            yield Check("qacct", found, "nothing has to be done" if not history else "")
        yield from super().examine(results)

    def refuses(self, code: int, said: str) -> bool:
        """`qsub -w v` says in words whether there is a suitable queue."""
        return "found suitable queue" not in said

    @staticmethod
    def _accounting() -> bool:
        try:
            ask("qacct", "-j", "0")
        except SchedulerUnreachable as error:
            return "not found" in str(error)  # it was looked for
        return True


def _seen(number: str, state: str, waits_for_others: bool) -> Seen:
    """What the letters of a state mean; T and S suspend, t transfers: case matters."""
    if "d" in state:
        return Seen(RUNNING, number, leaving=True)
    if "E" in state:
        return Seen(PENDING, number, "error", "qmod -cj JOB")
    if "h" in state:
        if waits_for_others:
            return Seen(PENDING, number, "waits for jobs before it")
        return Seen(PENDING, number, "held", "qrls JOB")
    if any(letter in state for letter in "qwsST"):
        return Seen(PENDING, number, "suspended" if set(state) & set("sST") else "")
    if set(state) <= set("rtR"):
        return Seen(RUNNING, number)
    raise ValueError(f"state {state}")


def _numbers(text: str) -> Iterator[int]:
    """`7`, `7,8`, `3-8:1`, `6-4999:1,5001-14999:2`."""
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part.strip())
        if found is None:
            raise ValueError(f"tasks {text}")
        first, last, step = found.groups()
        yield from range(int(first), int(last or first) + 1, int(step or 1))


def _text(job: ElementTree.Element, name: str) -> str:
    text = job.findtext(name)
    if text is None:
        raise ValueError(f"a job without {name}")
    return text


def _reasons(numbers: list[str]) -> dict[str, str]:
    """Why tasks are in error, as far as the site lets that be asked."""
    jobs = sorted({number.partition(".")[0] for number in numbers})
    try:
        lines = ask("qstat", "-j", ",".join(jobs)).splitlines()
    except SchedulerUnreachable:
        return {}
    found, job = {}, ""
    for line in lines:
        key, _, rest = line.partition(":")
        if key == "job_number":
            job = rest.strip()
        elif key.startswith("error reason"):
            found[f"{job}.{key.split()[-1]}"] = " ".join(rest.partition("error: ")[2].split())
    return {number: reason for number, reason in found.items() if reason}


def _records(answer: str) -> Iterator[dict[str, str]]:
    """Each run of each task."""
    about: dict[str, str] = {}
    for line in answer.splitlines():
        if line.startswith("====="):
            if about:
                yield about
            about = {}
        else:
            key, _, value = line.partition(" ")
            about[key] = value.strip()
    if about:
        yield about


def _ending(about: dict[str, str], minutes: int) -> Ending:
    """What `failed` says counts first: the exit status may be 0 all the same."""
    number, _, said = about.get("failed", "0").partition(":")
    status = f"exit status {about.get('exit_status', '?').split()[0]}"
    number = number.strip()
    if number == "0":
        return Ending("exit", status)
    words = f"failed {number}: {said.strip()}, {status}"
    if number != "37":
        return Ending(_FAILED.get(number, "node"), words)
    spent = re.match(r"\d+", about.get("ru_wallclock", ""))
    over = spent is None or int(spent[0]) >= 60 * minutes
    return Ending("time" if over else "memory", words)


SCHEDULER = GridEngine
