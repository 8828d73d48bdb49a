"""Submit what is neither done nor queued, and leave."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial

from peftbench.cluster import base, bundling, environment, manifest, rehearsal
from peftbench.cluster.bundling import Array
from peftbench.cluster.job_choice import JobChoice, choose_jobs
from peftbench.cluster.manifest import SchedulerUnreachable, Submission, alone
from peftbench.cluster.queue import QueueSnapshot, look
from peftbench.cluster.settle import settle
from peftbench.config.cluster import Cluster
from peftbench.core.errors import ConfigError
from peftbench.core.failures import Failure
from peftbench.core.plan import Plan, RunOptions
from peftbench.core.text import command, format_duration
from peftbench.core.tuning import RateChoice
from peftbench.results.store import ResultsFolder
from peftbench.runner.only_one import keep_revisions
from peftbench.runner.progress import note

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
        later: evaluations and choices of learning rates that are not submitted yet, see
            `JobChoice`.
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
    with _answering():
        scheduler = base.build_scheduler(cluster)
        scheduler.check_config()
        cluster = scheduler.resolved()
        scheduler = base.build_scheduler(cluster)
    results.check_writable()
    # a dry run replaces no commit: finished runs would get other keys
    keep_revisions(results, replace(plan, renewed=set()) if dry_run else plan)
    store = results.trials() if choices else results
    with alone(results):
        seen = _look(results)
        chosen = choose_jobs(
            plan, choices, store, seen, cluster, waits=scheduler.waits, retry=order.retry
        )
        told = Submitted(
            None, 0, len(chosen.state.done), chosen.queued, chosen.given_up, later=chosen.later
        )
        if not chosen.jobs:
            return told
        _rehearse(chosen, store, cluster, order)
        withheld = () if scheduler.passes_environment else environment.secrets()
        if names := [name for name in withheld if name not in cluster.environment]:
            note(
                f"{', '.join(names)}: secrets are written into no script, so jobs do not have "
                "them; export them in a file that a line of cluster.setup sources, or fetch with "
                "`peftbench prefetch --to FOLDER` and set cluster.prefetched"
            )
        with _answering():
            arrays = _bundle(chosen, results, scheduler, cluster, order)
            site = scheduler.site
        made = manifest.begin(
            overrides,
            cluster,
            arrays,
            plan.data_root,
            asdict(replace(order, retry=None)),
            attempts={key: failure.attempts for key, failure in chosen.failed.items()},
            site=site,
            inherited=environment.inherited()
            if scheduler.passes_environment
            else sorted(scheduler.exports()),
            search=bool(choices),
        )
        told = replace(told, submission=made, jobs=len(chosen.jobs))
        return told if dry_run else _send(told, made, arrays, results, scheduler)


@contextmanager
def _answering() -> Iterator[None]:
    """Refuse to submit where the scheduler does not answer."""
    try:
        yield
    except SchedulerUnreachable as error:
        raise ConfigError(_silent(str(error))) from error


def _silent(reason: str) -> str:
    return f"the scheduler does not answer ({reason}), so nothing is submitted; try again later"


def _look(results: ResultsFolder) -> QueueSnapshot:
    """All submissions into the folder, with what is known of jobs that ended noted.

    Raises:
        ConfigError: if the scheduler does not answer.
    """
    seen = settle(results, look(results))
    if seen.silent is not None:
        raise ConfigError(_silent(seen.silent))
    return seen


def _rehearse(chosen: JobChoice, store: ResultsFolder, cluster: Cluster, order: RunOptions) -> None:
    """Check on this machine what the jobs do, and say what they do not have of it.

    Raises:
        ConfigError: with all that is wrong.
        Stopped: by a signal.
    """
    jobs = [job.one_trial if isinstance(job, RateChoice) else job for job in chosen.jobs]
    rehearsal.rehearse(jobs, chosen.state, store, cluster, order)
    if cluster.scheduler != "local" and (names := environment.left_out()):
        listed = ", ".join(names[:8]) + f" and {len(names) - 8} more" * (len(names) > 8)
        note(
            f"{listed} of this shell are not for jobs and commands of the scheduler; cluster.* "
            "says what a job gets"
        )


def _bundle(
    chosen: JobChoice,
    results: ResultsFolder,
    scheduler: base.Scheduler,
    cluster: Cluster,
    order: RunOptions,
) -> list[Array]:
    """The jobs in arrays; on this machine one job does one after the other."""
    if cluster.scheduler == "local":
        return [Array([chosen.jobs], None, None)]
    every, _ = results.scan_evaluated()
    evaluated = [one for one in every if bool(one.environment["cuda"]) == bool(cluster.gpus)]
    return bundling.job_arrays(
        chosen.jobs,
        bundling.expected_seconds(chosen.state.forecast, evaluated),
        chosen.failed,
        cluster,
        scheduler.array_limit,
        order.workers or max(1, (cluster.gpus or 1) // order.gpus_per_run),
    )


def _send(
    told: Submitted,
    made: Submission,
    arrays: list[Array],
    results: ResultsFolder,
    scheduler: base.Scheduler,
) -> Submitted:
    """Write what nodes need, then hand over array by array, noting each number at once."""
    tasks = [task for task, _ in made.tasks()]
    jobs_ = [jobs for array in arrays for jobs in array.bundles]
    with ThreadPoolExecutor(_WRITERS) as writers:  # most of a write is waiting for the disk
        list(writers.map(partial(manifest.write_jobs, results), tasks, jobs_))
    manifest.save(results, made)
    for number in range(len(arrays)):
        try:
            job = scheduler.send(results, made, number)
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


def sentence(told: Submitted, results: ResultsFolder, dry_run: bool = False) -> list[str]:
    """What a person wants to know after `submit`."""
    counts = f"{told.done} done, {told.queued} in the queue already"
    if told.given_up:
        counts += f", {len(told.given_up)} failed for good (see --retry)"
    later = (
        f"{told.later} evaluations or choices of learning rates need runs that are in the queue: "
        "once these are over, the same command submits the rest"
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
