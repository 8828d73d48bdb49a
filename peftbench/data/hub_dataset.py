"""A data set of the hub as its repository describes it: its files, configurations and label names.

The datasets library finds these, in a folder with the repository's metadata and empty files of the
repository's names: no code of a repository is run, and no more is fetched than is read. What was
found at a commit is remembered.
"""

import dataclasses
import fnmatch
import json
import os
import tempfile
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any

from peftbench.core.configs import TaskConfig
from peftbench.core.errors import ConfigError
from peftbench.core.run import Json
from peftbench.core.text import did_you_mean
from peftbench.data import hub_layout, own_labels
from peftbench.data.own_file import FileTable
from peftbench.system import hub, memo

#: The formats that are read, by the datasets library's module for them.
FORMATS = ("parquet", "csv", "json")

#: Files of a repository that say what its other files are.
_ABOUT = ("README.md", ".huggingface.yaml", "dataset_infos.json")

#: Of csv files: an empty cell alone is missing, as in a user's own file. pandas would also take
#: texts and labels for missing that say None, null, NA, n/a or nan.
_CSV_OPTIONS: Json = {"keep_default_na": False, "na_values": [""]}

#: Values of a configuration of the datasets library that say nothing about reading a file.
_NO_OPTIONS = ("name", "version", "data_dir", "data_files", "description", "features")


def known(task: TaskConfig, classes: int | None) -> Json | None:
    """What `describe` found before, here; None for nothing, or where texts were read as missing."""
    found: Json | None = memo.recall("datasets", inputs(task, classes))
    if found is not None and found["source"]["format"] == "csv":
        options = found["source"].get("options") or {}
        return found if options.keys() >= _CSV_OPTIONS.keys() else None
    return found


def inputs(task: TaskConfig, classes: int | None) -> list[Any]:
    """What a description depends on, as plain data."""
    source = [task.source[name] for name in ("hub", "revision", "config")]
    return [*source, task.kind, classes, task.texts, task.label, task.splits, task.extra]


def describe(task: TaskConfig, classes: int | None) -> Json:
    """Fetch the splits of a task, and say how they are read.

    Args:
        task: whose source has hub, revision (a commit) and config (a name or None).
        classes: how many, where the user says so.

    Returns:
        `source`: the task's, with format, files by split and options for reading them; class_names
        (None for a regression); examples by split.

    Raises:
        ConfigError: if there is no such data set, configuration, split or column, or if the labels
            cannot be used.
    """
    name, commit = str(task.source["hub"]), str(task.source["revision"])
    asked = inputs(task, classes)
    with tempfile.TemporaryDirectory() as scratch:
        builder = _builder(name, _skeleton(name, commit, Path(scratch)), task.source["config"])
        source, names = _layout(name, builder, Path(scratch) / "files", task)
    source = task.source | source
    task = dataclasses.replace(task, source=source)
    made: dict[str, FileTable] = {}
    for split in _stored(task):
        files = hub_layout.find_files(task, split, None)
        names = names or _parquet_names(files[0], task)
        made[split] = read(task, split, files, names if not task.regression else None)
    if task.regression:
        names = None
    elif names is None:
        names = own_labels.class_names(made[task.splits["train"]], task.label, classes)
    elif classes not in (None, len(names)):
        raise ConfigError(f"task.classes={classes}, but {name} has {len(names)} labels: {names}")
    found = {
        "source": source,
        "class_names": names,
        "examples": {split: len(table.rows) for split, table in made.items()},
    }
    memo.remember("datasets", asked, found)
    return found


def read(task: TaskConfig, split: str, files: list[Path], names: list[str] | None) -> FileTable:
    """The table of a split, with the names of classes in place of their numbers.

    Args:
        task: with a described source.
        split: as the data set calls it.
        files: of the split.
        names: of the classes as the data set numbers them; None where it does not.

    Raises:
        ConfigError: if a column is missing, or if labels are.
    """
    source = task.source
    columns = hub_layout.read_files(source["format"], files, source.get("options") or {})
    place = Path(f"{source['hub']}/{split}.{source['format']}")
    count = len(next(iter(columns.values()), []))
    table = FileTable(place, list(columns), columns, list(range(1, count + 1)), "row")
    for text in task.texts:
        table.column(text)
    label = table.column(task.label)
    if names is not None:
        columns[task.label] = label = [_name(value, names) for value in label]
    lost = [i for i, value in enumerate(label) if value is None]
    if lost:
        raise ConfigError(
            f"{source['hub']}: {len(lost)} of {count} labels in the split {split} are missing "
            f"({table.where(lost)}), so it cannot be scored; choose another one: "
            "task.validation=SPLIT"
        )
    return table


