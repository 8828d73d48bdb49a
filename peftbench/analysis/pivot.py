"""Records crossed by any two groups of fields: what is in each cell."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from peftbench.analysis import comparability, fields
from peftbench.core.errors import ConfigError
from peftbench.core.text import did_you_mean
from peftbench.results.index import Index

Row = tuple[Any, ...]

#: What is shown of the values of a cell.
SUMMARIES = ("mean", "median", "interval")


@dataclass(frozen=True)
class Asked:
    """A table, in words: names of fields, the summary, conditions."""

    rows: list[str] = field(default_factory=lambda: ["method"])
    columns: list[str] = field(default_factory=lambda: ["task"])
    cell: str = "score"
    where: str = ""
    summary: str = "mean"
    mix: list[str] = field(default_factory=list)


def asked(words: Iterable[str]) -> Asked:
    """Read words such as `rows=method,lr`.

    Raises:
        ConfigError: if one is unknown, given twice, or has a value that it cannot have.
    """
    given: dict[str, Any] = {}
    known = list(Asked.__dataclass_fields__)
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in known:
            raise ConfigError(f"{word}: a table has no such word; {did_you_mean(name, known)}")
        if name in given:
            raise ConfigError(f"{name}= is given twice; several fields are parted by a comma")
        several = [one for one in value.split(",") if one and one != "none"]
        given[name] = several if name in ("rows", "columns", "mix") else value
    if not given.get("rows", True) or not given.get("cell", True):
        raise ConfigError("rows= and cell= name at least one field, such as rows=method cell=score")
    if given.get("summary", "mean") not in SUMMARIES:
        raise ConfigError(
            f"summary={given['summary']}; {did_you_mean(given['summary'], SUMMARIES)}"
        )
    return Asked(**given)


@dataclass(frozen=True)
class Cell:
    """The records of one cell, by key.

    Attributes:
        values: of the field; None where it is undefined.
        collapsed: whether each predicts one class or value throughout.
        metrics: primary metrics of their tasks.
        trivial: what the constant prediction has, by distinct value.
    """

    keys: list[str]
    seeds: list[int]
    values: list[float | None]
    collapsed: list[bool]
    metrics: set[str]
    trivial: set[float | None]


@dataclass(frozen=True)
class Grid:
    """Cells by row and column.

    Attributes:
        field: the column of the index that is shown.
        row_names: of the fields of the rows; those that had to be added are last.
        rows, columns: values of their fields, in order.
        unreadable: keys of the records that are left out.
    """

    asked: Asked
    field: str
    row_names: list[str]
    rows: list[Row]
    columns: list[Row]
    cells: dict[tuple[Row, Row], Cell]
    unreadable: list[str]

    @property
    def scores(self) -> bool:
        """Whether cells hold scores, which predictions can be tested for."""
        return _scored(self.field)


def of(index: Index, ask: Asked) -> Grid:
    """Select and cross.

    Raises:
        ConfigError: if a field is unknown or no number, no record is left, or records do not
            compare.
    """
    names = index.names
    rows = [fields.path(name, names, f"rows={name}") for name in ask.rows]
    columns = [fields.path(name, names, f"columns={name}") for name in ask.columns]
    mixed = [fields.path(name, names, f"mix={name}") for name in ask.mix]
    value = fields.path(ask.cell, names, f"cell={ask.cell}")
    where = fields.conditions(ask.where, names)
    trivial = _trivial(value, names)
    also = {"run.budget.seconds", *comparability.MACHINE} & set(names)
    wanted = {*rows, *columns, value, trivial, *_ALWAYS, *also, *(one.field for one in where)}
    table = fields.kept(_plain(index.read(sorted(wanted))), where)
    table = _numbers(table, value, ask.cell)
    told = {*rows, *columns, *mixed}
    comparability.refuse(table, {"run.protocol"} - told, ask.cell, ask.rows)
    by_time = "run.budget.seconds" in also and pc.count(table["run.budget.seconds"]).as_py() > 0
    if by_time or value.startswith(comparability.COSTS):
        what = ask.cell + " after a budget of seconds" * by_time
        machine = [path for path in comparability.MACHINE if path in also - told]
        comparability.refuse(table, machine, what, ask.rows)
    more = comparability.apart(index, table, rows, columns, set(mixed))
    table = _with(index, table, more)
    cells = _cells(table, [*rows, *more], columns, value, trivial)
    most = _most(table)
    return Grid(
        asked=ask,
        field=value,
        row_names=[*ask.rows, *map(comparability.name, more)],
        rows=_ordered({row for row, _ in cells}, [*rows, *more], most),
        columns=_ordered({column for _, column in cells}, columns, most),
        cells=cells,
        unreadable=sorted(index.unreadable),
    )


_ALWAYS = (
    *("key", "alike", "shared", "metric", "collapsed", "parameters.trained"),
    *("run.seed", "run.size", "run.method.name", "run.protocol"),
)


def _numbers(table: pa.Table, value: str, cell: str) -> pa.Table:
    """The table, if cells of it hold numbers; scores may all be undefined, which is a result."""
    column = table[value]
    if column.null_count == len(table):
        if not _scored(value):
            raise ConfigError(f"cell={cell}: none of these records has a value")
        place = table.column_names.index(value)
        return table.set_column(place, value, pa.nulls(len(table), pa.float64()))
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise ConfigError(f"cell={cell} holds no numbers; show it as rows or columns")
    return table


def _scored(value: str) -> bool:
    return value == "score" or value.startswith("metrics.")


def _trivial(value: str, names: list[str]) -> str:
    """The column of what the constant prediction has; "metric" is no such number."""
    path = "trivial" if value == "score" else value.replace("metrics.", "trivial.", 1)
    return path if path != value and path in names else "metric"


def _plain(table: pa.Table) -> pa.Table:
    """Without dictionaries, by which Arrow does not group."""
    words = (pa.types.is_dictionary, pa.types.is_null)
    return pa.table(
        {
            name: table[name].cast(pa.string())
            if any(is_(table[name].type) for is_ in words)
            else table[name]
            for name in table.column_names
        }
    )


def _with(index: Index, table: pa.Table, more: list[str]) -> pa.Table:
    if not more:
        return table
    found = _plain(index.read(["key", *more]))
    found = found.take(pc.index_in(table["key"], found["key"]))
    for path in more:
        if path not in table.column_names:
            table = table.append_column(path, found[path])
    return table


def _cells(
    table: pa.Table, rows: list[str], columns: list[str], value: str, trivial: str
) -> dict[tuple[Row, Row], Cell]:
    by = list(dict.fromkeys([*rows, *columns]))
    held = list(dict.fromkeys(["key", "run.seed", value, "collapsed", "metric", trivial]))
    # Arrow does not give back a field by which it groups
    named = pa.table({f"by {p}": table[p] for p in by} | {p: table[p] for p in held})
    groups = named.group_by([f"by {p}" for p in by], use_threads=False)
    cells = {}
    for line in groups.aggregate([(path, "list") for path in held]).to_pylist():
        base = set() if trivial == "metric" else set(line[f"{trivial}_list"])
        at = (
            tuple(line[f"by {path}"] for path in rows),
            tuple(line[f"by {path}"] for path in columns),
        )
        cells[at] = Cell(
            keys=line["key_list"],
            seeds=line["run.seed_list"],
            values=line[f"{value}_list"],
            collapsed=line["collapsed_list"],
            metrics=set(line["metric_list"]),
            trivial=base,
        )
    return cells


def _most(table: pa.Table) -> dict[Any, int]:
    """The most parameters that each method trains."""
    found = table.group_by("run.method.name").aggregate([("parameters.trained", "max")])
    return {line["run.method.name"]: line["parameters.trained_max"] for line in found.to_pylist()}


def _ordered(found: set[Row], paths: list[str], most: dict[Any, int]) -> list[Row]:
    """Methods that train most first; numbers by size, words by letter, what is not there last."""

    def place(path: str, value: Any) -> tuple[int, float, str]:
        if value is None:
            return 2, 0, ""
        if path == "run.method.name":
            return 0, -most[value], value
        return (0, value, "") if isinstance(value, int | float) else (1, 0, value)

    return sorted(
        found, key=lambda row: [place(path, one) for path, one in zip(paths, row, strict=True)]
    )
