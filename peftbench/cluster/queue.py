"""What became of everything that was submitted: files say what is done, one question what lives."""

import json
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache

from peftbench.cluster import base, logs, manifest, turns
from peftbench.cluster.manifest import (
    PENDING,
    RUNNING,
    QueueAnswer,
    SchedulerUnreachable,
    Submission,
    Task,
    Unreadable,
)
from peftbench.core.errors import ConfigError, RecordError
from peftbench.core.failures import Failure
from peftbench.core.run import Json, Run
from peftbench.results.store import ResultsFolder

#: States beside those of a scheduler. Unsent: the scheduler took no more, or it was cut off before.
DONE, FAILED, ENDED, CANCELLED = "done", "failed", "ended", "cancelled"
UNSENT, UNKNOWN = "unsent", "unknown"

#: Stopped with a checkpoint, near the end of its time, and not in the queue any more.
LEFT = turns.LEFT

#: What a run or evaluation that was submitted may be, in the order of a table.
STATES = (DONE, RUNNING, PENDING, FAILED, ENDED, LEFT, CANCELLED, UNSENT, UNKNOWN)


@dataclass(frozen=True)
class FinishedJob:
    """A task that is over, and the keys of its jobs that have neither a record nor a failure.

    Attributes:
        said: the last line of its log.
    """

    submission: Submission
    task: Task
    keys: list[str]
    said: str = ""


@dataclass(frozen=True)
class QueueSnapshot:
    """The state of all submissions of a results folder.

    Attributes:
        alive: tasks that wait or run, and why they wait.
        held: those of them that never start by themselves, and the command that lets them go.
        age: seconds since the scheduler was asked; 0 where it was now, or not at all.
        silent: why it did not answer.
        unsure: submissions of which tasks may be alive without being shown, by name, and why.
        unreadable: submissions whose manifest cannot be read.
        state: of each key, as of the latest submission that holds it; one that is alive outranks
            later ones.
        failures: by key, those since the submission.
    """

    submissions: list[Submission]
    alive: dict[Task, tuple[str, str]]
    age: float = 0.0
    silent: str | None = None
    unsure: dict[str, str] = field(default_factory=dict)
    unreadable: list[Unreadable] = field(default_factory=list)
    state: dict[str, str] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    ended: list[FinishedJob] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    held: dict[Task, str] = field(default_factory=dict)

    def queued(self) -> set[str]:
        """Keys that wait or run."""
        return {key for key, state in self.state.items() if state in (PENDING, RUNNING)}

    def counts(self, one: Submission) -> Counter[str]:
        """How many jobs of a submission are in each state; those submitted again count there."""
        return Counter(self.state[key] for _, keys in one.tasks() for key in keys)

    def doubts(self) -> dict[str, str]:
        """Submissions with runs of which nobody can say whether they wait or run, and why."""
        unknown = {key for key, state in self.state.items() if state == UNKNOWN}
        found = {
            one.name: self.unsure[one.name]
            for one in self.submissions
            if one.name in self.unsure and any(unknown & set(keys) for _, keys in one.tasks())
        }
        return found | {one.name: one.reason for one in self.unreadable}

    def reasons(self) -> Counter[str]:
        """Why tasks wait, in the scheduler's words."""
        waiting = (reason for state, reason in self.alive.values() if state == PENDING and reason)
        return Counter(waiting)

    def again(self, results: ResultsFolder) -> "QueueSnapshot":
        """Look at the files again; the scheduler is not asked."""
        return _read(self, results)


def look(results: ResultsFolder, fresh: bool = True) -> QueueSnapshot:
    """Read manifests, records and failures, and ask the scheduler once.

    Args:
        fresh: whether to ask even if it was asked a moment ago (`cluster.poll_seconds`).
    """
    submissions, unreadable = manifest.scan(results)
    done = manifest.done_keys(results)
    open_ = [one for one in submissions if any(set(k) - done for _, k in one.tasks())]
    found = QueueSnapshot(submissions, {}, unreadable=unreadable)
    kept = None if fresh else _remembered(results, open_)
    if kept is not None:
        answer, age = kept
        found = replace(found, alive=answer.alive, unsure=answer.unsure, held=answer.held, age=age)
    elif open_:
        answer, silent = _ask(results, open_)
        found = replace(
            found, alive=answer.alive, unsure=answer.unsure, held=answer.held, silent=silent
        )
        if silent is None:
            _remember(results, answer)
    return _read(found, results)