def _name(value: Any, names: list[str]) -> str | None:
    """A label of a data set that names its classes, by number or by name; -1 is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return names[value] if 0 <= value < len(names) else None if value == -1 else str(value)
    return None if value is None else str(value)


def _skeleton(name: str, commit: str, scratch: Path) -> Path:
    """A folder with the metadata of a repository, and empty files in place of the others."""
    folder = scratch / "files"
    files = hub.file_names(name, commit, "dataset")
    for file in files:
        if ".." not in (parts := PurePosixPath(file).parts) and not file.startswith("/"):
            path = folder.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    if about := [file for file in _ABOUT if file in files]:
        here = hub.snapshot(name, commit, about, kind="dataset")
        for file in about:
            (folder / file).write_bytes((here / file).read_bytes())
    return folder


def _builder(name: str, folder: Path, config: str | None) -> Any:
    """The datasets library's reader of a repository, from the names of its files.

    Raises:
        ConfigError: if the library finds no data, or several configurations and none is given.
    """
    import datasets

    try:
        return datasets.load_dataset_builder(
            str(folder), name=config, cache_dir=str(folder.with_name("cache"))
        )
    except Exception as error:  # the library's own: all mean that the repository is no data set
        lines = str(error).replace(str(folder), name).splitlines()
        reason = " ".join(line.strip() for line in lines[:2]) or type(error).__name__
        raise ConfigError(f"task.dataset={name}, task.config={config or 'null'}: {reason}") from (
            error
        )


def _layout(
    name: str, builder: Any, folder: Path, task: TaskConfig
) -> tuple[Json, list[str] | None]:
    """The source of a task with its files, and the names of its classes if the repository says."""
    kind = type(builder).__module__.rpartition(".")[2]
    if kind not in FORMATS:
        raise ConfigError(
            f"task.dataset={name} has its data as {kind}; {', '.join(FORMATS)} are read: save it "
            "in one of them, and give it as task=file"
        )
    splits = {str(split): list(files) for split, files in builder.config.data_files.items()}
    for key, split in {**task.splits, **task.extra}.items():
        if (split := task.stored(split)) not in splits:
            others = [f"task.validation={s}" for s in splits if s != task.splits["train"]]
            say = [*others, "task.validation_fraction=0.2, which holds out a part of train"]
            hint = f"; use {' or '.join(say)}" if key == "validation" else ""
            raise ConfigError(
                f"task.dataset={name} has no split {split!r}; there are {', '.join(splits)}{hint}"
            )
    features = dict(builder.info.features or {})
    for column in [*task.texts, task.label] if features else []:
        if column not in features:
            raise ConfigError(
                f"task.dataset={name} has no column {column!r}; {did_you_mean(column, features)}"
            )
    root = os.path.realpath(folder)
    files = {
        split: [escape(os.path.relpath(os.path.realpath(file), root)) for file in splits[split]]
        for split in _stored(task)
    }
    options = {
        field.name: value
        for field in dataclasses.fields(builder.config)
        if field.name not in _NO_OPTIONS
        and (value := getattr(builder.config, field.name)) != _default(field)
    }
    if kind == "csv":
        options = _CSV_OPTIONS | options
    source: Json = {"config": builder.config.name, "format": kind, "files": files}
    if options:
        source["options"] = json.loads(json.dumps(options))
    return source, _names(features.get(task.label))


def _stored(task: TaskConfig) -> list[str]:
    """The splits of the data set that are read."""
    return list(dict.fromkeys(map(task.stored, [*task.splits.values(), *task.extra.values()])))


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _parquet_names(path: Path, task: TaskConfig) -> list[str] | None:
    """The names of classes that the datasets library wrote into a parquet file."""
    if not fnmatch.fnmatch(path.name, "*.parquet"):
        return None
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        features = datasets.Features.from_arrow_schema(pq.read_schema(path))
    except (pa.ArrowException, OSError, ValueError):  # `read` says what is wrong with it
        return None
    return _names(features.get(task.label))


def _names(feature: Any) -> list[str] | None:
    """The names of a ClassLabel's classes; None for another type of column."""
    names = getattr(feature, "names", None)
    return None if names is None else [str(name).strip() for name in names]
