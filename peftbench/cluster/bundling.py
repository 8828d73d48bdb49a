"""Jobs in bundles that last long enough to be worth scheduling, and how long to ask for."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from peftbench.config.cluster import Cluster
from peftbench.core.evaluation import ClusterJob
from peftbench.core.run import Run

#: Seconds that a job needs before its first step: Python, torch, the model, tokens.
START = 120


@dataclass(frozen=True)
class Unit:
    """What cannot be parted: a run and the evaluations that need its weights, in this order.

    The choice of a learning rate stands by itself.

    Attributes:
        seconds: on the machine of the records, None where they do not say.
        memory_gb: to ask for, None for the scheduler's choice.
    """

    jobs: tuple[ClusterJob, ...]
    seconds: float | None
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
        known = [seconds(job) for job in group]
        asked = [gb for job in group if (gb := memory_gb(job)) is not None]
        found.append(
            Unit(
                tuple(group),
                sum(s for s in known if s is not None) if None not in known else None,
                max(asked, default=None),
            )
        )
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
        filled = math.inf
        for unit in (unit for unit in found if unit.memory_gb == memory):
            lasts = _seconds(unit, cluster) / workers
            if filled + lasts > 60 * cluster.bundle_minutes:
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


def _minutes(bundle: Sequence[Unit], cluster: Cluster, workers: int) -> int:
    """Time to ask for; the scheduler's warning, up to a minute early, must not come too soon."""
    if cluster.minutes is not None:
        return cluster.minutes
    each = [_seconds(unit, cluster) for unit in bundle]
    work = max(sum(each) / workers, *each)
    whole = START + cluster.margin * work + cluster.signal_seconds + 60
    return min(cluster.most_minutes, math.ceil(whole / 60))


def _seconds(unit: Unit, cluster: Cluster) -> float:
    unknown = 60 * cluster.unknown_minutes / cluster.margin  # it is meant with the margin
    return unknown if unit.seconds is None else unit.seconds


def _run(job: ClusterJob) -> Run:
    return job if isinstance(job, Run) else job.run


def _warmth(run: Run) -> tuple[str, str, int, str]:
    return run.model.name, run.task.name, run.train.max_length, run.method.name
