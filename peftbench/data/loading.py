"""Where examples come from: the hub, a folder in its layout, a user's own file, our grammars.

No torch here: planning counts the classes of a user's file, and `check` tells what is odd in it.
"""

import csv
import hashlib
import os
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import cache
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np

from peftbench.core.configs import TaskConfig
from peftbench.core.errors import ConfigError
from peftbench.core.run import canonical
from peftbench.core.text import did_you_mean
from peftbench.data import synthetic

#: What a data file may be, by its ending, and its reader: ours for csv, else datasets'.
FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}

#: Which part of a file without a validation file is held out; the same for every run of the file.
SPLIT_SEED = 0


@dataclass(frozen=True)
class LabelledTexts:
    """Labelled texts.

    Attributes:
        texts: one or two columns of equal length.
        label: (examples,) classes from 0 (int64), or values (float32).
    """

    texts: list[list[str]]
    label: np.ndarray

    def take(self, rows: np.ndarray) -> "LabelledTexts":
        """The rows with these numbers, in this order."""
        return LabelledTexts([[column[i] for i in rows] for column in self.texts], self.label[rows])


def load_split(task: TaskConfig, split: str, root: str | None) -> LabelledTexts:
    """Read a split of a task, named as in the source.

    Args:
        task: the task node of a run.
        split: such as "train" or "validation_matched".
        root: a folder in the hub's layout, or None for the hub.

    Raises:
        ConfigError: if the data cannot be loaded, or are not what the task says.
    """
    if "file" in task.source:
        return _file_split(task, split)
    return _table(task, _source_columns(task, split, root), f"{task.name} {split}")


def load_columns(
    task: TaskConfig, split: str, root: str | None
) -> tuple[dict[str, list[Any]], np.ndarray]:
    """All columns of a split in the order of `load_split`, and each example's row in its source.

    Args:
        task, split, root: as of `load_split`.

    Returns:
        Columns by name, and (examples,) row numbers from 0, those of a file without its header.

    Raises:
        ConfigError: if the data cannot be loaded.
    """
    if "file" not in task.source:
        columns = _source_columns(task, split, root)
        return columns, np.arange(len(columns[task.label]))
    path, rows = _file_rows(task, split)
    columns = _columns(path)
    rows = np.arange(len(columns[task.label])) if rows is None else rows
    return {name: [column[i] for i in rows] for name, column in columns.items()}, rows


def _source_columns(task: TaskConfig, split: str, root: str | None) -> dict[str, list[Any]]:
    source = task.source
    if "synthetic" in source:
        found: dict[str, list[Any]] = synthetic.generate(source["synthetic"])[split]
        return found
    paths = _found(task, split, root)
    return _read("parquet" if paths[0].suffix == ".parquet" else "json", paths)


def fingerprint(task: TaskConfig, split: str, root: str | None) -> str:
    """SHA-256 of the bytes that a split is read from, so that changed data are other data."""
    source = task.source
    if "synthetic" in source:
        name = source["synthetic"].replace("synthetic", "builtin")  # as when the first was hashed
        return hashlib.sha256(f"{name} {synthetic.VERSION} {split}".encode()).hexdigest()
    if "file" in source:
        about = [source, task.validation_fraction, SPLIT_SEED, split]
        return hashlib.sha256(canonical(about).encode()).hexdigest()
    return _hash(tuple(_found(task, split, root)))


def stratified(label: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """Order examples so that every beginning of the order holds each class in proportion.

    So subsets are nested (the first 100 are among the first 300) and stratified; values are
    stratified by their tenths.

    Args:
        label: (examples,) classes or values.
        classes: 1 for values.
        seed: of the order within a class.
    """
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(label))
    if classes == 1:
        ranks = np.argsort(np.argsort(label[shuffled], kind="stable"), kind="stable")
        group = ranks * 10 // max(1, len(label))
    else:
        group = label[shuffled]
    place = np.empty(len(label))
    for value in np.unique(group):
        members = np.flatnonzero(group == value)
        place[members] = (np.arange(len(members)) + generator.random()) / len(members)
    return shuffled[np.argsort(place, kind="stable")]


