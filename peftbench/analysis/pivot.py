"""Records crossed by any two groups of fields: what is in each cell."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from peftbench.analysis import comparability, convention, fields, suite_columns
from peftbench.analysis.failures import Diverged
from peftbench.core.errors import ConfigError
from peftbench.core.text import did_you_mean
from peftbench.metrics import task_metrics
from peftbench.results.frame import RecordFrame
from peftbench.results.tuned import Tuned

if TYPE_CHECKING:
    import pandas as pd

Row = tuple[Any, ...]

#: What is shown of the values of a cell.
SUMMARIES = ("mean", "median", "interval")


@dataclass(frozen=True)
class PivotSpec:
    """A table, in words: names of fields, the summary, conditions."""

    rows: list[str] = field(default_factory=lambda: ["method"])
    columns: list[str] = field(default_factory=lambda: ["task"])
    cell: str = "score"
    where: str = ""
    summary: str = "mean"
    mix: list[str] = field(default_factory=list)


def parse_spec(words: Iterable[str]) -> PivotSpec:
    """Read words such as `rows=method,lr`.

    Raises:
        ConfigError: if one is unknown, given twice, or has a value that it cannot have.
    """
    given: dict[str, Any] = {}
    known = list(PivotSpec.__dataclass_fields__)
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
    return PivotSpec(**given)


@dataclass(frozen=True)
class PivotCell:
    """The records of one cell, by key.

    Attributes:
        values: of the field; None where it is undefined.
        collapsed: whether each predicts one class or value throughout.
        metrics: primary metrics of their tasks.
        trivial: seed and score of the constant prediction, each distinct pair once.
        diverged: seeds of the same settings that have no record, as their training diverged.
    """

    keys: list[str]
    seeds: list[int]
    values: list[float | None]
    collapsed: list[bool]
    metrics: set[str]
    trivial: set[tuple[int, float | None]]
    diverged: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class PivotGrid:
    """Cells by row and column.

    Attributes:
        field: the column that is shown.
        row_names: of the fields of the rows; those that had to be added are last.
        rows, columns: values of their fields, in order.
        unreadable: keys of the records that are left out.
        tuned: the records with a learning rate that was chosen. Untuned ones that are the same but
            for rate and seed are left out beside them, unless `tuned` tells them apart.
    """

    spec: PivotSpec
    field: str
    row_names: list[str]
    rows: list[Row]
    columns: list[Row]
    cells: dict[tuple[Row, Row], PivotCell]
    unreadable: list[str]
    tuned: Tuned

    @property
    def keys(self) -> list[str]:
        """Of all records."""
        return [key for cell in self.cells.values() for key in cell.keys]

    @property
    def scores(self) -> bool:
        """Whether cells hold scores, which predictions can be tested for."""
        return _scored(self.field)

    @property
    def costs(self) -> bool:
        """Whether cells hold costs, which depend on the machine and on what else it did."""
        return self.field.startswith(comparability.COSTS)


def cross(records: RecordFrame, spec: PivotSpec) -> PivotGrid:
    """Select and cross.

    Raises:
        ConfigError: if a field is unknown or no number, no record is left, or records do not
            compare.
    """
    names = records.columns
    rows = [fields.path(name, names, f"rows={name}") for name in spec.rows]
    columns = [fields.path(name, names, f"columns={name}") for name in spec.columns]
    mixed = [fields.path(name, names, f"mix={name}") for name in spec.mix]
    value = fields.path(spec.cell, names, f"cell={spec.cell}")
    where = fields.conditions(spec.where, names)
    trivial = _trivial(value, names)
    also = {"run.budget.seconds", "run.train.precision", comparability.PRECISION}
    also = (also | {*comparability.MACHINE}) & set(names)
    wanted = {*rows, *columns, value, trivial, *_ALWAYS, *also, *(one.field for one in where)}
    elsewhere = suite_columns.machine_columns(value, names)
    frame = fields.kept(records.read(sorted({*wanted, *elsewhere})), where)
    tuned = records.tuned
    if "tuned" not in {*rows, *columns, *mixed, *(one.field for one in where)}:
        untuned = tuned.untuned(frame["key"])
        tuned = replace(tuned, left_out=len(untuned))
        frame = frame[~frame["key"].isin(untuned)]
    if elsewhere:  # records that this suite did not evaluate
        frame = frame[frame[elsewhere[0]].notna()]
        comparability.refuse(
            frame, set(elsewhere) - {*rows, *columns, *mixed}, spec.cell, spec.rows
        )
    _check_numbers(frame[value], value, spec.cell)
    if _scored(value):
        metric = value.removeprefix("metrics.") if value != "score" else None
        frame = convention.counted_columns(frame, value, trivial, metric)
    told = {*rows, *columns, *mixed}
    comparability.refuse(frame, {"run.protocol"} - told, spec.cell, spec.rows)
    comparability.refuse_mixed_precision(frame, told, spec.cell, spec.rows)
    by_time = "run.budget.seconds" in also and bool(frame["run.budget.seconds"].notna().any())
    if by_time or value.startswith(comparability.COSTS):
        what = spec.cell + " after a budget of seconds" * by_time
        machine = [path for path in comparability.MACHINE if path in also - told]
        comparability.refuse(frame, machine, what, spec.rows)
    more = comparability.apart(records, frame, rows, columns, set(mixed))
    if new := [path for path in more if path not in frame]:
        frame = frame.merge(records.read(["key", *new]), on="key")
    cells = _cells(
        frame, [*rows, *more], columns, value, trivial, Diverged.from_runs(records.diverged)
    )
    most = frame.groupby("run.method.name", observed=True)["parameters.trained"].max().to_dict()
    return PivotGrid(
        spec=spec,
        field=value,
        row_names=[*spec.rows, *map(comparability.name, more)],
        rows=_ordered({row for row, _ in cells}, [*rows, *more], most),
        columns=_ordered({column for _, column in cells}, columns, most),
        cells=cells,
        unreadable=sorted(records.unreadable),
        tuned=tuned,
    )


_ALWAYS = (
    *("key", "alike", "shared", "metric", "collapsed", "parameters.trained"),
    *("run.seed", "run.size", "run.method.name", "run.protocol", "run.task.metrics"),
)


def _check_numbers(column: "pd.Series[Any]", value: str, cell: str) -> None:
    """Refuse a cell without numbers; scores may all be undefined, which is a result."""
    if column.isna().all():
        if not _scored(value):
            raise ConfigError(f"cell={cell}: none of these records has a value")
    elif not fields.numeric(column):
        raise ConfigError(f"cell={cell} holds no numbers; show it as rows or columns")


def _scored(value: str) -> bool:
    metric = value.partition("metrics.")[2]  # an error is no score: less of it is better
    return value == "score" or (bool(metric) and task_metrics.factor(metric) == 100)


def _trivial(value: str, names: list[str]) -> str:
    """The column of what the constant prediction has; "metric" is no such number."""
    path = "trivial" if value == "score" else value.replace("metrics.", "trivial.", 1)
    return path if path != value and path in names else "metric"


def _cells(
    frame: "pd.DataFrame",
    rows: list[str],
    columns: list[str],
    value: str,
    trivial: str,
    diverged: Diverged,
) -> dict[tuple[Row, Row], PivotCell]:
    """Cells by row and column."""
    number = comparability.groups(frame, [*rows, *columns])
    frame = frame.iloc[number.argsort(kind="stable")]  # records of a cell side by side
    ends = number.value_counts().sort_index().cumsum()
    starts = ends.shift(fill_value=0)
    first = frame.iloc[starts]
    places = zip(_tuples(first, rows), _tuples(first, columns), strict=True)
    shown = ["key", "run.seed", value, "collapsed", "metric", trivial, "alike"]
    held = [fields.plain(frame[path]) for path in shown]
    cells = {}
    for place, start, end in zip(places, starts, ends, strict=True):
        keys, seeds, values, collapsed, metrics, base, settings = (
            column[start:end] for column in held
        )
        known = set() if trivial == "metric" else set(zip(seeds, base, strict=True))
        gone = [run.seed for run in diverged.of_cells(dict.fromkeys(settings))]
        cells[place] = PivotCell(keys, seeds, values, collapsed, set(metrics), known, gone)
    return cells


def _tuples(frame: "pd.DataFrame", paths: list[str]) -> list[Row]:
    """The values of some columns, by row of the frame."""
    if not paths:
        return [()] * len(frame)
    return list(zip(*(fields.plain(frame[path]) for path in paths), strict=True))


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
