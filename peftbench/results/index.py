"""All scalar fields of all records of a results folder, as columns that are read as needed.

They are kept in one file in the folder, with the size and the time of change of each record's file,
so that only what is new or changed is read again. That file may be removed at any time; one that is
torn, or of another version, is made anew.
"""

import gc
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from peftbench.core.errors import RecordError
from peftbench.core.run import Json, canonical
from peftbench.results.scalars import Node, Reader
from peftbench.results.store import Results
from peftbench.system import io

#: Raised when what `peftbench.results.scalars` gives changes.
VERSION = 1

_HEAD = f"peftbench index {VERSION}\n".encode()
_STAMPS = pa.schema([("key", pa.string()), ("file.size", pa.int64()), ("file.changed", pa.int64())])
_WORDS = pa.dictionary(pa.int32(), pa.string())
_STAMP = _STAMPS.names

#: Records of one piece of work, and how many make processes of their own worth their start.
_PIECE, _MANY = 4_000, 4_000


@dataclass(frozen=True)
class Index:
    """What is known of the records of a folder.

    Attributes:
        unreadable: why, by key; these have no line.
        trouble: why the columns could not be kept for the next time.
    """

    _file: pq.ParquetFile
    unreadable: dict[str, str] = field(default_factory=dict)
    trouble: str | None = None

    @property
    def names(self) -> list[str]:
        """All columns."""
        return [name for name in self._file.schema_arrow.names if name not in _STAMP[1:]]

    def read(self, names: Iterable[str]) -> pa.Table:
        """Columns, one line for each record, by key."""
        return self._file.read(columns=list(names), use_threads=False)

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)


def of(results: Results) -> Index:
    """The index of a folder: as it was kept, but for the records that changed since."""
    stamps = results.stamps()
    state = io.digest(repr(stamps).encode())
    kept, was = _kept(results.cache("index"))
    if kept is not None and was == state:
        return Index(kept)
    given = [pa.array(column) for column in zip(*stamps, strict=True)]
    now = pa.table(given, schema=_STAMPS) if given else _STAMPS.empty_table()
    before = None if kept is None else kept.read(_STAMP).cast(now.schema)
    same = _unchanged(now, before)
    fresh = now["key"].filter(pc.is_null(same)).to_pylist()
    parts: list[pa.Table] = []
    bad: dict[str, str] = {}
    for part, wrong in _read(results, fresh):
        parts.append(part)
        bad |= wrong
    if kept is not None:
        if len(fresh) == len(bad) and kept.metadata.num_rows == len(now) - len(bad):
            return Index(kept, bad)  # nothing new but what cannot be read
        parts.insert(0, kept.read().drop_columns(_STAMP[1:]).take(same.drop_null()))
    body = _written(_united(parts), now)
    head = [state if not bad else "", io.digest(body), ""]
    trouble = None
    try:
        if len(now):
            results.write(results.cache("index"), _HEAD + "\n".join(head).encode() + body)
    except OSError as error:
        trouble = f"{results.cache('index')}: {error.strerror}"
    return Index(_opened(body), bad, trouble)


def _kept(path: Path) -> tuple[pq.ParquetFile | None, str]:
    """What was kept, if it is whole and of this version, and the state of all files then."""
    try:
        whole = path.read_bytes()
    except OSError:
        return None, ""
    magic, *rest = whole.split(b"\n", 3)
    if magic + b"\n" != _HEAD or len(rest) < 3 or rest[1] != io.digest(rest[2]).encode():
        return None, ""
    return _opened(rest[2]), rest[0].decode()


def _opened(body: bytes) -> pq.ParquetFile:
    return pq.ParquetFile(pa.BufferReader(body))


def _unchanged(now: pa.Table, before: pa.Table | None) -> pa.Array:
    """For each file its line in what was kept; null where it is new or changed."""
    if before is None:
        return pa.nulls(len(now), pa.int32())
    line = pc.index_in(now["key"], before["key"]).combine_chunks()
    there = before.take(line)
    alike = [pc.equal(there[name], now[name]) for name in _STAMP[1:]]
    return pc.if_else(pc.and_(*alike).combine_chunks(), line, None)


def _written(columns: pa.Table, now: pa.Table) -> bytes:
    """The columns with the stamps of their files, by key."""
    keys = columns["key"].cast(pa.string())
    if not keys.equals(now["key"]):  # not all read at once, in their order
        columns = columns.take(pc.sort_indices(keys))
        now = now.take(pc.index_in(columns["key"].cast(pa.string()), now["key"]))
    for name in _STAMP[1:]:
        columns = columns.append_column(name, now[name])
    sink = pa.BufferOutputStream()
    pq.write_table(columns, sink, compression="lz4", write_statistics=False)
    body: bytes = sink.getvalue().to_pybytes()
    return body


