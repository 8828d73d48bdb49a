"""What all schedulers have in common that take a script.

A scheduler is a template beside its module and a class derived from `Scripted` that reads what its
commands print. The template gives the script of a job; lines at its head that begin with `#:` are
what the scheduler is asked for: options of its command, one a line and taken as they are, so that
no path needs a scheduler's own quotes.
"""

import inspect
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import jinja2

from peftbench.cluster import commands, environment, manifest, setup
from peftbench.cluster.base import Check, Requeued
from peftbench.cluster.bundling import Array
from peftbench.cluster.commands import Garbled
from peftbench.cluster.manifest import (
    PENDING,
    Ending,
    QueueAnswer,
    SchedulerUnreachable,
    Sent,
    Submission,
    Task,
    folder,
    job_name,
)
from peftbench.config.cluster import Cluster
from peftbench.core.errors import ConfigError
from peftbench.results.store import ResultsFolder

#: State of a task that a scheduler still shows after its end.
OVER = "over"

#: Where the template of a job is and what all templates share.
_SHARED = Path(__file__).parent / "schedulers"

#: Begins a line of a template that the scheduler gets.
_MARK = "#: "


@dataclass(frozen=True)
class Seen:
    """What a scheduler shows of a task.

    Attributes:
        state: PENDING, RUNNING or OVER.
        number: the scheduler's own for it.
        reason: why it waits.
        release: the command that lets it go, where it is held and never starts by itself.
        leaving: whether it is about to end.
        ending: how it ended.
    """

    state: str
    number: str = ""
    reason: str = ""
    release: str | None = None
    leaving: bool = False
    ending: Ending | None = None


