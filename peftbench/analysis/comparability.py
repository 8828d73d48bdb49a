"""What may not share a cell, a column or a table, and what tells it apart.

Nothing is pooled but seeds and what a person asked to mix. Settings that differ inside a cell, and
those that a method does not choose where they differ inside a column, become fields of the rows.
What makes costs or scores incomparable is refused.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from peftbench.analysis import costs
from peftbench.analysis.fields import SHORT, plain, shown
from peftbench.core.errors import ConfigError
from peftbench.results.frame import RecordFrame

if TYPE_CHECKING:
    import pandas as pd

#: Where records differ in these, their seconds, speeds, memory and energy do not compare; those
#: that records do not know are not asked for.
MACHINE = tuple(f"environment.{name}" for name in costs.Machine._fields)

#: What a run computed in, `train.precision` resolved: where records differ in it, their scores do.
PRECISION = "environment.precision"

#: Fields that are costs.
COSTS = ("seconds.", "speed.", "memory.", "peak_bytes", "energy_joules", "work.overshoot_seconds")

#: What a method does not choose: where it differs in a column, rows say so.
_SHARED = (
    *("run.model.", "run.task.", "run.prompt.", "run.augmentation.", "run.protocol"),
    *("run.loss_revision", "run.budget."),
    *("prompt", "augmentation", "work.train_size"),
)

#: Settings that tell rows apart before others that would do as well; the size as asked comes last.
_FIRST = (
    *("run.model.name", "run.task.name", "work.train_size", "prompt", "augmentation"),
    *("run.method.base_method", "run.train.lr"),
)


def name(path: str) -> str:
    """The shortest name of a field that people read."""
    short = {full: word for word, full in SHORT.items()}
    return short.get(path, path.removeprefix("run.").removeprefix("environment."))


def refuse(frame: "pd.DataFrame", paths: Iterable[str], what: str, rows: list[str]) -> None:
    """Refuse records that differ in one of these fields.

    Args:
        frame: the records.
        paths: the fields.
        what: the table shows, for the message.
        rows: names of the fields of its rows.

    Raises:
        ConfigError: naming the field, its values, and three ways out.
    """
    for path in paths:
        values = sorted(map(shown, plain(frame[path].drop_duplicates())))
        if len(values) > 1:
            word = name(path)
            some = ", ".join(values[:4]) + (", …" if len(values) > 4 else "")
            raise ConfigError(
                f"records differ in {word} ({some}), so that {what} does not compare; choose with "
                f"where='{word}={values[0]}', tell apart with rows={','.join([*rows, word])}, "
                f"or pool all the same with mix={word}"
            )


def refuse_mixed_precision(
    frame: "pd.DataFrame", told: set[str], what: str, rows: list[str]
) -> None:
    """Refuse records that were computed in several precisions, which nothing tells apart.

    Args:
        frame: the records.
        told: fields that rows or columns show, or that may be pooled.
        what: the table shows, for the message.
        rows: names of the fields of its rows.

    Raises:
        ConfigError: as `refuse`; auto is bf16 on one machine and fp32 on another.
    """
    if PRECISION in told or PRECISION not in frame:
        return
    asked = [path for path in ("run.train.precision",) if path in told]
    if _differ(groups(frame, asked), frame[PRECISION]):
        refuse(frame, [PRECISION], what, rows)


def apart(
    records: RecordFrame,
    frame: "pd.DataFrame",
    rows: list[str],
    columns: list[str],
    mixed: set[str],
) -> list[str]:
    """The settings that rows have to say beside those that were asked for.

    Args:
        records: all fields.
        frame: the records that are shown.
        rows, columns: the fields that cross.
        mixed: what cells may pool.

    Raises:
        ConfigError: if records of a cell differ in what no field says.
    """
    told = [*rows, *columns]
    across = [*columns, *(path for path in rows if path.startswith(_SHARED))]
    if not (
        _differ(groups(frame, told), frame["alike"])
        or _differ(groups(frame, across), frame["shared"])
    ):
        return []
    one_each = frame.drop_duplicates(list(dict.fromkeys([*told, "alike"])))
    settings = _settings(records, one_each["key"], {*told, *mixed})
    cells, parts = groups(one_each, told), groups(one_each, across)
    found: list[str] = []
    for missing in (
        False,
        True,
    ):  # a base method brings its own settings: first those that records have
        for path in settings:
            values, shared = settings[path], path.startswith(_SHARED)
            if _differ(cells, values, missing) or (shared and _differ(parts, values, missing)):
                found.append(path)
                cells = _split(cells, values)
                parts = _split(parts, values) if shared else parts
    if not mixed and _differ(cells, one_each["alike"]):
        raise ConfigError(
            "records of one cell differ in what no field says; choose among them with where=, "
            "or name with mix= what may be pooled"
        )
    return found


def groups(frame: "pd.DataFrame", by: list[str]) -> "pd.Series[int]":
    """The number of each row's group; a missing value is a value like others."""
    if not by:
        return frame["key"].notna().astype(int)
    return frame.groupby(list(dict.fromkeys(by)), dropna=False, observed=True).ngroup()


def _differ(group: "pd.Series[int]", values: "pd.Series[Any]", missing: bool = True) -> bool:
    """Whether a group has several values, of which a missing one counts as one or not."""
    return bool((values.groupby(group).nunique(dropna=not missing) > 1).any())


def _split(group: "pd.Series[int]", values: "pd.Series[Any]") -> "pd.Series[int]":
    """The number of each row's group if these values are told apart too."""
    return group.groupby([group, values], dropna=False, observed=True).ngroup()


def _settings(records: RecordFrame, keys: "pd.Series[str]", told: set[str]) -> "pd.DataFrame":
    """Settings in which these records differ, the most telling first, by row of the keys."""
    paths = [
        path
        for path in records.columns
        if path.startswith(("run.", *_FIRST[2:5])) and path not in {"run.seed", *told}
    ]
    frame = records.read(["key", *paths]).set_index("key").loc[keys].set_axis(keys.index)
    return frame[
        [path for path in sorted(paths, key=_place) if frame[path].nunique(dropna=False) > 1]
    ]


def _place(path: str) -> tuple[int, str]:
    last = path == "run.size"
    return (_FIRST.index(path) if path in _FIRST else len(_FIRST) + last, path)