def _united(parts: list[pa.Table]) -> pa.Table:
    """One under the other; where types of a column differ its values become texts."""
    kinds: dict[str, set[pa.DataType]] = {"key": {_WORDS}}
    for part in parts:
        for column in part.schema:
            kinds.setdefault(column.name, set()).add(column.type)
    types = {name: _kind(found - {pa.null()}) for name, found in sorted(kinds.items())}
    if not parts:
        return pa.table({"key": pa.array([], _WORDS)})
    return pa.concat_tables([_alike(part, types) for part in parts]).unify_dictionaries()


def _kind(found: set[pa.DataType]) -> pa.DataType:
    if len(found) < 2:
        return next(iter(found), pa.null())
    return pa.float64() if found == {pa.int64(), pa.float64()} else _WORDS


def _alike(part: pa.Table, types: dict[str, pa.DataType]) -> pa.Table:
    given = dict(zip(part.column_names, part.columns, strict=True))
    return pa.table({name: _as(given.get(name), kind, part) for name, kind in types.items()})


def _as(
    column: pa.ChunkedArray | None, kind: pa.DataType, part: pa.Table
) -> pa.ChunkedArray | pa.Array:
    if column is None or column.type == pa.null():
        return pa.nulls(len(part), kind)
    if column.type == kind:
        return column
    if kind == pa.float64():
        return column.cast(kind)
    return pa.array([_text(value) for value in column.to_pylist()]).dictionary_encode()


def _read(results: Results, keys: list[str]) -> Iterator[tuple[pa.Table, dict[str, str]]]:
    """Records as columns, piece by piece, in their order."""
    pieces = [keys[first : first + _PIECE] for first in range(0, len(keys), _PIECE)]
    cores = len(os.sched_getaffinity(0))
    if len(keys) < _MANY or cores < 2:
        _open(results.folder)
        yield from map(_piece, pieces)
        return
    with ProcessPoolExecutor(
        min(cores, len(pieces)),
        multiprocessing.get_context("spawn"),  # Arrow has threads, which do not survive a fork
        _begin,
        (results.folder,),
    ) as pool:
        yield from pool.map(_piece, pieces)


_reader: Reader


def _open(folder: Path) -> None:
    """The reader of this process: it remembers what records share."""
    global _reader
    _reader = Reader(Results(folder))


def _begin(folder: Path) -> None:
    gc.disable()  # for a process that only reads: it makes no cycles, looking for them takes time
    sys.meta_path.insert(0, _NoPandas)
    _open(folder)


class _NoPandas:
    """In a process that only reads: Arrow looks for pandas, which takes half a second to load."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def _piece(keys: list[str]) -> tuple[pa.Table, dict[str, str]]:
    """Records as columns; those of nodes that they share are made once for each node."""
    found: list[tuple[int, Json, list[Node]]] = []
    shapes: dict[tuple[str, ...], int] = {}
    bad: dict[str, str] = {}
    for key in keys:
        try:
            own, nodes = _reader.read(key)
        except RecordError as error:
            bad[key] = str(error)
            continue
        found.append((shapes.setdefault(tuple(own), len(shapes)), own, nodes))
    found.sort(key=lambda line: line[0])  # those with the same fields together, as `_columns` asks
    columns = _columns([own for _, own, _ in found])
    for same in zip(*(nodes for _, _, nodes in found), strict=True):
        distinct = {id(node): node for node in same}
        place = {number: line for line, number in enumerate(distinct)}
        at = pa.array([place[id(node)] for node in same])
        made = _columns([node.fields for node in distinct.values()])
        columns |= {name: column.take(at) for name, column in made.items()}
    made = pa.table(columns)
    if len(shapes) > 1:
        made = made.take(pc.sort_indices(made["key"].cast(pa.string())))
    return made, bad


def _columns(lines: list[Json]) -> dict[str, pa.Array]:
    """Of lines of which those with the same fields in the same order stand together."""
    columns: dict[str, list[Any]] = {}
    count = 0
    for shape, alike in groupby(lines, tuple):
        some = [line.values() for line in alike]
        for name, values in zip(shape, zip(*some, strict=True), strict=True):
            column = columns.setdefault(name, [])
            column += [None] * (count - len(column))
            column += values
        count += len(some)
    return {
        name: _column(column + [None] * (count - len(column))) for name, column in columns.items()
    }


def _column(values: list[Any]) -> pa.Array:
    """Of one type; where values are of several, their canonical texts."""
    try:
        made = pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        made = pa.array([_text(value) for value in values])
    return made.dictionary_encode() if pa.types.is_string(made.type) else made


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else canonical(value)
