"""Where are predictions wrong? Confusions or residuals, parts of the examples, the surest errors.

The report of a folder needs predictions alone. Lengths, columns and texts need the data, and are
made by `peftbench report errors`, which prints texts only if it is asked to.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peftbench.analysis import grouping, selection
from peftbench.analysis.errors import Part, RowPredictions, by_class, by_column, by_quantile
from peftbench.claims import matching
from peftbench.core.configs import TaskConfig
from peftbench.core.errors import ConfigError, RecordError, no_records
from peftbench.core.run import Record
from peftbench.core.text import did_you_mean
from peftbench.data import loading
from peftbench.reports.base import Report
from peftbench.reports.tables.markdown import Table
from peftbench.results.predictions import Load, readable
from peftbench.results.store import ResultsFolder
from peftbench.system import offline_folder

REPORT = Report(
    name="errors",
    question="where are predictions wrong?",
    order=17,
    tables=lambda inputs: summary_tables(inputs.tested, inputs.load),
    page=("differences", 101),
)

#: Classes that have a column each; of more the most frequent confusions are listed.
_CLASSES = 6

#: Confusions that are listed.
_LISTED = 5

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class TaskPredictions:
    """Runs of one task and size.

    Attributes:
        title: the task, and the size where there are several.
        task: of all its runs.
        rows: answers by the label of their row.
    """

    title: str
    task: TaskConfig
    rows: dict[str, RowPredictions]

    @property
    def any_row(self) -> RowPredictions:
        """Answers of one row; all are to the same examples."""
        return next(iter(self.rows.values()))

    @property
    def names(self) -> list[str]:
        """Names of the classes."""
        return self.task.class_names or [str(number) for number in range(self.task.classes)]


def cells(records: list[Record], load: Load) -> list[TaskPredictions]:
    """Answers by task and size, then by row of the score table; texts are none."""
    records = [record for record in records if not record.run.task.generation]
    by_row, split = grouping.of_records(records)
    labels = grouping.labels(by_row, split)
    parts = grouping.alike(records)
    found = []
    for one, members in parts:
        keys = {record.run.key for record in members}
        rows = {
            labels[row]: here
            for row, every in by_row.items()
            if (here := [record for record in every if record.run.key in keys])
        }
        answers = {label: RowPredictions.from_records(here, load) for label, here in rows.items()}
        first = next(iter(answers.values()))
        for label, other in answers.items():
            if not np.array_equal(first.item, other.item):
                raise RecordError(
                    f"{label}: predictions are of other examples than those of others"
                )
        found.append(
            TaskPredictions(grouping.title(one, dict(parts)), members[0].run.task, answers)
        )
    return found


def summary_tables(records: list[Record], load: Load) -> list[Table]:
    """Confusions of every row by task and size, or residuals by quantile."""
    return [_summary(cell) for cell in cells(records, load)]


def _summary(cell: TaskPredictions) -> Table:
    if cell.task.classes == 1:
        return _residuals(cell)
    return _confusion(cell) if cell.task.classes <= _CLASSES else _listed(cell)


def _confusion(cell: TaskPredictions) -> Table:
    lines = []
    for label, answers in cell.rows.items():
        for name, counts in zip(cell.names, answers.confusion(), strict=True):
            total = counts.sum()
            shares = [f"{100 * count / total:.1f}" if total else "–" for count in counts]
            lines.append([label, name, f"{total:.0f}", *shares])
    note = (
        "Percent of the examples of a true class that are predicted to be of each class, mean over "
        "seeds. A class without examples has none (–)."
    )
    columns = ["row", "true", "examples", *(f"→ {name}" for name in cell.names)]
    return Table(f"Confusions: {cell.title}", columns, lines, 2, [note])


def _listed(cell: TaskPredictions) -> Table:
    lines = []
    for label, answers in cell.rows.items():
        counts = answers.confusion()
        off = [
            (counts[i, j], i, j)
            for i in range(len(counts))
            for j in range(len(counts))
            if i != j and counts[i, j]
        ]
        for count, i, j in sorted(off, key=lambda one: (-one[0], one[1:]))[:_LISTED]:
            share = 100 * count / counts[i].sum()
            lines.append([label, cell.names[i], cell.names[j], f"{count:.1f}", f"{share:.1f}"])
    note = f"The {_LISTED} most frequent confusions of each row: examples, mean over seeds."
    columns = ["row", "true", "predicted", "examples", "% of the true class"]
    return Table(f"Confusions: {cell.title}", columns, lines, 3, [note])


def _residuals(cell: TaskPredictions) -> Table:
    lines = []
    for label, answers in cell.rows.items():
        found = answers.residuals()
        quantiles = np.quantile(found, _QUANTILES, axis=1).mean(axis=1)
        lines.append([label, *(f"{value:.2f}" for value in (*quantiles, np.abs(found).mean()))])
    note = (
        "Predicted less true values, in the label's unit: quantiles over examples, mean of seeds."
    )
    columns = ["row", *(f"{100 * q:g} %" for q in _QUANTILES), "mean absolute"]
    return Table(f"Residuals: {cell.title}", columns, lines, 1, [note])


# the verb


@dataclass(frozen=True)
class ErrorOptions:
    """How the errors are shown.

    Attributes:
        columns: of the data, beside length and label.
        bins: of lengths and numbers.
        top: wrong examples that are listed.
        texts: whether their texts are printed.
        root: of the data, None where the task's own place is meant.
    """

    columns: tuple[str, ...] = ()
    bins: int = 4
    top: int = 10
    texts: bool = False
    root: str | None = None


def errors_tables(
    results: ResultsFolder, conditions: Sequence[str], options: ErrorOptions, where: str = ""
) -> tuple[list[Table], list[str]]:
    """Tables of the runs of a folder, and lines below them.

    Args:
        results: the folder.
        conditions: task=, method=, size= and other settings of records, and data.root=.
        options: what of the data.
        where: conditions of `analysis.fields`, beside the others.

    Raises:
        ConfigError: if no record fits, or a column is in none of the data.
    """
    records, bad = results.scan()
    if not records:
        raise no_records(results.folder, bad)
    given: dict[str, list[str]] = {}
    for condition in conditions:
        key, equals, value = condition.partition("=")
        if not (key and equals and value):
            raise ConfigError(f"{condition}: write task=NAME, method=NAME and the like")
        given[key] = [value] if key == "data.root" else value.split(",")
    (root,) = given.pop("data.root", [options.root])
    root = root or offline_folder.data_root() or os.environ.get("PEFTBENCH_DATA")
    records, _ = selection.of_records(results, records, [], where)
    records = matching.narrowed(records, given)
    whole, gone = readable(records, results.predictions)
    notes = [f"left out, unreadable: {reason}" for reason in bad.values()] + gone
    tables: list[Table] = []
    known: dict[str, None] = {}
    for cell in cells(whole, results.predictions):
        tables.append(_summary(cell))
        data, why = _data(cell, root)
        tables.append(_parted(cell, "label", *_by_label(cell, options.bins)))
        if data is not None:
            tables.append(_parted(cell, "words", by_quantile(data.words, options.bins), ""))
            known |= dict.fromkeys(data.columns)
            for name in options.columns:
                if name in data.columns:
                    parts = by_column(data.columns[name], options.bins)
                    tables.append(_parted(cell, name, parts, ""))
        elif why:
            notes.append(why)
        tables += [_wrong(cell, label, data, options) for label in cell.rows]
    for name in options.columns:
        if name not in known:
            near = did_you_mean(name, known) if known else "no data are at hand"
            raise ConfigError(f"--by {name}: no such column; {near}")
    return tables, list(dict.fromkeys(notes))


@dataclass(frozen=True)
class Data:
    """The examples of predictions.

    Attributes:
        columns: by name, those of the source.
        rows: (examples,) row in the source, from 1.
        words: (examples,) words of the texts, parted by spaces.
        texts: of each example.
    """

    columns: dict[str, list[Any]]
    rows: np.ndarray
    words: np.ndarray
    texts: list[str]


def _data(cell: TaskPredictions, root: str | None) -> tuple[Data | None, str]:
    """The data of a cell where they are at hand, or why they are not used."""
    task, answers = cell.task, cell.any_row
    lost = f"{task.name}: no lengths, columns or texts, "
    own = "synthetic" in task.source or "file" in task.source
    if not own and root is None:
        return None, f"{lost}for data.root=FOLDER (or PEFTBENCH_DATA) is not given"
    paths = [task.path, task.validation_path] if "file" in task.source else []
    if gone := [path for path in paths if path is not None and not Path(path).is_file()]:
        return None, f"{lost}for there is no file {gone[0]} any more"
    split = task.splits["validation"]
    try:
        columns, rows = loading.load_columns(task, split, root)
        label = loading.load_split(task, split, root).label
    except ConfigError as error:
        return None, f"{lost}{error}"
    place = answers.item
    if place.max(initial=-1) >= len(label) or not np.array_equal(
        np.asarray(label[place], dtype=np.float64), answers.label.astype(np.float64)
    ):
        return None, f"{lost}for the data at hand are not those that were predicted"
    columns = {name: [column[i] for i in place] for name, column in columns.items()}
    each = [
        ["" if text is None else str(text) for text in one]
        for one in zip(*(columns[name] for name in task.texts), strict=True)
    ]
    texts = [" | ".join(one) for one in each]
    words = np.array([sum(len(text.split()) for text in one) for one in each])
    return Data(columns, rows[place], words, texts), ""


def _by_label(cell: TaskPredictions, bins: int) -> tuple[list[Part], str]:
    if cell.task.classes == 1:
        return by_quantile(cell.any_row.label, bins), ""
    parts = by_class(cell.any_row.label, cell.names)
    empty = [part.name for part in parts if not part.where.any()]
    return parts, f"No examples of {', '.join(empty)}." if empty else ""


def _parted(cell: TaskPredictions, by: str, parts: list[Part], note: str) -> Table:
    """How rows do on parts of the examples."""
    values = cell.task.classes == 1
    scale, digits = (1.0, 2) if values else (100.0, 1)
    counts = ["examples", *(str(int(part.where.sum())) for part in parts)]
    lines = [
        [
            label,
            *(
                grouping.spread(
                    [float(run[part.where].mean()) for run in answers.goodness()], scale, digits
                )
                if part.where.any()
                else "–"
                for part in parts
            ),
        ]
        for label, answers in cell.rows.items()
    ]
    what = "Mean absolute residual" if values else "Percent of right answers"
    told = f"{what}, mean ± standard deviation over seeds (number)."
    if len(parts) == 1 and not note:
        note = f"All examples have one value of {by}, or values that tie."
    columns = ["row", *(part.name for part in parts)]
    notes = [told, *([note] if note else [])]
    return Table(f"By {by}: {cell.title}", columns, [counts, *lines], 1, notes)


def _wrong(cell: TaskPredictions, label: str, data: Data | None, options: ErrorOptions) -> Table:
    """The wrong examples that a row is surest of."""
    answers = cell.rows[label]
    values = cell.task.classes == 1
    found, more = answers.surest_wrong(options.top)
    runs = len(answers.predicted)
    lines = []
    for one in found:
        row = answers.item[one.place] + 1 if data is None else data.rows[one.place]
        if values:
            line = [str(row), f"{one.label:.2f}", f"{one.answer:.2f}", f"{one.sure:.2f}"]
        else:
            names = [cell.names[int(k)] for k in (one.label, one.answer)]
            line = [str(row), *names, f"{100 * one.sure:.1f}", f"{one.runs} of {runs}"]
        lines.append([*line, *([data.texts[one.place]] if options.texts and data else [])])
    columns = ["example", "true", "predicted"]
    columns += ["absolute residual"] if values else ["sure, %", "wrong seeds"]
    columns += ["text"] if options.texts and data else []
    place = "of the data" if data is not None else "of the reporting split"
    notes = [f"Row {place}, from 1. Predicted: by the mean of {runs} runs."]
    if more:
        notes.append(f"{more} more are as sure as the last of these, in later rows.")
    if not found:
        notes = [f"None is wrong, by the mean of {runs} runs."]
    title = f"{'Largest residuals' if values else 'Most confident errors'}: {cell.title}, {label}"
    return Table(title, columns, lines, 1, notes, prose=int(options.texts and data is not None))
