"""Where examples come from: the hub, a folder in its layout, a user's own file, our grammars.

No torch here: planning counts the classes of a user's file, and `check` tells what is odd in it.
"""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from peftbench.core.configs import TaskConfig
from peftbench.core.errors import ConfigError
from peftbench.core.run import canonical
from peftbench.core.text import did_you_mean
from peftbench.data import folds, hub_dataset, hub_layout, own_file, own_labels, synthetic
from peftbench.system import io, offline_folder

#: Which part of a file without a validation file is held out; the same for every run of the file.
SPLIT_SEED = 0


@dataclass(frozen=True)
class LabelledTexts:
    """Labelled texts.

    Attributes:
        texts: one or two columns of equal length.
        label: (examples,) classes from 0 (int64), or values (float32); 0 where texts are wanted.
        targets: the texts that are wanted, where the task is to write some.
    """

    texts: list[list[str]]
    label: np.ndarray
    targets: list[str] | None = None

    def take(self, rows: np.ndarray) -> "LabelledTexts":
        """The rows with these numbers, in this order."""
        targets = None if self.targets is None else [self.targets[i] for i in rows]
        texts = [[column[i] for i in rows] for column in self.texts]
        return LabelledTexts(texts, self.label[rows], targets)

    def asked(self) -> "LabelledTexts":
        """The same without the texts that are wanted."""
        return replace(self, targets=None)


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
    if "format" in task.source:
        whole = _own_texts(task, _hub_table(task, split, root))
        rows = _rows_of_part(task, split, whole.label)
        return whole if rows is None else whole.take(rows)
    return _table(task, _source_columns(task, split, root), f"{task.name} {split}")


def load_columns(
    task: TaskConfig, split: str, root: str | None
) -> tuple[dict[str, list[Any]], np.ndarray]:
    """All columns of a split in the order of `load_split`, and where each example stands.

    Args:
        task, split, root: as of `load_split`.

    Returns:
        Columns by name, and (examples,) numbers from 1: the line of a text file, else the row.

    Raises:
        ConfigError: if the data cannot be loaded.
    """
    if "file" not in task.source:
        columns = _source_columns(task, split, root)
        count = len(columns[task.label])
        if task.validation_fraction is None:
            return columns, np.arange(count) + 1
        label = _own_texts(task, _hub_table(task, split, root)).label
        rows = _rows_of_part(task, split, label)
        rows = np.arange(count) if rows is None else rows
        return {name: [column[i] for i in rows] for name, column in columns.items()}, rows + 1
    part, rows = _own_rows(task, split)
    path = task.path if part == "train" else task.validation_path
    assert path is not None
    content = task.source["file"][part]
    table = own_file.read_table(path, content, task.texts, task.label, task.quoting, every=True)
    rows = np.arange(len(table.rows)) if rows is None else rows
    return (
        {name: [column[i] for i in rows] for name, column in table.columns.items()},
        np.array(table.rows)[rows],
    )


def _source_columns(task: TaskConfig, split: str, root: str | None) -> dict[str, list[Any]]:
    source = task.source
    if "synthetic" in source:
        found: dict[str, list[Any]] = synthetic.generate(source["synthetic"])[split]
        return found
    if "format" in source:
        return _hub_table(task, split, root).columns
    paths = hub_layout.find_files(task, split, root)
    return hub_layout.read_files("parquet" if paths[0].suffix == ".parquet" else "json", paths)