class Scripted(ABC):
    """See `base.Scheduler`.

    Attributes:
        submit: the command that takes a script, and options that it always has.
        dashes: what its options begin with.
        reads: whether that command reads the script; else it gets the path.
        ends: the command that ends tasks, given their numbers.
        again: the exit code after which a job goes back to the queue; None where there is none.
        required: keys of the cluster's yaml that have no default.
        resources: keys of the cluster's yaml that name a resource, and the key that asks for it.
        reserved: options by which jobs are found again; `cluster.options` may not set them.
        settle: seconds in which a job that was cancelled has left the queue, or is about to.
        trial: options with which the command only says whether it would take the script.
        array_limit: how many tasks an array may have.
    """

    title: ClassVar[str]
    commands: ClassVar[tuple[str, ...]]
    submit: ClassVar[tuple[str, ...]]
    dashes: ClassVar[str] = "-"
    reads: ClassVar[bool] = True
    ends: ClassVar[tuple[str, ...]] = ()
    again: ClassVar[int | None] = None
    required: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[tuple[tuple[str, str], ...]] = ()
    reserved: ClassVar[tuple[str, ...]] = ()
    trial: ClassVar[tuple[str, ...]] = ()
    origin: ClassVar[str] = "its manuals"
    waits: ClassVar[bool] = True
    passes_environment: ClassVar[bool] = False
    settle: ClassVar[float] = 5.0
    left_code: ClassVar[int] = 75
    warnings: ClassVar[frozenset[signal.Signals]] = frozenset({signal.SIGUSR2, signal.SIGALRM})

    def __init__(self, cluster: Cluster):
        self.cluster = cluster

    # what a scheduler says itself

    @property
    @abstractmethod
    def array_limit(self) -> int:
        """See `base.Scheduler`."""

    @property
    @abstractmethod
    def site(self) -> str | None:
        """See `base.Scheduler`."""

    @abstractmethod
    def submitted(self, printed: str) -> str:
        """The number of an array, from what the submitting command printed."""

    @abstractmethod
    def find(self, submissions: list[Submission], results: ResultsFolder) -> dict[Task, Seen]:
        """All tasks that the scheduler shows, from one question.

        Raises:
            SchedulerUnreachable: if it cannot be asked.
        """

    def end(self, submission: Submission, seen: dict[Task, Seen], whole: set[int]) -> None:
        """End tasks, each by its number.

        Args:
            submission: whose they are.
            seen: the tasks.
            whole: arrays of which these are all that are not over.

        Raises:
            SchedulerUnreachable: with what the scheduler has against it.
        """
        numbers = [one.number for one in seen.values()]
        for start in range(0, len(numbers), commands.AT_ONCE):
            commands.ask(*self.ends, *numbers[start : start + commands.AT_ONCE])

    def explain(
        self, submission: Submission, tasks: list[Task], results: ResultsFolder
    ) -> dict[Task, Ending]:
        """While the scheduler shows tasks that are over; see `base.Scheduler`."""
        seen = self.find([submission], results)
        return {t: one.ending for t, one in seen.items() if t in tasks and one.ending is not None}

    def examine(self, results: ResultsFolder) -> Iterator[Check]:
        """What the submitting command says to a job of this cluster; see `base.Scheduler`."""
        if not self.trial:
            return
        minutes = self.cluster.minutes or self.cluster.most_minutes
        arrays = [Array([[]], minutes, self.cluster.memory_gb)]
        made = manifest.begin([], self.cluster, arrays, None, {}, {})
        text = self.script(results, made, 0)
        done = commands.run(*self.submit, *self.trial, *options(text), text=text)
        said = " ".join(f"{done.stdout} {done.stderr}".split())
        bad = self.refuses(done.returncode, said)
        if bad:
            yield Check("a job as asked for", f"would be refused: {said}", "change cluster.*", True)

    def refuses(self, code: int, said: str) -> bool:
        """Whether the answer to `trial` means that a job cannot be."""
        return bool(code)

    def requeue(
        self, results: ResultsFolder, submission: Submission, task: Task
    ) -> Requeued | None:
        """By the exit code, where the scheduler knows one; see `base.Scheduler`."""
        if self.again is None:
            return None
        return Requeued(self.again, f"it goes back to the queue (exit code {self.again})")

    def hidden(self, submission: Submission) -> str | None:
        """Why jobs of a submission may live that are not shown here."""
        if submission.site not in (None, self.site):
            return (
                f"it went to the {self.title} cluster {submission.site}, the commands here reach "
                f"{self.site}: look there"
            )
        return None

    def resolved(self) -> Cluster:
        """See `base.Scheduler`."""
        return self.cluster

    def exports(self) -> dict[str, str]:
        """See `base.Scheduler`."""
        return environment.exports()

    def fields(self, results: ResultsFolder, submission: Submission, array: int) -> dict[str, Any]:
        """What the template may use, beside `cluster`."""
        asked, sent = submission.cluster, submission.arrays[array]
        place = str(folder(results, submission.name).resolve())
        gb = sent.memory_gb
        work = [sys.executable, "-u", "-m", "peftbench.cluster.job_runner", place]
        return {
            "name": job_name(submission.name, array),
            "submission": submission.name,
            "array": array,
            "place": place,
            "count": len(sent.tasks),
            "first": 0,
            "parallel": min(len(sent.tasks), asked.parallel),
            "minutes": sent.minutes,
            "memory_mb": None if gb is None else math.ceil(1024 * gb),
            "after": [submission.arrays[number].job for number in sent.after],
            "options": dict(asked.options),
            "inherited": self.exports(),
            "folder": os.getcwd(),
            "lines": setup.lines(asked),
            "work": shlex.join(work),
            "owner": submission.owner,
            "again": self.again,
        }

    def call(self, text: str, path: Path) -> "subprocess.CompletedProcess[str]":
        """Run the command that takes a script, which is in a file too."""
        words = [*self.submit, *options(text)]
        if self.reads:
            return commands.run(*words, text=text)
        return commands.run(*words, str(path))

    # what is the same for all

    def check_config(self) -> None:
        """Refuse what the script of a job cannot have; see `base.Scheduler`."""
        for name in self.required:
            if not getattr(self.cluster, name):
                raise ConfigError(
                    f"cluster.{name}: {self.title} needs it, and only the site can say it; the "
                    f"comments of configs/cluster/{self.cluster.scheduler}.yaml say what it is"
                )
        for name, wanted in self.resources:
            if getattr(self.cluster, wanted) and not getattr(self.cluster, name):
                raise ConfigError(
                    f"cluster.{name}: needed with cluster.{wanted}; the comments of "
                    f"configs/cluster/{self.cluster.scheduler}.yaml say what it is"
                )
        for name in self.cluster.options:
            if bare(name) in self.reserved:
                raise ConfigError(
                    f"cluster.options.{name}: peftbench sets {self.dashes}{bare(name)} itself, by "
                    "which it finds its jobs again; leave it out"
                )
        for name, value in _texts(self.cluster):
            if "\n" in value:
                raise ConfigError(f"cluster.{name}={value!r}: must be one line")
        for name, value in self.cluster.environment.items():
            if not name.isidentifier():
                raise ConfigError(
                    f"cluster.environment: {name!r} is no name of a variable ({value!r})"
                )
        setup.commands(self.cluster.setup)

    def script(
        self, results: ResultsFolder, submission: Submission, array: int, only: int | None = None
    ) -> str:
        """The script of the jobs of an array, or of one of its tasks alone.

        Raises:
            ConfigError: if a template of one's own cannot be read, or a folder's name cannot be
                passed on.
        """
        fields = self.fields(results, submission, array)
        if only is not None:
            fields |= {"count": 1, "first": only, "parallel": 1, "after": []}
        if "\n" in fields["place"]:
            raise ConfigError(f"{fields['place']!r}: choose a folder of one line with --results")
        own = submission.cluster.template
        module = Path(inspect.getfile(type(self)))
        path = Path(own) if own else module.with_suffix(".sh.j2")
        made = jinja2.Environment(
            loader=jinja2.FileSystemLoader([path.parent, _SHARED]),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        made.filters["quote"] = lambda text: shlex.quote(str(text))
        try:
            template = made.get_template(path.name)
            return template.render(cluster=submission.cluster, **fields)
        except (jinja2.TemplateError, OSError) as error:
            raise ConfigError(f"{path}: {type(error).__name__}: {error}") from error

    def send(self, results: ResultsFolder, submission: Submission, array: int) -> str:
        """Hand over an array of tasks; see `base.Scheduler`."""
        path = folder(results, submission.name) / f"{array}.sh"
        return self.hand_over(self.script(results, submission, array), path, results)

    def hand_over(self, text: str, path: Path, results: ResultsFolder) -> str:
        """Write a script and give it to the scheduler; the number that this got.

        Raises:
            ConfigError: with what the scheduler says against it.
        """
        results.write(path, text.encode())
        later = f"whether {self.title} took the jobs is what `peftbench status` says later"
        try:
            done = self.call(text, path)
        except SchedulerUnreachable as error:
            raise ConfigError(f"{error}; {later}") from error
        if done.returncode:
            raise ConfigError(f"{self.title} refuses: {self.complaint(done)}")
        try:
            with commands.reading(self.submit[0], done.stdout):
                return self.submitted(done.stdout)
        except Garbled as error:
            raise ConfigError(f"{error}; {later}") from error

    def complaint(self, done: "subprocess.CompletedProcess[str]") -> str:
        """What the submitting command has against a script, in one line."""
        said = [line.removeprefix(f"{self.submit[0]}: ") for line in done.stderr.splitlines()]
        said = [line.removeprefix("error: ").strip() for line in said]
        return "; ".join(filter(None, said)) or f"exit code {done.returncode}"

    def alive(self, submissions: list[Submission], results: ResultsFolder) -> QueueAnswer:
        """One question for the jobs of all submissions; see `base.Scheduler`."""
        answer = QueueAnswer()
        try:
            seen = self.find(submissions, results)
        except Garbled as error:
            path = folder(results, submissions[-1].name) / "answer.txt"
            try:
                results.write(path, error.answer.encode())
            except OSError:  # a folder that may only be read, a full quota
                raise SchedulerUnreachable(str(error)) from error
            raise SchedulerUnreachable(f"{error}; the whole answer is in {path}") from error
        for task, one in seen.items():
            if one.state != OVER:
                answer.alive[task] = (one.state, one.reason if one.state == PENDING else "")
                if one.release:
                    answer.held[task] = one.release
        for submission in submissions:
            absent = any(task not in seen for task, _ in submission.tasks())
            if absent and (reason := self.hidden(submission)):
                answer.unsure[submission.name] = reason
        return answer

    def cancel(
        self, submission: Submission, tasks: list[Task], results: ResultsFolder
    ) -> dict[Task, str]:
        """End tasks, and look whether they do; see `base.Scheduler`."""
        live = {t: one for t, one in self.find([submission], results).items() if one.state != OVER}
        chosen = {task: one for task, one in live.items() if task in tasks}
        partly = {task.array for task in live.keys() - chosen.keys()}
        against = ""
        try:
            if chosen:
                self.end(submission, chosen, {task.array for task in chosen} - partly)
        except SchedulerUnreachable as error:  # one of them has just ended, or is another's
            against = str(error)
        end = time.monotonic() + self.settle
        while left := [
            task
            for task, one in self.find([submission], results).items()
            if task in tasks and one.state != OVER and not one.leaving
        ]:
            if against or time.monotonic() > end:
                break
            time.sleep(0.5)
        why = against or f"it is in the queue {self.settle:.0f} s after {self.commands[-1]}"
        return dict.fromkeys(left, why)


class WithHistory(Scripted):
    """A scheduler with a history of jobs, which it is asked array by array."""

    @abstractmethod
    def history(self, sent: Sent) -> dict[int, Ending]:
        """How tasks of an array that was sent ended, by their numbers.

        Raises:
            SchedulerUnreachable: if there is no history, or it has forgotten.
        """

    def explain(
        self, submission: Submission, tasks: list[Task], results: ResultsFolder
    ) -> dict[Task, Ending]:
        """From the history, where one is kept; see `base.Scheduler`."""
        found: dict[Task, Ending] = {}
        for array in sorted({task.array for task in tasks}):
            sent = submission.arrays[array]
            if sent.job is None:
                continue
            with suppress(SchedulerUnreachable):
                endings = self.history(sent).items()
                found |= {Task(submission.name, array, number): one for number, one in endings}
        return {task: ending for task, ending in found.items() if task in tasks}


def options(text: str) -> list[str]:
    """The options at the head of a script: each line is one word, or an option and its value."""
    found = []
    for line in asked_for(text):
        found += [line] if line.startswith("--") else line.split(" ", 1)
    return found


def asked_for(text: str) -> list[str]:
    """The lines at the head of a script that are for the scheduler."""
    found = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            break
        if line.startswith(_MARK):
            found.append(line.removeprefix(_MARK))
    return found


def named(submissions: Iterable[Submission]) -> dict[str, tuple[str, int]]:
    """Submission and array, by the name that their jobs have."""
    return {job_name(s.name, a): (s.name, a) for s in submissions for a in range(len(s.arrays))}


def owners(submissions: Iterable[Submission]) -> list[str]:
    """Names of the users whose jobs are looked for."""
    return sorted({one.owner_name.removeprefix("user ") for one in submissions})


def bare(name: str) -> str:
    """The name of an option without its hyphens."""
    return name.lstrip("-").replace("_", "-")


def _texts(cluster: Cluster) -> Iterator[tuple[str, str]]:
    for name, value in asdict(replace(cluster, setup=[], environment={})).items():
        if isinstance(value, str):
            yield name, value
        elif isinstance(value, dict):
            yield from ((f"{name}.{key}", str(one)) for key, one in value.items())
        elif isinstance(value, list):
            yield from ((name, str(one)) for one in value)
