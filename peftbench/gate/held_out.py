"""The labelled file that both models of a gate answer, and whether they can."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peftbench.core.errors import ConfigError
from peftbench.core.run import Run
from peftbench.core.text import decoded
from peftbench.data import data_report, glue_labels, loading, own_file, own_labels
from peftbench.data.own_file import FileTable

#: Fewer rows have no interval that decides anything.
LEAST = 30


@dataclass(frozen=True)
class HeldOut:
    """Rows that neither model was trained on.

    Attributes:
        path: of the file.
        content: its SHA-256.
        rows: the place of each row in the file.
        unit: what these places count: lines or rows.
        label: (rows,) classes.
        names: of the classes, in the order of the new model.
        new, old: the text columns of each model.
    """

    path: Path
    content: str
    rows: list[int]
    unit: str
    label: NDArray[np.int64]
    names: list[str]
    new: list[list[str]]
    old: list[list[str]]

    @property
    def name(self) -> str:
        """Of the file, for people."""
        return decoded(self.path.name)


def check_runs(new: Run, old: Run) -> None:
    """Refuse models that do not answer the same question.

    Raises:
        ConfigError: if one predicts values or writes texts, or their classes or numbers of texts
            differ.
    """
    for what, run in (("NEW", new), ("OLD", old)):
        if run.task.regression:
            raise ConfigError(
                f"{what} predicts values ({run.task.name}); a gate compares classifiers, as flips, "
                "calibration and abnormal input are not defined for values"
            )
        if run.task.generation:
            raise ConfigError(
                f"{what} writes texts ({run.task.name}); a gate compares classifiers, as flips, "
                "calibration and abnormal input are not defined for texts"
            )
    ours, theirs = _names(new), _names(old)
    if sorted(ours) != sorted(theirs):
        raise ConfigError(
            f"the classes of NEW are {', '.join(ours)}, those of OLD {', '.join(theirs)}; give "
            "two models of the same classes"
        )
    if len(new.task.texts) != len(old.task.texts):
        raise ConfigError(
            f"NEW reads {len(new.task.texts)} text columns, OLD {len(old.task.texts)}; give two "
            "models of the same kind of task"
        )


def class_order(new: Run, old: Run) -> list[int]:
    """Numbers of the old model's classes in the order of the new one's."""
    theirs = _names(old)
    return [theirs.index(name) for name in _names(new)]


def read(
    path: Path,
    new: Run,
    old: Run,
    quoting: str | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> HeldOut:
    """Read a file with the text columns of both models and the label column of the new one.

    Args:
        path: of a csv, tsv, json, jsonl or parquet file.
        new, old: runs of the models.
        quoting: in place of the new run's own, see `delimited.read_rows`.
        note: called with what is odd in the texts.

    Raises:
        ConfigError: if the file cannot be read or used, with the row, or is too short.
    """
    content = own_file.content_of(path)
    task = new.task
    texts = list(dict.fromkeys([*task.texts, *old.task.texts]))
    table = own_file.read_table(str(path), content, texts, task.label, quoting or task.quoting)
    loading.check_repeated_header(table, [*texts, task.label])
    label = _label(table, task.label, _names(new))
    if len(label) < LEAST:
        raise ConfigError(f"{path} has {len(label)} rows; a gate needs at least {LEAST}")
    for text in [*table.notes, *data_report.text_notes(task, table)]:
        note(f"{decoded(path.name)}: {text}")
    columns = {name: own_file.text_cells(table, name) for name in texts}
    if equal := len(label) - len(set(zip(*columns.values(), strict=True))):
        note(
            f"{decoded(path.name)}: {equal:,} of {len(label):,} rows repeat the texts of an "
            "earlier row; intervals take rows as independent and are too narrow: keep one of each"
        )
    return HeldOut(
        path=path,
        content=content,
        rows=table.rows,
        unit=table.unit,
        label=label,
        names=_names(new),
        new=[columns[name] for name in task.texts],
        old=[columns[name] for name in old.task.texts],
    )


def _label(table: FileTable, column: str, names: list[str]) -> NDArray[np.int64]:
    """Classes by their names, or all by their numbers, as GLUE's own files have them.

    Where a number is a name as well, only names count: 4 of 1 to 5 is not the fifth class.
    """
    cells = set(own_labels.label_cells(table, column))
    numbers = [str(number) for number in range(len(names))]
    by_number = cells <= set(numbers) and not set(names) & set(numbers)
    return own_labels.class_numbers(table, column, numbers if by_number else names)


def _names(run: Run) -> list[str]:
    names = glue_labels.label_names(run.task)
    assert names is not None  # of a classifier
    return names
