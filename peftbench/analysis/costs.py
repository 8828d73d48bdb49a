"""What one run cost, which runs may be compared in it, and which are not beaten at their cost."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

from peftbench.core.run import Record

K = TypeVar("K", bound=Hashable)

#: Device, threads and whether it was packed: seconds and memory compare only where these are equal.
Machine = tuple[str, int, bool]


def machine(record: Record) -> Machine:
    """Where the run was made."""
    about = record.environment
    return about["device"], about["threads"], bool(about.get("packed"))


def called(where: Machine) -> str:
    """Device and threads in words."""
    device, threads, packed = where
    measured = ", by calibration" if packed else ""
    return f"{device}, {threads} thread{'s' * (threads != 1)}{measured}"


def peak(record: Record) -> float:
    """Bytes while it trained: what CUDA allocated, else the process's resident set."""
    on_gpu = record.memory.get("cuda_peak_allocated_bytes")
    return float((on_gpu or record.memory["cpu_peak_rss_bytes"])["train"] or 0)


def front(points: Mapping[K, tuple[float | None, float]]) -> set[K]:
    """Pareto's: those that no other equals or beats in score and cost, and beats in one of them.

    Args:
        points: score and cost by name; what has no score is not on it.
    """
    known = {name: (score, cost) for name, (score, cost) in points.items() if score is not None}
    return {
        name
        for name, (score, cost) in known.items()
        if not any(
            other >= score and less <= cost and (other, less) != (score, cost)
            for other, less in known.values()
        )
    }
