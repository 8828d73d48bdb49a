"""Flux 0.88, from its manuals and its source.

It has no arrays: an array is so many jobs, whose names end with the number of the task, from 1
(some versions replace no {cc} that is 0). Their numbers are printed in the order in which they are
taken. A user cannot put a job back to the queue, and memory cannot be asked for.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peftbench.cluster import commands
from peftbench.cluster.base import Check
from peftbench.cluster.commands import answers, ask, reading
from peftbench.cluster.manifest import PENDING, RUNNING, Ending, Submission, Task
from peftbench.cluster.scripted import OVER, Scripted, Seen, named, options
from peftbench.results.store import ResultsFolder

#: Digits of a job's number as Flux writes it.
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

_RESULTS = {"CANCELED": "cancelled", "TIMEOUT": "time"}


class Flux(Scripted):
    """The Flux instance that this machine's commands reach."""

    title = "Flux"
    passes_environment = True
    commands = ("flux",)
    submit = ("flux", "submit")
    ends = ("flux", "cancel")
    dashes = "--"
    array_limit = 10000
    reserved = ("cc", "bcc", "job-name", "output", "error", "cwd", "wait", "watch", "quiet")

    @property
    def site(self) -> str | None:
        """The address of the instance, None for that of the system."""
        return os.environ.get("FLUX_URI")

    def call(self, text: str, path: Path) -> Any:
        """The script is run from where it is, with the number of its task; see `Scripted`."""
        return commands.run(*self.submit, *options(text), "bash", str(path), "{cc}")

    def submitted(self, printed: str) -> str:
        """A number on each line; all of them, parted by spaces."""
        numbers = printed.split()
        for number in numbers:
            _number(number)
        if not numbers:
            raise ValueError("no numbers of jobs")
        return " ".join(numbers)

    def find(self, submissions: list[Submission], results: ResultsFolder) -> dict[Task, Seen]:
        """By their names; see `Scripted`.

        Jobs of before are known by their numbers, else by the order of these.
        """
        answer = ask("flux", "jobs", "-A", "-a", "--json", "--count=0")
        names = named(submissions)
        known = {
            _number(number): Task(one.name, a, n)
            for one in submissions
            for a, sent in enumerate(one.arrays)
            for n, number in enumerate((sent.job or "").split())
        }
        found = {}
        with reading("flux jobs", answer):
            jobs = sorted(json.loads(answer)["jobs"], key=lambda one: int(one["id"]))
            counted = dict.fromkeys(names, 0)
            for one in jobs:
                name = one.get("name", "")
                array, _, count = name.rpartition(".")
                if array in names and count.isdigit():
                    found[Task(*names[array], int(count) - 1)] = _seen(one)
                elif name in names:
                    task = known.get(int(one["id"])) or Task(*names[name], counted[name])
                    counted[name] += 1
                    found[task] = _seen(one)
        return found

    def examine(self, results: ResultsFolder) -> Iterator[Check]:
        """Queue, and what Flux has not; see `base.Scheduler`."""
        queue = self.cluster.partition
        if queue and not answers("flux", "queue", "status", queue):
            found = "there is none; `flux queue list` shows them"
            yield Check(f"queue {queue}", found, "cluster.partition=", bad=True)
        found = "Flux limits none: a job takes what its node has, beside others"
        yield Check("memory", found, "ask for so many cluster.cpus that jobs fit")
        found = "a job cannot go back to the queue: at its time limit a task is left"
        yield Check("time limit", found, "submit again then")


def _seen(one: dict[str, Any]) -> Seen:
    number, state = str(one["id"]), one["state"]
    if state in ("DEPEND", "PRIORITY", "SCHED"):
        held = state == "PRIORITY" or one.get("urgency") == 0
        return Seen(
            PENDING, number, state.lower(), "flux job urgency JOB default" if held else None
        )
    if state in ("RUN", "CLEANUP"):
        return Seen(RUNNING, number, leaving=state == "CLEANUP")
    if state == "INACTIVE":
        result = one.get("result", "?")
        words = f"{result}, return code {one['returncode']}" if "returncode" in one else result
        return Seen(OVER, number, ending=Ending(_RESULTS.get(result, "exit"), words))
    raise ValueError(f"state {state}")


def _number(text: str) -> int:
    """The number that `ƒABC`, or `fABC` where letters are ASCII, stands for."""
    if text.isdigit():
        return int(text)
    if text[:1] not in ("ƒ", "f"):
        raise ValueError(f"{text} is no number of a job")
    value = 0
    for letter in text[1:]:
        value = value * 58 + _BASE58.index(letter)
    return value


SCHEDULER = Flux
