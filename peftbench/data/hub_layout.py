"""Files of data sets in the hub's layout, from the hub or a folder, and the hash of their rows."""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from glob import escape
from pathlib import Path
from typing import Any

from peftbench.core.configs import TaskConfig
from peftbench.core.errors import ConfigError, first_line
from peftbench.core.run import canonical
from peftbench.system import io, offline_folder


def file_patterns(task: TaskConfig, split: str) -> list[str]:
    """The patterns of the names of a split's files, below the folder of the data set."""
    source, split = task.source, task.stored(split)
    named = (source.get("files") or {}).get(split) or f"{source.get('config')}/{split}-*.parquet"
    return list(named) if isinstance(named, list) else [str(named)]


def root_of(task: TaskConfig, root: str | None) -> str | None:
    """The folders in which a task's data are looked for; None is the hub.

    `task=hub` means the hub, whatever other data are in `data.root`; a prefetched folder has both.
    """
    if "format" not in task.source:
        return root
    here = offline_folder.folder()
    called = offline_folder.called(str(task.source["hub"]), task.source["revision"])
    return None if here is None else str(here / "data" / called)


def folders_of(root: str) -> Iterator[Path]:
    """The folders that a root names, in the order in which they are searched.

    Raises:
        ConfigError: at the first one that is not there.
    """
    for part in root.split(os.pathsep):
        folder = Path(part).expanduser()
        if not folder.is_dir():
            raise ConfigError(
                f"data.root={root}: {folder} is not a folder; give a folder of data sets, or null "
                "for the hub"
            )
        yield folder


def find_files(task: TaskConfig, split: str, root: str | None) -> list[Path]:
    """The files of a split: those that the source names, else as the hub lays them out.

    Raises:
        ConfigError: if there are none, some are missing, or some are there twice.
    """
    source, root = task.source, root_of(task, root)
    patterns = file_patterns(task, split)
    if root is None:
        if source["hub"] is None:
            raise ConfigError(
                f"{task.name} is on no hub: data.root=FOLDER (or PEFTBENCH_DATA) with {patterns[0]}"
            )
        from peftbench.system.hub import snapshot

        here = snapshot(source["hub"], source["revision"], patterns, kind="dataset")
        return _matching(here, patterns)
    folders = []
    for folder in folders_of(root):  # one that is not there may stand behind the right one
        folders.append(folder)
        if found := _matching(folder, patterns):
            _check_shards(found)
            return found
    whose = f" in the layout of {source['hub']}" if source["hub"] else ""
    several = f"; several are parted by {os.pathsep!r}"
    raise ConfigError(
        f"{task.name}: no {patterns[0]} in {', '.join(map(str, folders))}; data.root is a folder"
        f"{whose}, or null for the hub{several}"
    )


def _matching(folder: Path, patterns: list[str]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]


def _check_shards(paths: list[Path]) -> None:
    """Refuse files of a split of which some are missing, or are there twice.

    Raises:
        ConfigError: naming them.
    """
    parts = [re.search(r"-(\d+)-of-(\d+)\.", path.name) for path in paths]
    totals = {int(part[2]): path.name for part, path in zip(parts, paths, strict=True) if part}
    if len(totals) > 1:
        raise ConfigError(
            f"{paths[0].parent} holds a split more than once: {' and '.join(totals.values())}; "
            "leave the files of one of them"
        )
    for total in totals:
        numbers = {int(part[1]) for part in parts if part}
        if missing := sorted(set(range(total)) - numbers):
            raise ConfigError(
                f"{paths[0].parent}: of the {total} files of {paths[0].name} and others number "
                f"{missing[0]} is missing; copy it there"
            )
    if len(paths) > 1:
        by_content: dict[str, Path] = {}
        for path in paths:
            if (same := by_content.setdefault(io.hash_files((path,)), path)) is not path:
                raise ConfigError(
                    f"{path.parent}: {same.name} and {path.name} hold the same bytes, so that "
                    "their examples would count twice; remove one"
                )


def rows_sha256(task: TaskConfig, root: str) -> str | None:
    """SHA-256 of the texts and labels of all splits, whatever files they are in.

    Args:
        task: of the hub.
        root: folders of data sets in the hub's layout.

    Returns:
        The hash, or None where not all of its splits are there.

    Raises:
        ConfigError: if a file cannot be read, or is there twice.
    """
    splits = sorted({*task.splits.values(), *task.extra.values()})
    folders = [Path(part).expanduser() for part in root.split(os.pathsep)]
    if not all(any(_matching(f, file_patterns(task, s)) for f in folders) for s in splits):
        return None
    found = [tuple(find_files(task, split, root)) for split in splits]
    stamps = tuple(tuple(map(io.file_stamp, paths)) for paths in found)
    columns = (*task.texts, task.label)
    if (stamps, columns) not in _ROWS:
        digest = hashlib.sha256()
        for split, paths in zip(splits, found, strict=True):
            held = _columns(paths, columns)
            try:
                text = canonical([split, *(held.get(name) for name in columns)])
            except (TypeError, ValueError) as error:
                raise ConfigError(
                    f"{paths[0]}: texts and labels must be text and finite numbers: {error}"
                ) from error
            digest.update(text.encode())
        _ROWS[stamps, columns] = digest.hexdigest()
    return _ROWS[stamps, columns]


_ROWS: dict[tuple[Any, ...], str] = {}


def _columns(paths: tuple[Path, ...], names: tuple[str, ...]) -> dict[str, list[Any]]:
    """Columns of files, past the datasets library where they are parquet: planning is quick."""
    if paths[0].suffix != ".parquet":
        return read_files("json", list(paths))
    import pyarrow as pa
    import pyarrow.parquet as pq

    held: dict[str, list[Any]] = {name: [] for name in names}
    for path in paths:
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(f"cannot read {path}: {first_line(error)}") from error
        for name in set(names) & set(table.column_names):
            held[name] += table.column(name).to_pylist()
    return held


def read_files(
    kind: str, paths: list[Path], options: dict[str, Any] | None = None
) -> dict[str, list[Any]]:
    """Read files through the datasets library, past its cache: ours holds tokens, once.

    Args:
        kind: the library's name of the format.
        paths: of the files.
        options: for the library's reader of that format.

    Raises:
        ConfigError: if one cannot be read.
    """
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
                **options or {},
            )
        except Exception as error:  # the library's own, pyarrow's: all mean a bad file
            cause = error.__cause__ or error
            raise ConfigError(f"cannot read {paths[0]}: {first_line(cause)}") from error
        return {name: read[name][:] for name in read.column_names}
