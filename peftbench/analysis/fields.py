"""What people call the fields of a record, and conditions on them."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from peftbench.core.errors import ConfigError
from peftbench.core.text import did_you_mean

#: Short names of fields; any other is a path such as run.train.lr, or the end of one: lr.
SHORT = {
    "method": "run.method.name",
    "task": "run.task.name",
    "model": "run.model.name",
    "size": "work.train_size",
    "seed": "run.seed",
    "host": "run.method.host",
    "seconds": "seconds.train",
    "memory": "peak_bytes",
    "energy": "energy_joules",
    "trained": "parameters.trained",
    "device": "environment.device",
    "threads": "environment.threads",
    "cores": "environment.cores",
}

#: Where the end of a path fits several, those that start with the first of these are meant.
_FIRST = ("metrics.", "run.train.", "run.method.", "run.budget.", "run.", "environment.", "")

_CONDITION = re.compile(r"([\w.]+)(!=|<=|>=|=|<|>)(.*)", re.DOTALL)
_COMPARE = {"<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal}


def path(name: str, names: Iterable[str], word: str) -> str:
    """The column that a name means.

    Args:
        name: short, a path, or the end of one.
        names: of all columns.
        word: where it was given, for the message.

    Raises:
        ConfigError: if no record has such a field, or the end of a path fits several.
    """
    there = set(names)
    if SHORT.get(name, name) in there:
        return SHORT.get(name, name)
    ends = sorted(full for full in there if full.endswith(f".{name}"))
    for first in _FIRST:
        found = [full for full in ends if full.startswith(first)]
        if len(found) > 1:
            raise ConfigError(f"{word}: {name} may be {' or '.join(found)}; write one of them")
        if found:
            return found[0]
    known = {short for short, full in SHORT.items() if full in there}
    known |= there | {full.rpartition(".")[2] for full in there}
    raise ConfigError(f"{word}: no record has a field {name}; {did_you_mean(name, known)}")


@dataclass(frozen=True)
class Condition:
    """A field, how it is compared, and values of which one must hold.

    Attributes:
        text: as it was given.
        field: its column.
    """

    text: str
    field: str
    sign: str
    values: list[str]


def conditions(where: str, names: Iterable[str]) -> list[Condition]:
    """Read conditions such as `task=mrpc,cola size>=100 lr!=0.001`; all of them must hold.

    Raises:
        ConfigError: if one is none, or names no field.
    """
    try:
        words = shlex.split(where)
    except ValueError as error:
        raise ConfigError(f"where={where}: {error}; write where='task=mrpc size>=100'") from error
    made = []
    for word in words:
        found = _CONDITION.fullmatch(word)
        if found is None:
            raise ConfigError(
                f"where={word} is no condition; write FIELD=VALUE,… or !=, <, <=, >, >=, "
                "several in quotes: where='task=mrpc size>=100'"
            )
        name, sign, values = found.groups()
        made.append(Condition(word, path(name, names, f"where={word}"), sign, values.split(",")))
    return made


def kept(table: pa.Table, asked: list[Condition]) -> pa.Table:
    """The lines for which all conditions hold.

    Raises:
        ConfigError: if a value is no number where the field is one, or one leaves no line.
    """
    for condition in asked:
        column = table[condition.field]
        left = table.filter(pc.fill_null(_holds(condition, column, table), False))
        if not len(left):
            there = {shown(value) for value in column.unique().to_pylist()}
            raise ConfigError(
                f"where={condition.text} leaves no record; "
                f"{did_you_mean(condition.values[0], there)}"
            )
        table = left
    return table


def _holds(condition: Condition, column: pa.ChunkedArray, table: pa.Table) -> Any:
    if condition.sign in _COMPARE:
        if not _numeric(column.type) or len(condition.values) > 1:
            raise ConfigError(
                f"where={condition.text}: {condition.sign} takes a field of numbers and one number"
            )
        return _COMPARE[condition.sign](column, _number(condition, condition.values[0]))
    holds = reduce(pc.or_, [_equal(condition, column, value, table) for value in condition.values])
    return pc.invert(holds) if condition.sign == "!=" else holds


def _equal(condition: Condition, column: pa.ChunkedArray, value: str, table: pa.Table) -> Any:
    if value == "none":
        return pc.is_null(column)
    if condition.field == SHORT["size"] and "run.size" in table.column_names:
        asked = pc.equal(
            table["run.size"].cast(pa.string()), pa.scalar(value)
        )  # full, 0.3: as it was asked
        if not re.fullmatch(r"\d+", value):
            return pc.fill_null(asked, False)
    if _numeric(column.type):
        return pc.fill_null(pc.equal(column, _number(condition, value)), False)
    return pc.fill_null(pc.equal(column.cast(pa.string()), pa.scalar(value)), False)


def _numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _number(condition: Condition, value: str) -> pa.Scalar:
    try:
        return pa.scalar(float(value))
    except ValueError:
        raise ConfigError(f"where={condition.text}: {value!r} is no number") from None


def shown(value: object) -> str:
    """A value of a field as people read it, on one line and without control characters."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
