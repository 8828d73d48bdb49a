"""Submit what is neither done nor queued, and leave."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial

from peftbench.cluster import base, bundling, environment, manifest, rehearsal
from peftbench.cluster.bundling import Array
from peftbench.cluster.manifest import (
    SchedulerUnreachable,
    Submission,
    alone,
)
from peftbench.cluster.queue import UNKNOWN, QueueSnapshot, look
from peftbench.cluster.settle import settle
from peftbench.config.cluster import Cluster
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import ClusterJob, Evaluated
from peftbench.core.failures import Failure
from peftbench.core.plan import Plan, RunOptions
from peftbench.core.run import Run
from peftbench.core.text import command, format_duration
from peftbench.core.tuning import RateChoice
from peftbench.results import status
from peftbench.results.runtime_estimates import Forecast
from peftbench.results.store import ResultsFolder
from peftbench.runner.progress import note
from peftbench.runner.sweep import retry_filter

#: Files of tasks that are written at once.
_WRITERS = 8


@dataclass(frozen=True)
class Submitted:
    """What a submission came to.

    Attributes:
        submission: None where there was nothing to submit.
        jobs: runs, evaluations and choices of learning rates in it.
        queued: jobs that an earlier submission has in the queue.
        refused: what the scheduler said when it took no more.
        later: choices of learning rates whose trials must be over first, where the scheduler lets
            no job wait for others.
    """

    submission: Submission | None
    jobs: int
    done: int
    queued: int
    given_up: list[Failure]
    refused: str | None = None
    later: int = 0


def submit(
    plan: Plan,
    overrides: list[str],
    results: ResultsFolder,
    cluster: Cluster,
    order: RunOptions,
    dry_run: bool = False,
    choices: Sequence[RateChoice] = (),
) -> Submitted:
    """Rehearse what is neither done nor queued, hand it to the scheduler, and return.

    Args:
        overrides: all of them, those of the cluster included.
        order: how the nodes run.
        choices: to make once the runs of the plan, which are their trials, are over.

    Raises:
        ConfigError: for bad input, or if the scheduler takes nothing.
        Stopped: by a signal while runs are rehearsed; nothing was handed over.
    """
    asked = base.build_scheduler(cluster)
    try:
        asked.check_config()
    except SchedulerUnreachable as error:
        raise ConfigError(_silent(str(error))) from error
    results.check_writable()
    results.keep_revisions(plan.revisions, plan.renewed)
    store = results.trials() if choices else results
    with alone(results):
        seen = settle(results, look(results))
        if seen.silent is not None:
            raise ConfigError(_silent(seen.silent))
        gpu = bool(cluster.gpus)
        state = status.sweep_status(
            plan, store, lambda record: bool(record.environment["cuda"]) == gpu
        )
        state.refuse_closed()
        missing = [job for job in (*_jobs(plan), *choices) if job.key not in state.done]
        _check_known(missing, seen)
        queued = seen.queued()
        failed = state.failed | {
            one.key: failure for one in choices if (failure := store.failure(one.key))
        }
        jobs, given_up = _wanted(missing, failed, queued, cluster, order.retry)
        if choices:  # of a trial that is a finding
            given_up = [failure for failure in given_up if failure.kind != "diverged"]
        waiting = sum(job.key in queued for job in missing)
        later = 0
        if choices and not asked.waits:
            trials: list[ClusterJob] = [job for job in jobs if not isinstance(job, RateChoice)]
            if trials or any(isinstance(job, Run) and job.key in queued for job in missing):
                jobs, later = trials, len(jobs) - len(trials)
        told = Submitted(None, 0, len(state.done), waiting, given_up, later=later)
        if not jobs:
            return told
        tried = [_trial(job) if isinstance(job, RateChoice) else job for job in jobs]
        rehearsal.rehearse(tried, state, store, cluster, order)
        if cluster.scheduler != "local" and (names := environment.left_out()):
            note(f"{_names(names)} of this shell {_LEFT_OUT}")
        try:
            arrays = _arrays(jobs, state.forecast, failed, results, cluster, asked, order)
            site = asked.site
        except SchedulerUnreachable as error:
            raise ConfigError(_silent(str(error))) from error
        attempts = {key: failure.attempts for key, failure in failed.items()}
        how = asdict(replace(order, retry=None))
        made = manifest.begin(
            overrides,
            cluster,
            arrays,
            plan.data_root,
            how,
            attempts,
            site=site,
            inherited=environment.inherited(),
            search=bool(choices),
        )
        told = replace(told, submission=made, jobs=len(jobs))
        return told if dry_run else _send(told, made, arrays, results, asked)


_LEFT_OUT = "are not for jobs and commands of the scheduler; cluster.* says what a job gets"


def _names(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _check_known(missing: list[ClusterJob], seen: QueueSnapshot) -> None:
    """Refuse jobs that may wait or run already without being shown."""
    unknown = [job for job in missing if seen.state.get(job.key) == UNKNOWN]
    if unknown:
        reasons = "\n".join(f"  {name}: {why}" for name, why in seen.doubts().items())
        raise ConfigError(
            f"{len(unknown)} of these may wait or run already, so nothing is submitted:\n{reasons}"
        )


def _silent(reason: str) -> str:
    return f"the scheduler does not answer ({reason}), so nothing is submitted; try again later"


def _send(
    told: Submitted,
    made: Submission,
    arrays: list[Array],
    results: ResultsFolder,
    asked: base.Scheduler,
) -> Submitted:
    """Write what nodes need, then hand over array by array, noting each number at once."""
    tasks = [task for task, _ in made.tasks()]
    jobs_ = [jobs for array in arrays for jobs in array.bundles]
    with ThreadPoolExecutor(_WRITERS) as writers:  # most of a write is waiting for the disk
        list(writers.map(partial(manifest.write_jobs, results), tasks, jobs_))
    manifest.save(results, made)
    for number in range(len(arrays)):
        try:
            job = asked.send(results, made, number)
        except ConfigError as error:
            if number == 0:
                manifest.save(results, replace(made, cancelled=True))
                raise
            return replace(told, submission=made, refused=str(error))
        sent = list(made.arrays)
        sent[number] = replace(sent[number], job=job)
        made = replace(made, arrays=sent)
        manifest.save(results, made)
    return replace(told, submission=made)


def _wanted(
    missing: list[ClusterJob],
    failed: dict[str, Failure],
    queued: set[str],
    cluster: Cluster,
    retry: str | None,
) -> tuple[list[ClusterJob], list[Failure]]:
    """The jobs to submit, and the failures that are not tried again."""
    again = retry_filter(retry)
    wanted, given_up = [], []
    for job in missing:
        if job.key in queued:
            continue
        failure = failed.get(job.key)
        if failure is None or _try_again(failure, again, cluster, retry):
            wanted.append(job)
        else:
            given_up.append(failure)
    return wanted, given_up


def _try_again(
    failure: Failure, again: Callable[[str], bool], cluster: Cluster, retry: str | None
) -> bool:
    if retry is not None:
        return again(failure.kind)
    if failure.kind == "memory":
        return _memory(failure, cluster) != cluster.memory_gb
    return again(failure.kind) and (failure.kind != "lost" or failure.attempts < cluster.attempts)


def _memory(failure: Failure | None, cluster: Cluster) -> float | None:
    """Memory to ask for, in GB: more after each failure for lack of it, up to the most."""
    if cluster.memory_gb is None or failure is None or failure.kind != "memory":
        return cluster.memory_gb
    most = cluster.most_memory_gb or float("inf")
    asked = cluster.memory_gb * cluster.more_memory**failure.attempts
    before = cluster.memory_gb * cluster.more_memory ** (failure.attempts - 1)
    return min(asked, most) if before < most else cluster.memory_gb


def _arrays(
    jobs: list[ClusterJob],
    forecast: Forecast,
    failed: dict[str, Failure],
    results: ResultsFolder,
    cluster: Cluster,
    asked: base.Scheduler,
    order: RunOptions,
) -> list[Array]:
    """Choices wait for all arrays of runs; on this machine one job does one after the other."""
    if cluster.scheduler == "local":
        return [Array([jobs], None, None)]
    seconds = _seconds(forecast, results.scan_evaluated()[0])
    workers = order.workers or max(1, (cluster.gpus or 1) // order.gpus_per_run)
    made: list[Array] = []
    for kind in (False, True):
        some = [job for job in jobs if isinstance(job, RateChoice) == kind]
        found = bundling.units(some, seconds, lambda job: _memory(failed.get(job.key), cluster))
        after = tuple(range(len(made)))
        arrays = bundling.arrays(found, cluster, asked.array_limit, workers)
        made += [replace(array, after=after) for array in arrays]
    return made


def _seconds(forecast: Forecast, found: list[Evaluated]) -> Callable[[ClusterJob], float | None]:
    """Seconds of a run as the forecast says, of an evaluation as the suite took on average.

    Those of a choice are of its last round, and of a trial of the first one that failed and is
    made again.
    """
    spent: dict[str, list[float]] = {}
    for one in found:
        spent.setdefault(one.evaluation.suite["name"], []).append(sum(one.seconds.values()))

    def seconds(job: ClusterJob) -> float | None:
        if isinstance(job, Run):
            return forecast.seconds(job)
        if isinstance(job, RateChoice):
            each = forecast.seconds(_trial(job))
            return None if each is None else each * (job.last_trials + 1)
        known = spent.get(job.suite["name"])
        return sum(known) / len(known) if known else None

    return seconds


def _trial(choice: RateChoice) -> Run:
    """One of the trials of a choice; the others differ in rate and seed."""
    return choice.question.trials(choice.question.rates[0], 1)[0]


def sentence(told: Submitted, results: ResultsFolder, dry_run: bool = False) -> list[str]:
    """What a person wants to know after `submit`."""
    counts = f"{told.done} done, {told.queued} in the queue already"
    if told.given_up:
        counts += f", {len(told.given_up)} failed for good (see --retry)"
    later = (
        f"{told.later} choices of learning rates wait for these trials, and this scheduler lets "
        "no job wait for others: once they are over, the same command submits the choices"
    )
    if told.submission is None:
        return [f"nothing to submit: {counts}", *([later] if told.later else [])]
    arrays = told.submission.arrays
    tasks = sum(len(array.tasks) for array in arrays)
    lines = [f"{told.jobs} to do ({counts}) in {tasks} job{'s' * (tasks != 1)}"]
    for array in arrays:
        limits = [f"{array.memory_gb:g} GB"] if array.memory_gb else []
        limits += [f"up to {format_duration(60 * array.minutes)} each"] if array.minutes else []
        limits += ["after those above"] if array.after else []
        number = f" as {array.job}" if array.job else ""
        some = f"{len(array.tasks)} job{'s' * (len(array.tasks) != 1)}"
        lines.append(", ".join([f"  {some}{number}", *limits]))
    if told.later:
        lines.append(later)
    if told.refused:
        lines.append(f"the scheduler took no more: {told.refused}; submit again later for the rest")
    if dry_run:
        return [*lines, "nothing was submitted"]
    lines.append(f"submission {told.submission.name}")
    lines.append(f"look:    {command('status', '--results', results.folder)}")
    lines.append(f"collect: {command('collect', '--results', results.folder)}")
    return lines


def _jobs(plan: Plan) -> list[ClusterJob]:
    return [*plan.runs, *plan.evaluations]
