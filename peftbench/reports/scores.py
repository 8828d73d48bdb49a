"""Which method scores what: method × task, mean ± standard deviation over seeds, n in each cell."""

import statistics
from collections.abc import Callable, Iterable
from typing import Any

from peftbench.run import Json, Record
from peftbench.table import Table

Column = tuple[str, str, int]  # task, metric, training examples
Row = tuple[str, ...]


def scores(records: list[Record]) -> Table:
    """The primary metric of every task; the trivial prediction first, collapsed runs marked."""
    return _table("Scores", records, lambda names: names[:1])


def other_metrics(records: list[Record]) -> Table | None:
    """The metrics that are not primary, if any task has one."""
    if all(len(record.metrics) == 1 for record in records):
        return None
    return _table("Other metrics", records, lambda names: names[1:])


def figures(records: list[Record]) -> Table:
    """Every metric of every cell as plain numbers, one line each, for programs."""
    rows, split = _rows(records)
    lines = []
    for row, members in rows.items():
        cells = sorted({(*_sized(r), metric) for r in members for metric in r.metrics})
        for name, size, metric in cells:
            here = [r for r in members if _is(r, (name, metric, size))]
            defined = [value for r in here if (value := r.metrics[metric]) is not None]
            seconds = _mean(r.seconds["train"] for r in here)
            base = here[0].trivial.get(metric)
            lines.append(
                [
                    *row,
                    name,
                    str(size),
                    metric,
                    str(len(here)),
                    str(len(defined)),
                    f"{_mean(defined):.6f}" if defined else "",
                    f"{statistics.stdev(defined):.6f}" if len(defined) > 1 else "",
                    "" if base is None else f"{base:.6f}",
                    str(sum(r.collapsed for r in here)),
                    f"{seconds:.2f}",
                ]
            )
    columns = ["method", *split, "task", "train_size", "metric", "seeds", "defined"]
    columns += ["mean", "sd", "trivial", "collapsed", "train_seconds"]
    return Table("Figures", columns, lines, 4 + len(split))


def costs(records: list[Record]) -> Table:
    """What each method trains and spends: means over seeds, for each task.

    Seconds compare only on one device with one number of threads; where records differ in these,
    the cell says mixed.
    """
    rows, split = _rows(records)
    tasks = sorted({_sized(record) for record in records})
    lines = []
    for row, members in rows.items():
        for task in tasks:
            here = [record for record in members if _sized(record) == task]
            if not here:
                continue
            machines = {(r.environment["device"], r.environment["threads"]) for r in here}
            trained = sorted({record.parameters["trained"] for record in here})
            lines.append(
                [
                    *row,
                    _column_title(*task, tasks),
                    " / ".join(f"{count:,}" for count in trained),
                    *("mixed" if len(machines) > 1 else pick(here) for pick in _UNITS.values()),
                ]
            )
    columns = ["method", *split, "task", "trained", *_UNITS]
    return Table("Costs (training)", columns, lines, 2 + len(split))


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


_UNITS: dict[str, Callable[[list[Record]], str]] = {
    "seconds": lambda records: f"{_mean(r.seconds['train'] for r in records):,.0f}",
    "examples/s": lambda records: f"{_mean(r.speed['examples_per_second'] for r in records):,.0f}",
    "peak MiB": lambda records: f"{_mean(_peak(r) for r in records) / 2**20:,.0f}",
}


def _peak(record: Record) -> float:
    on_gpu = record.memory.get("cuda_peak_allocated_bytes")
    return float((on_gpu or record.memory["cpu_peak_rss_bytes"])["train"] or 0)


def _table(title: str, records: list[Record], pick: Callable[[list[str]], list[str]]) -> Table:
    rows, split = _rows(records)
    columns: list[Column] = sorted(
        {
            (record.run.task["name"], metric, record.work["train_size"])
            for record in records
            for metric in pick(list(record.metrics))
        },
        key=lambda column: (column[0], column[2], column[1]),
    )
    sized = sorted({_sized(record) for record in records})
    heads = [f"{_column_title(name, size, sized)} {metric}" for name, metric, size in columns]
    baseline = ["trivial", *[""] * len(split)]
    baseline += [_baseline(records, column) for column in columns]
    lines = [baseline]
    for row, members in rows.items():
        lines.append([*row, *(_cell(members, column) for column in columns)])
    notes = [
        "Percent, mean ± standard deviation over seeds (number of seeds), on the reporting split "
        "at the end of the budget; `trivial` always predicts the majority class, or the mean."
    ]
    if any("†" in cell for line in lines for cell in line):
        notes.append(
            "† so many of the seeds collapsed: they predict one class or value throughout."
        )
    return Table(title, ["method", *split, *heads], lines, 1 + len(split), notes)


def _baseline(records: list[Record], column: Column) -> str:
    found = {record.trivial.get(column[1]) for record in records if _is(record, column)}
    return " / ".join(sorted("–" if value is None else f"{100 * value:.1f}" for value in found))


def _cell(members: list[Record], column: Column) -> str:
    here = [record for record in members if _is(record, column)]
    if not here:
        return ""
    defined = [100 * v for r in here if (v := r.metrics[column[1]]) is not None]
    collapsed = sum(record.collapsed for record in here)
    count = f"{len(here)}" if len(defined) == len(here) else f"{len(defined)} of {len(here)}"
    text = "–"
    if defined:
        text = f"{_mean(defined):.1f}"
        if len(defined) > 1:
            text += f" ± {statistics.stdev(defined):.1f}"
    return f"{text} ({count})" + (f" †{collapsed}" if collapsed else "")


def _is(record: Record, column: Column) -> bool:
    name, metric, size = column
    return _sized(record) == (name, size) and metric in record.metrics


def _sized(record: Record) -> tuple[str, int]:
    return record.run.task["name"], record.work["train_size"]


def _column_title(name: str, size: int, sized: list[tuple[str, int]]) -> str:
    several = sum(other == name for other, _ in sized) > 1
    return f"{name} {size:,}" if several else name


def _rows(records: list[Record]) -> tuple[dict[Row, list[Record]], list[str]]:
    """Group records into rows; settings that differ within one cell make rows of their own.

    Returns:
        Records by (method, value of each such setting), and the names of these settings. Most
        trained parameters come first.
    """
    cells: dict[tuple[str, str, int], list[Json]] = {}
    for record in records:
        cell = (record.run.method["name"], *_sized(record))
        cells.setdefault(cell, []).append(_settings(record))
    split = sorted(
        {
            name
            for settings in cells.values()
            for name in {key for setting in settings for key in setting}
            # a host brings keys of its own: these differ where two of one host do
            if len({str(setting[name]) for setting in settings if name in setting}) > 1
        }
    )
    rows: dict[Row, list[Record]] = {}
    for record in records:
        settings = _settings(record)
        row = (record.run.method["name"], *(_value(settings.get(name)) for name in split))
        rows.setdefault(row, []).append(record)
    order = sorted(rows, key=lambda row: (-max(r.parameters["trained"] for r in rows[row]), row))
    return {row: rows[row] for row in order}, split


def _settings(record: Record) -> Json:
    """Everything that a cell of the table must agree on, flat."""
    run = record.run
    flat: Json = {"model": run.model["name"], "protocol": run.protocol}
    flat |= {f"model.{key}": run.model.get(key) for key in ("revision", "sha256")}
    flat |= {"task.source": run.task["source"], "method._target_": run.method["_target_"]}
    for node in ("method", "budget", "train", "select"):
        for key, value in getattr(run, node).items():
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
