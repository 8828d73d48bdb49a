"""What became of everything that was submitted: files say what is done, one question what lives."""

import json
import time
from collections import Counter
from dataclasses import dataclass, field, replace

from peftbench.cluster import base, manifest
from peftbench.cluster.manifest import PENDING, RUNNING, SchedulerUnreachable, Submission, Task
from peftbench.core.errors import ConfigError, RecordError
from peftbench.core.evaluation import Failure
from peftbench.core.run import Json
from peftbench.results.store import Results

#: States beside those of a scheduler. Unsent: the scheduler took no more, or it was cut off before.
DONE, FAILED, ENDED, CANCELLED = "done", "failed", "ended", "cancelled"
UNSENT, UNKNOWN = "unsent", "unknown"

#: What a run or evaluation that was submitted may be, in the order of a table.
STATES = (DONE, RUNNING, PENDING, FAILED, ENDED, CANCELLED, UNSENT, UNKNOWN)


@dataclass(frozen=True)
class FinishedJob:
    """A task that is over, and the keys of its jobs that have neither a record nor a failure."""

    submission: Submission
    task: Task
    keys: list[str]


@dataclass(frozen=True)
class QueueSnapshot:
    """The state of all submissions of a results folder.

    Attributes:
        alive: tasks that wait or run, and why they wait.
        age: seconds since the scheduler was asked; 0 where it was now, or not at all.
        silent: why it did not answer.
        state: of each key, as of the latest submission that holds it.
        failures: by key, those since the submission.
    """

    submissions: list[Submission]
    alive: dict[Task, tuple[str, str]]
    age: float = 0.0
    silent: str | None = None
    state: dict[str, str] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    ended: list[FinishedJob] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)

    def queued(self) -> set[str]:
        """Keys that wait or run."""
        return {key for key, state in self.state.items() if state in (PENDING, RUNNING)}

    def counts(self, one: Submission) -> Counter[str]:
        """How many jobs of a submission are in each state; those submitted again count there."""
        return Counter(self.state[key] for _, keys in one.tasks() for key in keys)

    def reasons(self) -> Counter[str]:
        """Why tasks wait, in the scheduler's words."""
        waiting = (reason for state, reason in self.alive.values() if state == PENDING and reason)
        return Counter(waiting)

    def again(self, results: Results) -> "QueueSnapshot":
        """Look at the files again; the scheduler is not asked."""
        return _read(self, results)


def look(results: Results, fresh: bool = True) -> QueueSnapshot:
    """Read manifests, records and failures, and ask the scheduler once.

    Args:
        fresh: whether to ask even if it was asked a moment ago (`cluster.poll_seconds`).
    """
    submissions = manifest.every(results)
    done = {*results.keys(), *results.evaluations()}
    open_ = [one for one in submissions if any(set(k) - done for _, k in one.tasks())]
    found = QueueSnapshot(submissions, {})
    kept = None if fresh else _remembered(results, open_)
    if kept is not None:
        found = replace(found, alive=kept[0], age=kept[1])
    elif open_:
        alive, silent = _ask(results, open_)
        found = replace(found, alive=alive, silent=silent)
        if silent is None:
            _remember(results, alive)
    return _read(found, results)


def _ask(
    results: Results, open_: list[Submission]
) -> tuple[dict[Task, tuple[str, str]], str | None]:
    """One question for each scheduler; all clusters of a kind are one scheduler."""
    alive: dict[Task, tuple[str, str]] = {}
    for kind in dict.fromkeys(one.cluster.scheduler for one in open_):
        of_kind = [one for one in open_ if one.cluster.scheduler == kind]
        try:
            alive |= base.build_scheduler(of_kind[0].cluster).alive(of_kind, results)
        except (
            SchedulerUnreachable,
            ConfigError,
        ) as error:  # a folder may be looked at where no Slurm is
            return alive, str(error)
    return alive, None


def _read(found: QueueSnapshot, results: Results) -> QueueSnapshot:
    """The state of each key, as of the latest task that holds it."""
    done, noted = {*results.keys(), *results.evaluations()}, set(results.failed())
    latest = {
        key: (one, task) for one in found.submissions for task, keys in one.tasks() for key in keys
    }
    state: dict[str, str] = {}
    failures: dict[str, Failure] = {}
    left: dict[Task, FinishedJob] = {}
    bad = []
    for key, (one, task) in latest.items():
        if key in done:
            state[key] = DONE
        elif task in found.alive:
            state[key] = found.alive[task][0]
        else:
            state[key] = CANCELLED if one.cancelled else ENDED
            if key in noted:
                try:
                    failure = results.failure(key)
                except RecordError as error:
                    bad.append(str(error))
                    failure = None
                if failure is not None and failure.attempts > one.attempts.get(key, 0):
                    state[key], failures[key] = FAILED, failure
            if state[key] == ENDED and found.silent is not None:
                state[key] = UNKNOWN
            elif state[key] == ENDED and one.job(task) is None:
                state[key] = UNSENT
        if state[key] == ENDED:
            left.setdefault(task, FinishedJob(one, task, [])).keys.append(key)
    ended = list(left.values())
    return replace(found, state=state, failures=failures, ended=ended, bad=bad)


def _remember(results: Results, alive: dict[Task, tuple[str, str]]) -> None:
    tasks = [[t.submission, t.array, t.number, *state] for t, state in alive.items()]
    body = json.dumps({"asked": time.time(), "alive": tasks}).encode()
    results.write(results.cache("queue.json"), body)


def _remembered(
    results: Results, open_: list[Submission]
) -> tuple[dict[Task, tuple[str, str]], float] | None:
    """The scheduler's last answer and its age, unless it is too old, or something came since."""
    try:
        data: Json = json.loads(results.cache("queue.json").read_bytes())
        age = time.time() - data["asked"]
        tasks = {Task(s, a, n): (state, reason) for s, a, n, state, reason in data["alive"]}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    least = min((one.cluster.poll_seconds for one in open_), default=0.0)
    newest = max((one.submitted for one in open_), default=0.0)
    return (tasks, age) if 0 <= age < least and newest < data["asked"] else None