def fingerprint(task: TaskConfig, split: str, root: str | None) -> str:
    """SHA-256 of the bytes that a split is read from, so that changed data are other data."""
    source = task.source
    if "synthetic" in source:
        name = source["synthetic"].replace("synthetic", "builtin")  # as when the first was hashed
        return hashlib.sha256(f"{name} {synthetic.VERSION} {split}".encode()).hexdigest()
    if "file" in source:
        about = [source, task.validation_fraction, SPLIT_SEED, split]
        if task.folds is not None:
            about += [task.folds, task.fold, task.fold_seed, task.group]
        if task.quoting is not None:  # the same bytes are other texts
            about.append({"quoting": task.quoting})
        return hashlib.sha256(canonical(about).encode()).hexdigest()
    content = io.hash_files(tuple(hub_layout.find_files(task, split, root)))
    if "format" in source:  # the same bytes may be read in two ways
        how: dict[str, Any] = {"options": source.get("options"), "names": task.class_names}
        if task.validation_fraction is not None:
            how["part"] = [task.validation_fraction, SPLIT_SEED, split]
        return hashlib.sha256(canonical([content, source["format"], how]).encode()).hexdigest()
    return content


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
    found = hub_layout.find_files(task, split, root)
    patterns = hub_layout.file_patterns(task, split)
    if len(patterns) == 1:  # it may mean several files
        patterns *= len(found)
    depths = [pattern.count("/") + 1 for pattern in patterns]
    return {"/".join(path.parts[-depth:]): path for depth, path in zip(depths, found, strict=True)}


def _hub_table(task: TaskConfig, split: str, root: str | None) -> own_file.FileTable:
    """A split of `task=hub`; classes are there by name."""
    files = hub_layout.find_files(task, split, root)
    return hub_dataset.read(task, split, files, task.class_names)


