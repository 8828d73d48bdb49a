"""Figures of evaluations on the HTML page, as numbers: a panel a task and size, a line a row."""

import statistics
from collections.abc import Callable
from typing import Any

from peftbench.analysis import grouping
from peftbench.analysis.grouping import TableSection
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Json

#: A line before it has a label: x and y.
Line = list[tuple[float, float]]


def panel(part: TableSection, draw: Callable[[list[Evaluated]], Line], **more: Any) -> Json:
    """A panel of a task and size: a line for each row that has points.

    Args:
        part: evaluations of the task and size.
        draw: points of the evaluations of one row, which differ in their seeds.
        more: of the panel, such as `metric`.
    """
    labels = grouping.labels(part.rows, part.split)
    lines = [
        {"label": labels[row], "method": row[0], "seeds": len(members), "points": points}
        for row, members in part.rows.items()
        if (points := draw(members))
    ]
    return {"title": part.title, "task": part.task.name, "lines": lines, **more}


def mean(values: list[float | None]) -> float | None:
    """Of all of them; None where one is undefined."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if values and len(known) == len(values) else None


def along(places: list[float], columns: list[list[float | None]]) -> Line:
    """Means over seeds at each place, where all seeds have a value."""
    means = zip(places, map(mean, columns), strict=True)
    return [(place, height) for place, height in means if height is not None]
