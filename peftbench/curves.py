"""Curves of several seeds as one: the mean on a grid that all of them share."""

from typing import Any

import numpy as np

Points = list[tuple[float, float]]


def mean(seeds: list[Points]) -> Points:
    """The mean of straight lines between points, at every place where one of them bends.

    It reaches from where the last curve begins to where the first one ends: outside it would be a
    mean over fewer seeds.

    Args:
        seeds: points of each seed, by place.
    """
    seeds = [points for points in seeds if points]
    if not seeds:
        return []
    first, last = max(points[0][0] for points in seeds), min(points[-1][0] for points in seeds)
    if first > last:
        return []
    places = sorted({first, last, *(x for points in seeds for x, _ in points if first < x < last)})
    heights = [np.interp(places, [x for x, _ in p], [y for _, y in p]) for p in seeds]
    return [(x, float(y)) for x, y in zip(places, np.mean(heights, axis=0), strict=True)]


def defined(points: list[tuple[float, float | None]]) -> Points:
    """What comes after the last undefined point: a line across one would be made up."""
    kept: Points = []
    for x, y in points:
        kept = [] if y is None else [*kept, (x, y)]
    return kept


def within(curve: list[dict[str, Any]], x: str, y: str, scale: float = 1) -> Points:
    """Of a record's curve."""
    return defined([(p[x], None if p.get(y) is None else scale * p[y]) for p in curve])
