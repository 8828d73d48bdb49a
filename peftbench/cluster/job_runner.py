"""What a job of a cluster does on its node: the runs of its task, one after the other.

It may be killed at any moment and started again: what has a record is done, what has a checkpoint
goes on from it. On USR2 (the time is nearly over, or another job needs the place) it writes
checkpoints and puts itself back to the queue; on TERM it writes checkpoints and leaves.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from peftbench.cluster import environment, local
from peftbench.cluster.manifest import NAME, Submission, Task, load, read_jobs
from peftbench.core.errors import ConfigError, RecordError
from peftbench.core.evaluation import TRANSIENT_FAILURES, ClusterJob, Evaluation, Failure
from peftbench.core.plan import Plan, RunOptions
from peftbench.core.run import Run
from peftbench.core.tuning import RateChoice
from peftbench.results import choices
from peftbench.results.runtime_estimates import Forecast
from peftbench.results.store import Results
from peftbench.runner import sweep, tune
from peftbench.runner.progress import note
from peftbench.system import offline_folder
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

    for name in (signal.SIGUSR2, signal.SIGUSR1, signal.SIGTERM):
        signal.signal(name, hear)
    signal.signal(signal.SIGCONT, signal.SIG_DFL)
    try:
        code = _work(Path(place), task)
    except (ConfigError, RecordError) as error:
        note(f"peftbench: {error}")
        code = WRONG
    sys.exit(code)


def _work(place: Path, task: str) -> int:
    results = Results(place.parent.parent)
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
    if one.cluster.prefetched:
        offline_folder.use(Path(one.cluster.prefetched))
    jobs = [job for job in every if _to_do(job, results, one)]
    note(f"{len(every) - len(jobs)} of them are done or have failed for good")
    options = RunOptions(**one.order)
    gpus = devices(options.device)
    if one.cluster.gpus and options.device == "auto" and not gpus:
        raise ConfigError(f"the job asked for {one.cluster.gpus} GPUs and sees none on this node")
    todo = sweep.Todo(
        [job for job in jobs if isinstance(job, Run)],
        [job for job in jobs if isinstance(job, Evaluation)],
        offline_folder.data_root() or one.data_root,
        Forecast([]),
    )
    wanted = todo.runs or todo.evaluations
    stopped = bool(wanted) and sweep.execute(todo, one.store(results), options, gpus, _stop)
    for job in jobs:
        if isinstance(job, RateChoice) and not stopped:
            stopped = not _choose(job, todo.data_root, options, results)
    if stopped:
        return _leave(results, one)
    left = [job for job in jobs if _to_do(job, results, one)]
    for job in left:
        note(f"without a record: {job.title}")
    return WRONG if left else DONE


def _stop() -> bool:
    return bool(_heard)


def _choose(job: RateChoice, data_root: str | None, options: RunOptions, results: Results) -> bool:
    """Make what is missing of the trials of a choice, and the choice; False when stopped."""
    plan = Plan([], 0, [], [], data_root)
    code = tune.choose([job.question], plan, job.search, options, results, halted=_stop)
    if code == 1:
        reason = "some of its trials failed; the log of its job names them"
        results.trials().fail(Failure(job, "error", reason))
    return code != 130


def _to_do(job: ClusterJob, results: Results, one: Submission) -> bool:
    """Whether a job has neither a record nor, since it was submitted, failed for good."""
    store = one.store(results)
    if isinstance(job, RateChoice):
        if job.key in choices.answer_keys(results):
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


def _leave(results: Results, one: Submission) -> int:
    """Back to the queue, if that is what the signal means."""
    said = ", ".join(sorted(number.name for number in _heard))
    note(f"stopped by {said}; checkpoints are written")
    if signal.SIGUSR2 not in _heard or one.cluster.scheduler != "slurm":
        return LEFT
    if load(results, one.name).cancelled:
        note("it was cancelled")
    elif restarts() >= one.cluster.max_requeues:
        note(f"it was put back {restarts()} times, which is enough (cluster.max_requeues)")
    else:
        note(requeue())
    return LEFT


#: Runs what follows without minding the signals that end the job.
_SHIELD = ["bash", "-c", 'trap "" TERM USR2 CONT; exec "$@"', "--"]


def requeue() -> str:
    """Put the job that this process belongs to back to the queue; return what Slurm says.

    The signals that end the job reach its children too: this one must not mind.
    """
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    command = [*_SHIELD, "scontrol", "requeue", job]
    done = subprocess.run(command, capture_output=True, text=True, env=environment.cleaned())
    return done.stderr.strip() or f"job {job} goes back to the queue"


def restarts() -> int:
    """How often the job of this process was put back before."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


if __name__ == "__main__":
    work(*sys.argv[1:])