def _ask(results: ResultsFolder, open_: list[Submission]) -> tuple[QueueAnswer, str | None]:
    """One question for each scheduler; clusters of a kind are one, but for namespaces."""
    answer = QueueAnswer()
    for kind in dict.fromkeys((one.cluster.scheduler, one.cluster.namespace) for one in open_):
        of_kind = [o for o in open_ if (o.cluster.scheduler, o.cluster.namespace) == kind]
        try:
            new = base.build_scheduler(of_kind[0].cluster).alive(of_kind, results)
        # ConfigError: a folder may be looked at where no Slurm is
        except (SchedulerUnreachable, ConfigError) as error:
            return answer, str(error)
        answer = QueueAnswer(
            answer.alive | new.alive, answer.unsure | new.unsure, answer.held | new.held
        )
    return answer, None


def _read(found: QueueSnapshot, results: ResultsFolder) -> QueueSnapshot:
    """The state of each key, as of the latest task that holds it; one that is alive goes first."""
    done = manifest.done_keys(results)
    noted = {*results.failed(), *results.trials().failed()}
    torn = frozenset[str]().union(*(one.keys for one in found.unreadable))
    left_by_itself = cache(lambda task: turns.read(results, task).ended == turns.LEFT)
    held: dict[str, tuple[Submission, Task]] = {}
    for one in found.submissions:
        for task, keys in one.tasks():
            for key in keys:
                if task in found.alive or key not in held or held[key][1] not in found.alive:
                    held[key] = one, task
    state: dict[str, str] = {}
    failures: dict[str, Failure] = {}
    left: dict[Task, list[str]] = {}
    bad = []
    for key, (one, task) in held.items():
        if key in done:
            state[key] = DONE
        elif task in found.alive:
            state[key] = found.alive[task][0]
        else:
            state[key] = CANCELLED if one.cancelled else ENDED
            if key in noted:
                try:
                    failure = one.store(results).failure(key)
                except RecordError as error:
                    bad.append(str(error))
                    failure = None
                trial = failure is not None and isinstance(failure.job, Run)
                if failure is not None and one.search and trial and failure.kind == "diverged":
                    state[key] = DONE  # that is what the trial was made to find out
                elif failure is not None and failure.attempts > one.attempts.get(key, 0):
                    state[key], failures[key] = FAILED, failure
            doubt = found.silent is not None or one.name in found.unsure or key in torn
            if state[key] == ENDED and doubt:
                state[key] = UNKNOWN
            elif state[key] == ENDED and one.arrays[task.array].job is None:
                state[key] = UNSENT
            elif state[key] == ENDED and left_by_itself(task):
                state[key] = LEFT
        if state[key] == ENDED:
            left.setdefault(task, []).append(key)
    for key in torn:
        state.setdefault(key, DONE if key in done else UNKNOWN)
    by_name = {one.name: one for one in found.submissions}
    ended = [
        FinishedJob(by_name[task.submission], task, keys, logs.last_line(results, task))
        for task, keys in left.items()
    ]
    return replace(found, state=state, failures=failures, ended=ended, bad=bad)


def _remember(results: ResultsFolder, answer: QueueAnswer) -> None:
    tasks = [[t.submission, t.array, t.number, *state] for t, state in answer.alive.items()]
    held = [[t.submission, t.array, t.number, way] for t, way in answer.held.items()]
    data = {"asked": time.time(), "alive": tasks, "unsure": answer.unsure, "held": held}
    with suppress(OSError):  # a folder that may only be read, a full quota: it is asked again then
        results.write(results.cache("queue.json"), json.dumps(data).encode())


def _remembered(
    results: ResultsFolder, open_: list[Submission]
) -> tuple[QueueAnswer, float] | None:
    """The scheduler's last answer and its age, unless it is too old, or something came since."""
    try:
        data: Json = json.loads(results.cache("queue.json").read_bytes())
        age = time.time() - data["asked"]
        tasks = {Task(s, a, n): (state, reason) for s, a, n, state, reason in data["alive"]}
        held = {Task(s, a, n): way for s, a, n, way in data["held"]}
        answer = QueueAnswer(tasks, dict(data["unsure"]), held)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    least = min((one.cluster.poll_seconds for one in open_), default=0.0)
    newest = max((one.submitted for one in open_), default=0.0)
    return (answer, age) if 0 <= age < least and newest < data["asked"] else None
