"""What people call the fields of a record, and conditions on them."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from operator import ge, gt, le, lt
from typing import TYPE_CHECKING, Any

from peftbench.config import old_names
from peftbench.core.errors import ConfigError
from peftbench.core.run import ROLES
from peftbench.core.text import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

#: Short names of fields; any other is a path such as run.train.lr, or the end of one: lr.
SHORT = {
    "method": "run.method.name",
    "task": "run.task.name",
    "model": "run.model.name",
    "size": "work.train_size",
    "seed": "run.seed",
    "base_method": "run.method.base_method",
    "seconds": "seconds.train",
    "memory": "peak_bytes",
    "energy": "energy_joules",
    "trained": "parameters.trained",
    "device": "environment.device",
    "threads": "environment.threads",
    "cores": "environment.cores",
    "precision": "environment.precision",
} | {f"seed.{role}": f"run.role_seeds.{role}" for role in ROLES}

#: Groups of options, by the field that has the option's name.
_GROUPS = {"run.method.name": "method", "run.task.name": "task"}

#: Where the end of a path fits several, those that start with the first of these are meant.
_FIRST = ("metrics.", "run.train.", "run.method.", "run.budget.", "run.", "environment.", "")

_CONDITION = re.compile(r"([\w.]+)(!=|<=|>=|=|<|>)(.*)", re.DOTALL)
_COMPARE = {"<": lt, "<=": le, ">": gt, ">=": ge}


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
    if (now := old_names.current_field(name)) != name:
        old_names.note(name, now)
        return path(now, names, word)
    known = {short for short, full in SHORT.items() if full in there}
    known |= there | {full.rpartition(".")[2] for full in there}
    raise ConfigError(f"{word}: no run has a field {name}; {did_you_mean(name, known)}")


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
        field = path(name, names, f"where={word}")
        options = old_names.OPTIONS.get(_GROUPS.get(field, ""), {})
        either = [options[value] for value in values.split(",") if value in options]
        made.append(Condition(word, field, sign, values.split(",") + either))
    return made


def kept(frame: "pd.DataFrame", asked: list[Condition]) -> "pd.DataFrame":
    """The rows for which all conditions hold.

    Raises:
        ConfigError: if a value is no number where the field is one, or one leaves no row.
    """
    for condition in asked:
        left = frame[_holds(condition, frame)]
        if left.empty:
            there = map(shown, plain(frame[condition.field].drop_duplicates()))
            raise ConfigError(
                f"where={condition.text} leaves no run; "
                f"{did_you_mean(condition.values[0], set(there))}"
            )
        frame = left
    return frame


def _holds(condition: Condition, frame: "pd.DataFrame") -> "pd.Series[bool]":
    column = frame[condition.field]
    if condition.sign in _COMPARE:
        if not numeric(column) or len(condition.values) > 1:
            raise ConfigError(
                f"where={condition.text}: {condition.sign} takes a field of numbers and one number"
            )
        compare = _COMPARE[condition.sign]
        return _filled(compare(column, _number(condition, condition.values[0])))
    any_of = _equal(condition, frame, condition.values[0])
    for value in condition.values[1:]:
        any_of |= _equal(condition, frame, value)
    return ~any_of if condition.sign == "!=" else any_of


def _equal(condition: Condition, frame: "pd.DataFrame", value: str) -> "pd.Series[bool]":
    column = frame[condition.field]
    if value == "none":  # also a name: of no augmentation
        return column.isna() | _filled(column.astype(object) == value)
    if condition.field == SHORT["size"] and not re.fullmatch(r"\d+", value):
        return _filled(frame["run.size"] == value)  # full, 0.3: as it was asked
    if numeric(column):
        return _filled(column == _number(condition, value))
    if column.dtype == "boolean":
        return _filled(column == (value == "true")) & (value in ("true", "false"))
    return _filled(column == value)


def _filled(holds: "pd.Series[Any]") -> "pd.Series[bool]":
    """Truth values; a missing value fulfils no condition."""
    return holds.fillna(False).astype(bool)


def numeric(column: "pd.Series[Any]") -> bool:
    """Whether a column holds numbers."""
    return column.dtype.kind in "if"


def _number(condition: Condition, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ConfigError(f"where={condition.text}: {value!r} is no number") from None


def plain(column: "pd.Series[Any]") -> list[Any]:
    """The values of a column as Python's own; None where one is missing."""
    values: list[Any] = column.astype(object).where(column.notna(), None).tolist()
    return values


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
