"""Which jobs are submitted: what is neither done nor queued, nor has failed for good."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from peftbench.cluster import manifest
from peftbench.cluster.bundling import memory_may_grow
from peftbench.cluster.queue import UNKNOWN, QueueSnapshot
from peftbench.config.cluster import Cluster
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import ClusterJob, Evaluation
from peftbench.core.failures import Failure
from peftbench.core.plan import Plan
from peftbench.core.run import Run
from peftbench.core.tuning import RateChoice
from peftbench.results import status
from peftbench.results.status import SweepStatus
from peftbench.results.store import ResultsFolder
from peftbench.runner.sweep import of_weights, retry_filter

#: Begins the reason of a run for which a GPU was too small: more memory of the host is no help.
_OF_GPU = ("OutOfMemoryError:", "PredictionOutOfMemory:")


@dataclass(frozen=True)
class JobChoice:
    """The jobs to submit, and what became of the others.

    Attributes:
        state: of the plan in the folder of its records.
        failed: by key, those that were tried before.
        queued: jobs that an earlier submission has in the queue.
        given_up: failures that are not tried again.
        later: evaluations and choices of learning rates whose runs or trials must be over first,
            which an earlier submission has in the queue; or this one, where the scheduler lets no
            job wait for others.
    """

    jobs: list[ClusterJob]
    state: SweepStatus
    failed: dict[str, Failure]
    queued: int
    given_up: list[Failure]
    later: int = 0


def choose_jobs(
    plan: Plan,
    choices: Sequence[RateChoice],
    store: ResultsFolder,
    seen: QueueSnapshot,
    cluster: Cluster,
    *,
    waits: bool,
    retry: str | None,
) -> JobChoice:
    """What of a plan, and of choices of learning rates from it, is to be submitted.

    Args:
        store: where the records of the plan's runs are.
        seen: all submissions into the results folder.
        waits: whether the scheduler lets a job wait for others.
        retry: as of `retry_rule`.

    Raises:
        ConfigError: if jobs may wait or run already without being shown, or a record cannot be
            read.
    """
    gpu = bool(cluster.gpus)
    state = status.sweep_status(plan, store, lambda record: bool(record.environment["cuda"]) == gpu)
    state.refuse_closed()
    wanted: list[ClusterJob] = [*plan.runs, *plan.evaluations, *choices]
    missing = [job for job in wanted if job.key not in state.done]
    _check_known(missing, seen)
    of_choices = {job.key: store.failure(job.key) for job in choices}
    failed = state.failed | {key: failure for key, failure in of_choices.items() if failure}
    keys, again = seen.queued(), retry_rule(cluster, retry)
    queued = [job for job in missing if job.key in keys]
    jobs: list[ClusterJob] = []
    given_up: list[Failure] = []
    for job in (job for job in missing if job.key not in keys):
        failure = failed.get(job.key)
        if failure is None or again(failure):
            jobs.append(job)
        elif not (choices and isinstance(job, Run) and failure.kind == "diverged"):  # a finding
            given_up.append(failure)
    runs = {job.key for job in jobs if isinstance(job, Run)}
    # it failed with its run, whose weights are kept for evaluations of the same submission alone
    along = {job.key for job in missing if isinstance(job, Evaluation) and job.run.key in runs}
    jobs += [one.job for one in given_up if one.job.key in along]
    given_up = [one for one in given_up if one.job.key not in along]
    there = keys | runs | state.done
    later: list[ClusterJob] = []
    now: list[ClusterJob] = []
    for job in jobs:
        if isinstance(job, Evaluation) and job.run.key not in there:
            continue  # its run is given up
        first = keys if waits or isinstance(job, Evaluation) else keys | runs
        (now if first.isdisjoint(_needed(job)) else later).append(job)
    _check_kept([job for job in later if isinstance(job, Evaluation)], seen, store)
    return JobChoice(now, state, failed, len(queued), given_up, later=len(later))


def _needed(job: ClusterJob) -> set[str]:
    """Keys of the runs that must be over before a job begins."""
    if isinstance(job, RateChoice):
        return {run.key for rate in job.question.rates for run in job.question.trials(rate, 1)}
    return {job.run.key} if isinstance(job, Evaluation) else set()


def _check_kept(later: list[Evaluation], seen: QueueSnapshot, store: ResultsFolder) -> None:
    """Refuse evaluations of weights that the jobs which train them do not keep.

    Raises:
        ConfigError: with the submissions of these jobs.
    """
    wanted = {job.run.key for job in of_weights(later)}
    found: dict[str, set[str]] = {}
    for one in seen.submissions:
        for task, keys in one.tasks():
            runs = wanted & set(keys)
            if not runs or task not in seen.alive or one.order.get("save_weights"):
                continue
            jobs = manifest.read_jobs(store, task)
            if not of_weights(job for job in jobs if isinstance(job, Evaluation)):
                found.setdefault(one.name, set()).update(runs)
    if found:
        raise ConfigError(
            f"{len(set().union(*found.values()))} of the runs to evaluate are in the queue without "
            f"--save-weights ({', '.join(found)}): `peftbench cancel {' '.join(found)}`, then "
            "submit again, which trains and evaluates them; or leave suite= out"
        )


def retry_rule(cluster: Cluster, retry: str | None) -> Callable[[Failure], bool]:
    """Whether a job that failed is submitted again.

    Args:
        retry: classes of failures, as of `--retry`; None for those that may go better.

    Raises:
        ConfigError: for a word that is no class.
    """
    chosen = retry_filter(retry)

    def again(failure: Failure) -> bool:
        if retry is not None:
            return chosen(failure.kind)
        if failure.kind == "memory":
            on_gpu = failure.reason.startswith(_OF_GPU)
            return not on_gpu and memory_may_grow(failure, cluster)
        lost = failure.kind == "lost"
        return chosen(failure.kind) and (not lost or failure.alike < cluster.attempts)

    return again


def _check_known(missing: list[ClusterJob], seen: QueueSnapshot) -> None:
    """Refuse jobs that may wait or run already without being shown."""
    unknown = [job for job in missing if seen.state.get(job.key) == UNKNOWN]
    if unknown:
        reasons = "\n".join(f"  {name}: {why}" for name, why in seen.doubts().items())
        raise ConfigError(
            f"{len(unknown)} of these may wait or run already, so nothing is submitted:\n{reasons}"
        )
