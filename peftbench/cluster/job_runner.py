"""What a job of a cluster does on its node: the runs of its task, one after the other.

It may be killed at any moment and started again: what has a record is done, what has a checkpoint
goes on from it. On a warning (the scheduler's, or its own clock: the time is nearly over) it writes
checkpoints and goes back to the queue, or leaves where a job cannot go back; on TERM and INT it
writes checkpoints and leaves.
"""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

from peftbench.cluster import base, turns
from peftbench.cluster.manifest import NAME, Submission, Task, load, read_jobs
from peftbench.cluster.schedulers import local
from peftbench.core.errors import ConfigError, RecordError
from peftbench.core.evaluation import ClusterJob, Evaluation
from peftbench.core.failures import TRANSIENT_FAILURES, Failure
from peftbench.core.plan import Plan, RunOptions
from peftbench.core.run import Run
from peftbench.core.tuning import RateChoice
from peftbench.results import choices
from peftbench.results.runtime_estimates import Forecast
from peftbench.results.store import ResultsFolder
from peftbench.runner import sweep, tune
from peftbench.runner.progress import note
from peftbench.system import offline_folder, run_locks
from peftbench.system.hardware import checkout, devices

#: Exit codes: all is done or noted, something went wrong, left on a signal (BSD's EX_TEMPFAIL).
DONE, WRONG, LEFT = 0, 1, 75

_heard: set[signal.Signals] = set()