# the hub's layout


def kept(task: TaskConfig, split: str, root: str | None) -> dict[str, Path]:
    """The files that a split is read from by their names in the hub's layout; ours have none.

    Raises:
        ConfigError: if they cannot be loaded.
    """
    if "synthetic" in task.source or "file" in task.source:
        return {}
    depth = _pattern(task, split).count("/") + 1
    return {"/".join(path.parts[-depth:]): path for path in _found(task, split, root)}


def _pattern(task: TaskConfig, split: str) -> str:
    source = task.source
    named = (source.get("files") or {}).get(split)
    return str(named or f"{source.get('config')}/{split}-*.parquet")


def _found(task: TaskConfig, split: str, root: str | None) -> list[Path]:
    """The files of a split: those that the source names, else as the hub lays them out."""
    source = task.source
    pattern = _pattern(task, split)
    if root is None:
        if source["hub"] is None:
            raise ConfigError(
                f"{task.name} is on no hub: data.root=FOLDER (or PEFTBENCH_DATA) with {pattern}"
            )
        from peftbench.system.hub import snapshot

        return sorted(
            snapshot(source["hub"], source["revision"], [pattern], kind="dataset").glob(pattern)
        )
    folders = [Path(part).expanduser() for part in root.split(os.pathsep)]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"data.root={root}: there is no folder {folder}")
        if found := sorted(folder.glob(pattern)):
            return found
    whose = f" in the layout of {source['hub']}" if source["hub"] else ""
    several = f"; several are parted by {os.pathsep!r}"
    raise ConfigError(
        f"{task.name}: no {pattern} in {', '.join(map(str, folders))}; data.root is a folder"
        f"{whose}, or null for the hub{several}"
    )


def _read(kind: str, paths: list[Path]) -> dict[str, list[Any]]:
    """Read files through the datasets library, past its cache: ours holds tokens, once."""
    import datasets

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            read = datasets.load_dataset(
                kind,
                data_files=[escape(str(path)) for path in paths],
                split="train",
                cache_dir=scratch,
                keep_in_memory=True,
            )
        except Exception as error:  # the library's own, pyarrow's: all mean a bad file
            cause = error.__cause__ or error
            reason = next(iter(str(cause).splitlines()), type(cause).__name__)
            raise ConfigError(f"cannot read {paths[0]}: {reason}") from error
        return {name: read[name][:] for name in read.column_names}


def _hash(paths: tuple[Path, ...]) -> str:
    return _hash_at(tuple((path, path.stat().st_mtime_ns) for path in paths))


