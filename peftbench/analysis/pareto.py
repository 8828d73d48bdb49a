"""The Pareto front of score and cost."""

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

K = TypeVar("K", bound=Hashable)


def pareto_front(points: Mapping[K, tuple[float | None, float | None]]) -> list[K]:
    """Those that no other equals or beats in score and cost, and beats in one of them.

    The cheapest comes first, of equal ones the first of `points`.

    Args:
        points: score and cost by name; what has no score, or no known cost, is not on it.
    """
    known = [
        (cost, -score, name)
        for name, (score, cost) in points.items()
        if score is not None and cost is not None
    ]
    kept: list[tuple[float, float, K]] = []
    for one in sorted(known, key=lambda point: point[:2]):
        if not kept or one[1] < kept[-1][1] or one[:2] == kept[-1][:2]:
            kept.append(one)
    return [name for _, _, name in kept]


def fronts(
    points: Mapping[K, tuple[float | None, float | None]], kind: Callable[[K], Hashable]
) -> list[list[K]]:
    """The front of each kind of points, such as those of one budget."""
    parted: dict[Hashable, dict[K, tuple[float | None, float | None]]] = {}
    for name, point in points.items():
        parted.setdefault(kind(name), {})[name] = point
    return [pareto_front(part) for part in parted.values()]