def work(place: str, task: str) -> None:
    """Do the task of the submission in the folder `place`; ends the process.

    Raises:
        SystemExit: with one of the codes above.
    """
    me = os.getpid()

    def hear(number: int, _: object) -> None:
        if os.getpid() == me:  # a forked child has the handler too
            _heard.add(signal.Signals(number))

    for name in (signal.SIGUSR2, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
        signal.signal(name, hear)
    if (left := seconds_left()) is not None:
        signal.signal(signal.SIGALRM, hear)
        signal.setitimer(signal.ITIMER_REAL, left)
    signal.signal(signal.SIGCONT, signal.SIG_DFL)
    try:
        code = _work(Path(place), task)
    except (ConfigError, RecordError) as error:
        note(f"peftbench: {error}")
        code = WRONG
    sys.exit(code)


def seconds_left() -> float | None:
    """Seconds until checkpoints must be written, as the script of the job says.

    None where it says nothing: on this machine, and in scripts of the release before.
    """
    names = ("STARTED", "SECONDS", "SIGNAL_SECONDS")
    try:
        began, seconds, early = (float(os.environ[f"PEFTBENCH_{name}"]) for name in names)
    except (KeyError, ValueError):
        return None
    return max(0.1, began + seconds - early - time.time())


def _work(place: Path, task: str) -> int:
    results = ResultsFolder(place.parent.parent)
    if not NAME.fullmatch(place.name) or not (place / "manifest.json").is_file():
        raise ConfigError(f"{place} is no submission any more: was the results folder moved?")
    one = load(results, place.name)
    if one.cluster.scheduler == "local":
        local.note_process(place, Task.read(one.name, task))
    every = read_jobs(results, Task.read(one.name, task))
    note(f"task {task} of {one.name}: {len(every)} to do")
    if one.commit != (now := checkout()["commit"]):
        before = one.commit or "no checkout"
        note(f"note: submitted from {before}, runs from {now or 'no checkout'}")
    if one.inherited:
        note(f"variables from the submitting environment: {', '.join(one.inherited)}")
    if one.cancelled:
        note("it was cancelled")
        return DONE
    this = Task.read(one.name, task)
    turn = turns.begin(results, this).count
    note(f"turn {turn}")
    os.environ[run_locks.TURN] = f"{one.name}/{task}/{turn}"  # for the workers, which claim
    if one.cluster.prefetched:
        offline_folder.use(Path(one.cluster.prefetched))
    jobs = [job for job in every if _to_do(job, results, one)]
    note(f"{len(every) - len(jobs)} of them are done or have failed for good")
    options = RunOptions(**one.order)
    gpus = own_gpus(one, devices(options.device))
    if one.cluster.gpus and options.device == "auto" and not gpus:
        raise ConfigError(f"the job asked for {one.cluster.gpus} GPUs and sees none on this node")
    todo = sweep.Todo(
        [job for job in jobs if isinstance(job, Run)],
        [job for job in jobs if isinstance(job, Evaluation)],
        offline_folder.data_root() or one.data_root,
        Forecast([]),
        trials=one.search,
    )
    wanted = todo.runs or todo.evaluations
    stopped = bool(wanted) and sweep.execute(todo, one.store(results), options, gpus, _stop)
    for job in jobs:
        if isinstance(job, RateChoice) and not stopped:
            ended = _choose(job, todo.data_root, options, results)
            stopped = ended == "signal"
            if ended == "disk":  # nor is there room for the next one
                break
    if stopped:
        return leave_job(results, one, this)
    left = [job for job in jobs if _to_do(job, results, one)]
    for job in left:
        note(f"without a record: {job.title}")
    return WRONG if left else DONE


def _stop() -> bool:
    return bool(_heard)


def _choose(
    job: RateChoice, data_root: str | None, options: RunOptions, results: ResultsFolder
) -> Literal["signal", "disk"] | None:
    """Make what is missing of the trials of a choice, and the choice; what ends the job, if any."""
    plan = Plan([], 0, [], [], data_root)
    code = tune.choose([job.question], plan, job.search, options, results, halted=_stop)
    if code == 1:
        trials = results.trials()
        kind, reason = _why_none(job, trials)
        trials.fail(Failure(job, kind, reason))
        return "disk" if kind == "disk" else None
    return "signal" if code == 130 else None


def _why_none(job: RateChoice, trials: ResultsFolder) -> tuple[str, str]:
    """Class and reason of a choice that was not made: those of its first trial that failed."""
    seeds = job.search.rungs[-1].seeds
    made = [job.question.trials(rate, seeds) for rate in job.question.rates]
    absent = [[run.key for run in runs if not trials.has(run.key)] for runs in made]
    failed = [[one for key in keys if (one := _noted(trials, key))] for keys in absent]
    for one in (one for some in failed for one in some if one.kind != "diverged"):
        return one.kind, f"its trial {one.job.key} failed: {one.reason}"
    if all(failed):
        return "diverged", "every rate diverged in a trial; the log of its job names lower ones"
    return "error", "some of its trials are not there; the log of its job names them"


def _noted(trials: ResultsFolder, key: str) -> Failure | None:
    with suppress(RecordError):  # a torn note says nothing
        return trials.failure(key)
    return None


def _to_do(job: ClusterJob, results: ResultsFolder, one: Submission) -> bool:
    """Whether a job has neither a record nor, since it was submitted, failed for good."""
    store = one.store(results)
    if isinstance(job, RateChoice):
        if job.is_answered(choices.answer_keys(results)):
            return False
    elif store.done(job):
        return False
    try:
        failure: Failure | None = store.failure(job.key)
    except RecordError:
        return True
    if failure is None or failure.kind in TRANSIENT_FAILURES:
        return True
    return failure.attempts <= one.attempts.get(job.key, 0)


def own_gpus(one: Submission, found: list[str]) -> list[str]:
    """The GPUs that a job may use: where nothing says which are its own, no more than asked for."""
    if one.cluster.scheduler == "local" or "CUDA_VISIBLE_DEVICES" in os.environ:
        return found
    own = found[: one.cluster.gpus or 0]
    if len(own) < len(found):
        note(
            f"the node shows {len(found)} GPUs, the job asked for {len(own)}, and nothing says "
            f"which are its own (CUDA_VISIBLE_DEVICES): it uses {', '.join(own) or 'none'}"
        )
    return own


def leave_job(results: ResultsFolder, one: Submission, task: Task) -> int:
    """Back to the queue, if that is what the signal means and the scheduler can; the exit code."""
    said = ", ".join(sorted(number.name for number in _heard))
    note(f"stopped by {said}; checkpoints are written")
    found = base.find_scheduler(one.cluster.scheduler)
    if not found.warnings & _heard:
        return found.left_code
    if load(results, one.name).cancelled:
        note("it was cancelled")
        return found.left_code
    turn, most = turns.read(results, task).count, one.cluster.max_requeues
    if turn <= most and (back := found(one.cluster).requeue(results, one, task)):
        turns.end(results, task, turns.REQUEUED, back.job)
        note(back.said)
        return back.code
    turns.end(results, task, turns.LEFT)
    note(f"it leaves in turn {turn} (cluster.max_requeues={most}): submit again to continue")
    return found.left_code


if __name__ == "__main__":
    work(*sys.argv[1:])
