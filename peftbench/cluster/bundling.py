"""Jobs in bundles that last long enough to be worth scheduling, and how long to ask for."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from peftbench.config.cluster import Cluster
from peftbench.core.evaluation import ClusterJob, Evaluated
from peftbench.core.failures import Failure
from peftbench.core.run import Run
from peftbench.core.tuning import RateChoice
from peftbench.results.runtime_estimates import Forecast

#: Seconds that a job needs before its first step: Python, torch, the model, tokens.
START = 120


@dataclass(frozen=True)
class Unit:
    """What cannot be parted: a run and the evaluations that need its weights, in this order.

    The choice of a learning rate stands by itself.

    Attributes:
        seconds: on the machine of the records, of the jobs of which they say it.
        unknown: how many jobs they say nothing of.
        memory_gb: to ask for, None for the scheduler's choice.
    """

    jobs: tuple[ClusterJob, ...]
    seconds: float
    unknown: int
    memory_gb: float | None


@dataclass(frozen=True)
class Array:
    """Bundles that are submitted together, since they ask for the same.

    Attributes:
        bundles: the jobs of each.
        minutes: to ask for, for the longest of them; None where nobody limits the time.
        memory_gb: to ask for.
        after: numbers of arrays of the same submission that it waits for, however they end.
    """

    bundles: list[list[ClusterJob]]
    minutes: int | None
    memory_gb: float | None
    after: tuple[int, ...] = ()


def units(
    jobs: Sequence[ClusterJob],
    seconds: Callable[[ClusterJob], float | None],
    memory_gb: Callable[[ClusterJob], float | None],
) -> list[Unit]:
    """Runs with their evaluations, those together that one warm worker does best together."""
    groups: dict[str, list[ClusterJob]] = {}
    for job in jobs:
        groups.setdefault(_run(job).key, []).append(job)
    found = []
    for group in groups.values():
        known = [s for job in group if (s := seconds(job)) is not None]
        asked = [gb for job in group if (gb := memory_gb(job)) is not None]
        unknown = len(group) - len(known)
        found.append(Unit(tuple(group), sum(known), unknown, max(asked, default=None)))
    return sorted(found, key=lambda unit: _warmth(_run(unit.jobs[0])))


def arrays(found: Sequence[Unit], cluster: Cluster, limit: int, workers: int) -> list[Array]:
    """Pack units into bundles, and bundles into arrays.

    Args:
        found: in an order in which neighbours go well together.
        cluster: how long a bundle should last, and how many an array may hold.
        limit: the scheduler's own limit on the size of an array.
        workers: processes that a job works with.
    """
    made = []
    for memory in dict.fromkeys(unit.memory_gb for unit in found):
        bundles: list[list[Unit]] = []
        filled = 0.0
        for unit in (unit for unit in found if unit.memory_gb == memory):
            lasts = _seconds(unit, cluster) / workers
            full = filled + lasts > 60 * cluster.bundle_minutes
            # each worker has a unit before a bundle is full: its GPU is paid for all the same
            if not bundles or (full and len(bundles[-1]) >= workers):
                bundles.append([])
                filled = 0.0
            bundles[-1].append(unit)
            filled += lasts
        size = max(1, min(cluster.array_size, limit))
        for start in range(0, len(bundles), size):
            part = bundles[start : start + size]
            minutes = max(_minutes(bundle, cluster, workers) for bundle in part)
            made.append(Array([[j for u in b for j in u.jobs] for b in part], minutes, memory))
    return made


def job_arrays(
    jobs: list[ClusterJob],
    seconds: Callable[[ClusterJob], float | None],
    failed: Mapping[str, Failure],
    cluster: Cluster,
    limit: int,
    workers: int,
) -> list[Array]:
    """Arrays of jobs: those that choose learning rates wait for all arrays of runs.

    Args:
        seconds: as of `expected_seconds`.
        failed: by key, those that were tried before.
        limit, workers: as of `arrays`.
    """
    made: list[Array] = []
    for kind in (False, True):
        some = [job for job in jobs if isinstance(job, RateChoice) == kind]
        found = units(some, seconds, lambda job: memory_gb(failed.get(job.key), cluster))
        after = tuple(range(len(made)))
        made += [replace(one, after=after) for one in arrays(found, cluster, limit, workers)]
    return made


def memory_gb(failure: Failure | None, cluster: Cluster) -> float | None:
    """Memory to ask for, in GB: more after each failure for lack of it, up to the most."""
    return _memory_after(failure.times("memory") if failure else 0, cluster)


def memory_may_grow(failure: Failure, cluster: Cluster) -> bool:
    """Whether a job that failed for lack of memory had less than can be asked for."""
    times = failure.times("memory")
    return _memory_after(times, cluster) != _memory_after(times - 1, cluster)


def _memory_after(times: int, cluster: Cluster) -> float | None:
    if cluster.memory_gb is None:
        return None
    most = cluster.most_memory_gb or math.inf
    return max(cluster.memory_gb, min(cluster.memory_gb * cluster.more_memory**times, most))


def expected_seconds(
    forecast: Forecast, found: Iterable[Evaluated]
) -> Callable[[ClusterJob], float | None]:
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
            each = forecast.seconds(job.one_trial)
            return None if each is None else each * (job.last_trials + 1)
        known = spent.get(job.suite["name"])
        return sum(known) / len(known) if known else None

    return seconds


def _minutes(bundle: Sequence[Unit], cluster: Cluster, workers: int) -> int:
    """Time to ask for; the scheduler's warning, up to a minute early, must not come too soon."""
    if cluster.minutes is not None:
        return cluster.minutes
    each = [_seconds(unit, cluster) for unit in bundle]
    work = max(sum(each) / workers, *each)
    whole = START + cluster.margin * work + cluster.signal_seconds + 60
    return min(cluster.most_minutes, math.ceil(whole / 60))


def _seconds(unit: Unit, cluster: Cluster) -> float:
    each = 60 * cluster.unknown_minutes / cluster.margin  # it is meant with the margin
    return unit.seconds + unit.unknown * each


def _run(job: ClusterJob) -> Run:
    return job if isinstance(job, Run) else job.run


def _warmth(run: Run) -> tuple[str, str, int, str]:
    return run.model.name, run.task.name, run.train.max_length, run.method.name
