"""What became of everything that was submitted: files say what is done, one question what lives."""

import json
import time
from collections import Counter
from dataclasses import dataclass, field, replace

from peftbench import scheduler, submission
from peftbench.evaluation import Failure
from peftbench.run import ConfigError, Json, RecordError
from peftbench.store import Results
from peftbench.submission import PENDING, RUNNING, Silent, Submission, Task

DONE, FAILED, ENDED, CANCELLED, UNKNOWN = "done", "failed", "ended", "cancelled", "unknown"

#: What a run or evaluation that was submitted may be, in the order of a table.
STATES = (DONE, RUNNING, PENDING, FAILED, ENDED, CANCELLED, UNKNOWN)


@dataclass(frozen=True)
class Ended:
    """A task that is over, and the keys of its jobs that have neither a record nor a failure."""

    submission: Submission
    task: Task
    keys: list[str]


@dataclass(frozen=True)
class Look:
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
    ended: list[Ended] = field(default_factory=list)
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

    def again(self, results: Results) -> "Look":
        """Look at the files again; the scheduler is not asked."""
        return _read(replace(self, state={}, failures={}, ended=[], bad=[]), results)


def look(results: Results, fresh: bool = True) -> Look:
    """Read manifests, records and failures, and ask the scheduler once.

    Args:
        fresh: whether to ask even if it was asked a moment ago (`cluster.poll_seconds`).
    """
    submissions = submission.every(results)
    done = {*results.keys(), *results.evaluations()}
    open_ = [one for one in submissions if any(set(k) - done for _, k in one.tasks())]
    found = Look(submissions, {})
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
            alive |= scheduler.of(of_kind[0].cluster).alive(of_kind, results)
        except (Silent, ConfigError) as error:  # a folder may be looked at where no Slurm is
            return alive, str(error)
    return alive, None


def _read(found: Look, results: Results) -> Look:
    done = {*results.keys(), *results.evaluations()}
    noted = set(results.failed())
    for one in found.submissions:
        for task, keys in one.tasks():
            left = []
            for key in keys:
                state = _state(key, task, one, done, noted, found, results)
                found.state[key] = state
                if state == ENDED:
                    left.append(key)
            if left:
                found.ended.append(Ended(one, task, left))
    latest = {
        key: (one.name, task) for one in found.submissions for task, k in one.tasks() for key in k
    }
    kept = [
        replace(over, keys=keys)
        for over in found.ended
        if (keys := [k for k in over.keys if latest[k] == (over.submission.name, over.task)])
    ]
    return replace(found, ended=kept)


def _state(
    key: str,
    task: Task,
    one: Submission,
    done: set[str],
    noted: set[str],
    found: Look,
    results: Results,
) -> str:
    if key in done:
        return DONE
    if key in noted and task not in found.alive:
        try:
            failure = results.failure(key)
        except RecordError as error:
            found.bad.append(str(error))
            failure = None
        if failure is not None and failure.attempts > one.attempts.get(key, 0):
            found.failures[key] = failure
            return FAILED
    if task in found.alive:
        return found.alive[task][0]
    if found.silent is not None:
        return UNKNOWN
    return CANCELLED if one.cancelled else ENDED


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
