"""What may not share a cell, a column or a table, and what tells it apart.

Nothing is pooled but seeds and what a person asked to mix. Settings that differ inside a cell, and
those that a method does not choose where they differ inside a column, become fields of the rows.
What makes costs or scores incomparable is refused.
"""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from peftbench.analysis import costs
from peftbench.analysis.fields import SHORT, shown
from peftbench.core.errors import ConfigError
from peftbench.results.index import Index

#: Where records differ in these, their seconds, speeds, memory and energy do not compare; those
#: that records do not know are not asked for.
MACHINE = tuple(f"environment.{name}" for name in costs.Machine._fields)

#: Fields that are costs.
COSTS = ("seconds.", "speed.", "memory.", "peak_bytes", "energy_joules", "work.overshoot_seconds")

#: What a method does not choose: where it differs in a column, rows say so.
_SHARED = (
    *("run.model.", "run.task.", "run.form.", "run.augment.", "run.protocol"),
    *("form", "augment", "work.train_size"),
)

#: Settings that tell rows apart before others that would do as well; the size as asked comes last.
_FIRST = (
    *("run.model.name", "run.task.name", "work.train_size", "form", "augment"),
    *("run.method.host", "run.train.lr"),
)


def name(path: str) -> str:
    """The shortest name of a field that people read."""
    short = {full: word for word, full in SHORT.items()}
    return short.get(path, path.removeprefix("run.").removeprefix("environment."))


def refuse(table: pa.Table, paths: Iterable[str], what: str, rows: list[str]) -> None:
    """Refuse a table of records that differ in one of these fields.

    Args:
        table: of the records.
        paths: the fields.
        what: the table shows, for the message.
        rows: names of the fields of its rows.

    Raises:
        ConfigError: naming the field, its values, and three ways out.
    """
    for path in paths:
        values = sorted(map(shown, table[path].unique().to_pylist()))
        if len(values) > 1:
            word = name(path)
            some = ", ".join(values[:4]) + (", …" if len(values) > 4 else "")
            raise ConfigError(
                f"records differ in {word} ({some}), so that {what} does not compare; choose with "
                f"where='{word}={values[0]}', tell apart with rows={','.join([*rows, word])}, "
                f"or pool all the same with mix={word}"
            )


def apart(
    index: Index, table: pa.Table, rows: list[str], columns: list[str], mixed: set[str]
) -> list[str]:
    """The settings that rows have to say beside those that were asked for.

    Args:
        index: all fields.
        table: the records that are shown.
        rows, columns: the fields that cross.
        mixed: what cells may pool.

    Raises:
        ConfigError: if records of a cell differ in what no field says.
    """
    shared_rows = [path for path in rows if path.startswith(_SHARED)]
    if _one(table, [*rows, *columns], "alike") and _one(table, [*columns, *shared_rows], "shared"):
        return []
    told = [*rows, *columns]
    first = table.group_by([*told, "alike"], use_threads=False).aggregate([("key", "min")])
    settings = _settings(index, first["key_min"], {*told, *mixed})
    lines = first.select(told).to_pylist()
    inner = _groups([tuple(line[path] for path in told) for line in lines])
    outer = _groups([tuple(line[path] for path in [*columns, *shared_rows]) for line in lines])
    found: list[str] = []
    for nulls in (False, True):  # a host brings settings of its own: they differ in those that have
        for path, values in settings.items():
            shared = path.startswith(_SHARED)
            if _differs(inner, values, nulls) or (shared and _differs(outer, values, nulls)):
                found.append(path)
                inner = _groups(list(zip(inner, values, strict=True)))
                outer = _groups(list(zip(outer, values, strict=True))) if shared else outer
    alike = first["alike"].to_pylist()
    if not mixed and _differs(inner, alike, nulls=True):
        raise ConfigError(
            "records of one cell differ in what no field says; choose among them with where=, "
            "or say with mix= what may be pooled"
        )
    return found


def _one(table: pa.Table, by: list[str], path: str) -> bool:
    """Whether all records of each group have the same."""
    counts = table.group_by(by, use_threads=False).aggregate([(path, "count_distinct")])
    return bool(pc.max(counts[f"{path}_count_distinct"]).as_py() == 1)


def _settings(index: Index, keys: pa.ChunkedArray, told: set[str]) -> dict[str, list[Any]]:
    """Settings in which these records differ, the most telling first."""
    paths = [
        path
        for path in index.names
        if path.startswith(("run.", *_FIRST[2:5])) and path not in {"run.seed", *told}
    ]
    table = index.read(["key", *paths])
    table = table.take(pc.index_in(keys.cast(pa.string()), table["key"].cast(pa.string())))
    paths.sort(key=_place)
    return {path: table[path].to_pylist() for path in paths if len(table[path].unique()) > 1}


def _place(path: str) -> tuple[int, str]:
    last = path == "run.size"
    return (_FIRST.index(path) if path in _FIRST else len(_FIRST) + last, path)


def _groups(keys: list[Any]) -> list[int]:
    numbers: dict[Any, int] = {}
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def _differs(groups: list[int], values: list[Any], nulls: bool) -> bool:
    first: dict[int, Any] = {}
    return any(
        first.setdefault(group, value) != value
        for group, value in zip(groups, values, strict=True)
        if nulls or value is not None
    )
