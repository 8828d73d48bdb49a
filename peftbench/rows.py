"""Which runs a table puts into one row: those that differ in nothing but what columns show."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from peftbench.run import Json, Run

Row = tuple[str, ...]
T = TypeVar("T")


def grouped(
    items: list[T],
    run: Callable[[T], Run],
    cell: Callable[[T], tuple[Any, ...]],
    size: Callable[[T], int],
) -> tuple[dict[Row, list[T]], list[str]]:
    """Group things into rows; settings that differ within one cell make rows of their own.

    Args:
        items: records, evaluations.
        run: of an item.
        cell: what the columns tell apart beside the method, such as task and training examples.
        size: trained parameters; rows with most of them come first.

    Returns:
        Items by (method, value of each such setting), and the names of these settings.
    """
    cells: dict[tuple[Any, ...], list[Json]] = {}
    for item in items:
        name = (run(item).method["name"], *cell(item))
        cells.setdefault(name, []).append(settings(run(item)))
    split = sorted(
        {
            name
            for found in cells.values()
            for name in {key for setting in found for key in setting}
            # a host brings keys of its own: these differ where two of one host do
            if len({str(setting[name]) for setting in found if name in setting}) > 1
        }
    )
    rows: dict[Row, list[T]] = {}
    for item in items:
        here = settings(run(item))
        row = (run(item).method["name"], *(_value(here.get(name)) for name in split))
        rows.setdefault(row, []).append(item)
    order = sorted(rows, key=lambda row: (-max(map(size, rows[row])), row))
    return {row: rows[row] for row in order}, split


def methods(trained: Iterable[tuple[str, int]]) -> list[str]:
    """Names of methods, those that train most first, from pairs of name and count."""
    most: dict[str, int] = {}
    for name, count in trained:
        most[name] = max(most.get(name, 0), count)
    return sorted(most, key=lambda name: (-most[name], name))


def settings(run: Run) -> Json:
    """Everything that a cell of a table must agree on, flat."""
    flat: Json = {"model": run.model["name"], "protocol": run.protocol}
    flat |= {f"model.{key}": run.model.get(key) for key in ("revision", "sha256")}
    flat |= {"task.source": run.task["source"], "method._target_": run.method["_target_"]}
    flat |= {"form": (run.form or {}).get("name"), "augment": (run.augment or {}).get("name")}
    for node in ("method", "budget", "train", "select", "form", "augment"):
        for key, value in (getattr(run, node) or {}).items():
            if key not in ("name", "_target_"):
                flat |= _flat(f"{node}.{key}", value)
    return flat


def _flat(key: str, value: Any) -> Json:
    """A value by its key; a method inside a method by its name, and what is in it by theirs."""
    if not isinstance(value, dict):
        return {key: value}
    found: Json = {key: value["name"]} if "_target_" in value else {}
    for name, inner in value.items():
        if name not in ("name", "_target_", "path"):
            found |= _flat(f"{key}.{name}", inner)
    return found


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def spread(values: list[float | None], scale: float = 100, digits: int = 1) -> str:
    """Mean ± standard deviation (number): of the defined values, and how many of all these are."""
    import statistics

    defined = [scale * value for value in values if value is not None]
    count = f"{len(values)}" if len(defined) == len(values) else f"{len(defined)} of {len(values)}"
    text = "–"
    if defined:
        text = f"{statistics.fmean(defined):.{digits}f}"
        if len(defined) > 1:
            text += f" ± {statistics.stdev(defined):.{digits}f}"
    return f"{text} ({count})"