def _table(task: TaskConfig, columns: dict[str, list[Any]], where: str) -> LabelledTexts:
    for name in [*task.texts, task.label]:
        if name not in columns:
            raise ConfigError(f"{where} has no column {name!r}; {did_you_mean(name, columns)}")
    label = columns[task.label]
    rows = list(range(1, len(label) + 1))
    table = own_file.FileTable(Path(where), list(columns), columns, rows, "row")
    texts = [own_file.text_cells(table, name) for name in task.texts]
    if task.generation:
        targets = own_labels.targets(table, task.label, task.stop)
        return LabelledTexts(texts, np.zeros(len(targets), dtype=np.int64), targets)
    if (names := task.source.get("labels")) is not None:
        numbers = {name: number for number, name in enumerate(names)}
        if other := sorted({str(one) for one in label} - set(numbers)):
            raise ConfigError(f"{where}: labels are {', '.join(names)}, got {', '.join(other[:5])}")
        label = [numbers[str(one)] for one in label]
    values: np.ndarray[Any, Any]
    try:
        values = np.asarray(label, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: column {task.label!r} must hold numbers: {error}") from None
    if values.ndim != 1:
        raise ConfigError(f"{where}: column {task.label!r} must hold numbers, got {label[0]!r}")
    if task.classes > 1 and (odd := np.flatnonzero(values % 1 != 0)).size:
        raise ConfigError(
            f"{where}: {table.where(odd.tolist())}: column {task.label!r} must hold the numbers of "
            f"classes, got {label[odd[0]]!r}"
        )
    values = values.astype(np.float32 if task.classes == 1 else np.int64)
    if task.classes == 1 and not np.all(np.isfinite(values)):
        raise ConfigError(f"{where}: column {task.label!r} has empty or infinite values")
    if task.classes > 1 and not np.all((values >= 0) & (values < task.classes)):
        raise ConfigError(
            f"{where}: labels must be classes from 0 to {task.classes - 1}, got "
            f"{values.min()} to {values.max()}; unlabelled splits cannot be scored"
        )
    return LabelledTexts(texts, values)


# a user's own file


@dataclass(frozen=True)
class FileFacts:
    """What planning must know of a user's own files.

    Attributes:
        class_names: None for a regression.
        train, validation: how many examples each part has.
    """

    class_names: tuple[str, ...] | None
    train: int
    validation: int


def file_facts(task: TaskConfig, classes: int | None) -> FileFacts:
    """Read a user's own files whole, and count.

    Args:
        task: without its classes.
        classes: how many, where the user says so.

    Raises:
        ConfigError: if a file cannot be used; with the lines.
    """
    at = _facts_key(task, classes)
    if at not in _FACTS:
        names = None
        if task.kind == "classification":
            table = _own_table(task, task.splits["train"])
            check_repeated_header(table, [*task.texts, task.label])
            names = own_labels.class_names(table, task.label, classes)
            task = replace(task, class_names=names, classes=len(names))
        parts = [len(load_split(task, task.splits[p], None).label) for p in ("train", "validation")]
        facts = FileFacts(None if names is None else tuple(names), *parts)
        _FACTS[at] = _FACTS[_facts_key(task, task.classes)] = facts
    return _FACTS[at]


_FACTS: dict[str, FileFacts] = {}


def _facts_key(task: TaskConfig, classes: int | None) -> str:
    return json.dumps([{**task.to_json(), "metrics": None, "rouge_tokens": None}, classes])


def check_unchanged(task: TaskConfig, root: str | None) -> None:
    """Refuse data that are not those of the plan: own files, rows of a folder for the hub.

    Raises:
        ConfigError: if a file is gone or has changed.
    """
    expected = task.rows_sha256
    if root is None or root != offline_folder.data_root():  # that one is checked file by file
        expected = expected or task.hub_rows_sha256
    root = hub_layout.root_of(task, root)
    if "hub" in task.source and root is not None and expected is not None:
        found = hub_layout.rows_sha256(task, root)
        if found not in (None, expected):
            raise ConfigError(
                f"{task.name}: the rows in {root} have changed since they were planned (SHA-256 "
                f"{expected[:12]}, now {str(found)[:12]}); give the same command again to plan "
                "with what is there now"
            )
    for part, content in (task.source.get("file") or {}).items():
        path = task.path if part == "train" else task.validation_path
        assert path is not None
        own_file.check_unchanged(path, content)


def own_tables(task: TaskConfig) -> dict[str, own_file.FileTable]:
    """The tables of a user's own files by part: train, and validation where that is a file."""
    parts = task.source.get("file") or {}
    return {part: _own_table(task, task.splits[part]) for part in parts}


def _own_table(task: TaskConfig, split: str) -> own_file.FileTable:
    part = "train" if split == task.splits["train"] else "validation"
    path = task.path if part == "train" else task.validation_path
    assert path is not None
    content = task.source["file"][part]
    table = own_file.read_table(path, content, task.texts, task.label, task.quoting)
    table.texts, table.label = task.texts, task.label
    return table


def _file_split(task: TaskConfig, split: str) -> LabelledTexts:
    part, rows = _own_rows(task, split)
    whole = _own_texts(task, _own_table(task, task.splits[part]))
    return whole if rows is None else whole.take(rows)


def _own_rows(task: TaskConfig, split: str) -> tuple[str, np.ndarray | None]:
    """Which of a user's own files holds a split, and which rows of it; None is all of them."""
    part = "train" if split == task.splits["train"] else "validation"
    if "validation" in task.source["file"]:
        return part, None
    if task.folds is not None:
        if part == "validation":
            return "train", held_rows(task)
        return "train", np.flatnonzero(cut(task).part != task.fold)
    whole = _own_texts(task, _own_table(task, task.splits["train"]))
    return "train", _rows_of_part(task, split, whole.label)


def held_count(task: TaskConfig, total: int) -> int:
    """How many of the training examples `task.validation_fraction` holds out.

    Raises:
        ConfigError: if none would be left to train on.
    """
    assert task.validation_fraction is not None
    held = max(1, round(task.validation_fraction * total))
    if held >= total:
        raise ConfigError(
            f"task.validation_fraction={task.validation_fraction} of {total} examples leaves "
            "nothing to train on"
        )
    return held


def _rows_of_part(task: TaskConfig, split: str, label: np.ndarray) -> np.ndarray | None:
    """Which examples of the training file or split are those of a split; None is all of them.

    Args:
        task: whose `validation_fraction` holds out a part.
        split: train, the part that is held out, or another one, which is a split of its own.
        label: (examples,) of what holds the split.
    """
    if task.validation_fraction is None or split not in task.splits.values():
        return None
    held = held_count(task, len(label))
    order = stratified(label, task.classes, SPLIT_SEED)
    return np.sort(order[held:] if split == task.splits["train"] else order[:held])


def cut(task: TaskConfig) -> folds.Cut:
    """The parts of a user's own file into which `task.folds` cuts its rows.

    Raises:
        ConfigError: if the file cannot be cut so, or has no such column.
    """
    assert task.path is not None
    assert task.folds is not None
    content, every = task.source["file"]["train"], task.group is not None
    table = own_file.read_table(
        task.path, content, task.texts, task.label, task.quoting, every=every
    )
    key = json.dumps(["cut", task.texts, task.label, task.folds, task.fold_seed, task.group])
    if key not in table.made:
        rows = _own_texts(task, table)
        given = None if task.group is None else own_file.text_cells(table, task.group)
        alike = json.dumps(["alike", task.texts])  # once for the cuts of all seeds and sizes
        if alike not in table.made:
            table.made[alike] = folds.near_duplicates(rows.texts)
        table.made[key] = folds.cut(
            table.made[alike], rows.label, task.classes, task.folds, task.fold_seed or 0, given
        )
    made: folds.Cut = table.made[key]
    return made


def training_groups(task: TaskConfig) -> np.ndarray | None:
    """Of each training example, in their order, the number of what stays together with it.

    None where nothing does: without `task.folds`, and where no two rows are near duplicates or of
    one `task.group`.
    """
    if task.folds is None:
        return None
    made = cut(task)
    group = made.group[made.part != task.fold]
    return group if len(np.unique(group)) < len(group) else None


def held_rows(task: TaskConfig) -> np.ndarray:
    """Numbers of the rows that `task.fold` holds out, ascending: its validation split."""
    return np.flatnonzero(cut(task).part == task.fold)


def _own_texts(task: TaskConfig, table: own_file.FileTable) -> LabelledTexts:
    names = task.class_names
    key = json.dumps([task.texts, task.label, names, task.range, task.kind, task.stop])
    if key not in table.made:
        check_repeated_header(table, [*task.texts, task.label])
        texts = [own_file.text_cells(table, name) for name in task.texts]
        targets = None
        if task.generation:
            targets = own_labels.targets(table, task.label, task.stop)
            label = np.zeros(len(targets), dtype=np.int64)
        elif names is None:
            label = own_labels.values(table, task.label, task.range)
        else:
            label = own_labels.class_numbers(table, task.label, names)
        table.made[key] = LabelledTexts(texts, label, targets)
    made: LabelledTexts = table.made[key]
    return made


def check_repeated_header(table: own_file.FileTable, names: list[str]) -> None:
    """Refuse rows that are the header once more, as in files that were put together.

    Args:
        table: of the file.
        names: of the columns that are read.

    Raises:
        ConfigError: with the rows.
    """
    plain = _plain if len(names) > 1 else str  # a text alone may be the name of its column
    columns, wanted = [table.column(name) for name in names], [*map(plain, names)]
    again = [
        i
        for i, last in enumerate(columns[-1])
        if plain(last) == wanted[-1] and [plain(column[i]) for column in columns] == wanted
    ]
    if again:
        raise ConfigError(
            f"{table.path}: {table.where(again)} holds the column names again; remove it"
        )


def _plain(cell: Any) -> str:
    """A cell without case, blanks and the mark with which some files of UTF-8 begin."""
    return str(cell).removeprefix("\ufeff").strip().casefold()


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
        if empty and "file" not in task.source:  # `data_report` says where in the file
            told.append(f"{task.name}: {empty} empty {name} texts")
        conflicts = _conflicts(split)
        if conflicts:
            told.append(f"{task.name}: {conflicts} {name} texts carry more than one label")
        if not task.generation and len(set(split.label.tolist())) == 1:
            raise ConfigError(f"{task.name}: every {name} label is {_label(task, split.label[0])}")
    seen = set(zip(*train.texts, strict=True))
    leaked = sum(row in seen for row in zip(*held.texts, strict=True))
    if leaked:
        told.append(
            f"{task.name}: {leaked} of {len(held.label)} validation examples are in train too"
        )
    return told


def _label(task: TaskConfig, label: Any) -> Any:
    """As a person knows it: the name of a class that has one."""
    return label if task.class_names is None else repr(task.class_names[label])


def _conflicts(split: LabelledTexts) -> int:
    labels: dict[tuple[str, ...], set[Any]] = {}
    answers: list[Any] = split.targets or split.label.tolist()
    for row, label in zip(zip(*split.texts, strict=True), answers, strict=True):
        labels.setdefault(row, set()).add(label)
    return Counter(len(found) > 1 for found in labels.values())[True]