@cache
def _hash_at(files: tuple[tuple[Path, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, _ in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _table(task: TaskConfig, columns: dict[str, list[Any]], where: str) -> LabelledTexts:
    for name in [*task.texts, task.label]:
        if name not in columns:
            raise ConfigError(f"{where} has no column {name!r}; {did_you_mean(name, columns)}")
    label = columns[task.label]
    names = task.class_names
    if names is not None:
        strangers = sorted({str(value) for value in label} - set(names))
        if strangers:
            raise ConfigError(f"{where} has labels that training lacks: {', '.join(strangers[:5])}")
        numbers = {name: number for number, name in enumerate(names)}
        label = [numbers[str(value)] for value in label]
    texts = [["" if text is None else str(text) for text in columns[n]] for n in task.texts]
    values: np.ndarray[Any, Any]
    try:
        values = np.asarray(label, dtype=np.float32 if task.classes == 1 else np.int64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: column {task.label!r} must hold numbers: {error}") from None
    if task.classes == 1 and not np.all(np.isfinite(values)):
        raise ConfigError(f"{where}: column {task.label!r} has empty or infinite values")
    if task.classes > 1 and not np.all((values >= 0) & (values < task.classes)):
        raise ConfigError(
            f"{where}: labels must be classes from 0 to {task.classes - 1}, got "
            f"{values.min()} to {values.max()}; unlabelled splits cannot be scored"
        )
    return LabelledTexts(texts, values)


# a user's own file


def class_names(path: str, column: str) -> list[str]:
    """The distinct labels of a classification file, sorted, as text.

    Raises:
        ConfigError: if there is no such column, a label is missing, or there is but one class.
    """
    columns = _columns(path)
    if column not in columns:
        known = did_you_mean(column, columns)
        raise ConfigError(f"{path} has no column {column!r}; {known}")
    label = columns[column]
    empty = sum(value is None or value == "" for value in label)
    if empty:
        raise ConfigError(f"{path}: {empty} of {len(label)} labels are empty; remove them")
    names = sorted({str(value) for value in label})
    if len(names) < 2:
        raise ConfigError(f"{path}: every label is {names[0]!r}; nothing can be learnt")
    if len(names) > max(20, len(label) // 10):
        raise ConfigError(
            f"{path}: {len(names)} distinct labels in {len(label)} rows look like values; "
            "for regression say task.kind=regression"
        )
    return names


def data_warnings(task: TaskConfig, root: str | None) -> list[str]:
    """What a careful person would want to know about a task's data before training; no torch.

    Raises:
        ConfigError: if the data cannot be loaded.
    """
    train = load_split(task, task.splits["train"], root)
    held = load_split(task, task.splits["validation"], root)
    told = []
    for name, split in (("training", train), ("validation", held)):
        empty = sum(not text.strip() for column in split.texts for text in column)
        if empty:
            told.append(f"{task.name}: {empty} empty {name} texts")
        conflicts = _conflicts(split)
        if conflicts:
            told.append(f"{task.name}: {conflicts} {name} texts carry more than one label")
        if len(set(split.label.tolist())) == 1:
            raise ConfigError(f"{task.name}: every {name} label is {split.label[0]}")
    seen = set(zip(*train.texts, strict=True))
    leaked = sum(row in seen for row in zip(*held.texts, strict=True))
    if leaked:
        told.append(
            f"{task.name}: {leaked} of {len(held.label)} validation examples are in train too"
        )
    return told


def _conflicts(split: LabelledTexts) -> int:
    labels: dict[tuple[str, ...], set[Any]] = {}
    for row, label in zip(zip(*split.texts, strict=True), split.label.tolist(), strict=True):
        labels.setdefault(row, set()).add(label)
    return Counter(len(found) > 1 for found in labels.values())[True]


def _file_split(task: TaskConfig, split: str) -> LabelledTexts:
    path, rows = _file_rows(task, split)
    whole = _table(task, _columns(path), path)
    return whole if rows is None else whole.take(rows)


def _file_rows(task: TaskConfig, split: str) -> tuple[str, np.ndarray | None]:
    """The file of a split, and which of its rows are in it; None is all of them."""
    assert task.path is not None
    assert task.validation_fraction is not None
    train = split == task.splits["train"]
    if task.validation_path is not None:
        return (task.path, None) if train else (task.validation_path, None)
    whole = _table(task, _columns(task.path), task.path)
    held = max(1, round(task.validation_fraction * len(whole.label)))
    order = stratified(whole.label, task.classes, SPLIT_SEED)
    return task.path, np.sort(order[held:] if train else order[:held])


def _columns(file: str) -> dict[str, list[Any]]:
    path = Path(file)
    kind = FORMATS[path.suffix.lower()]
    return read_delimited(path) if kind == "csv" else _read(kind, [path])


def read_delimited(path: Path) -> dict[str, list[Any]]:
    """Read csv or tsv, all columns as text: "007" and "1.0" are labels until a task says otherwise.

    The datasets library (5.2) has no way to say so without the names of the columns.

    Raises:
        ConfigError: with the row, if the file is not a table.
    """
    csv.field_size_limit(1 << 30)  # a text may be a book
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file, delimiter=delimiter, strict=True) if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if len(rows) < 2:
        raise ConfigError(f"{path}: a data file is a line of column names, then examples")
    for number, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ConfigError(
                f"{path}: row {number + 1} has {len(row)} fields, the header {len(rows[0])}; "
                "quote texts that hold a delimiter"
            )
    return {name: list(column) for name, *column in zip(*rows, strict=True)}
