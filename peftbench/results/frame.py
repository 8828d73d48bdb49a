"""The records of a results folder as a pandas DataFrame: one row a record, one column a scalar.

Columns are named by their dotted path in the record's file, such as `run.train.lr`. They are cached
in the results folder with the size and modification time of each record's file, so that only new
and changed files are read. The cache may be removed at any time; one that is torn or of another
version is made again.

Every file that is read is checked as `Results.load` checks it. Most records of a folder share their
models, tasks, training configs and environments; those are validated once for each distinct one.
"""

import gc
import multiprocessing
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields
from functools import lru_cache
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from peftbench.core.errors import RecordError
from peftbench.core.run import (
    PARTS,
    Json,
    Record,
    Run,
    canonical,
    counts_in_key,
    identity,
    key_of_text,
    key_text,
    known,
    of_schema,
)
from peftbench.results.store import Results
from peftbench.system import io

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

#: Raised when the columns of a record change, so that older caches are not used.
VERSION = 4

_HEAD = f"peftbench frame {VERSION}\n".encode()
_STAMP = ["key", "file.size", "file.changed"]

#: What a method does not choose.
_SHARED = ("model", "task", "prompt", "augmentation", "protocol", "loss_revision", "size")

_FIELDS = {one.name for one in fields(Record)}

#: Peaks of memory in training.
_ON_GPU = "memory.cuda_peak_allocated_bytes.train"
_ON_CPU = "memory.cpu_peak_rss_bytes.train"

#: Records of one piece of work: so few that all their values stay in a processor's cache.
_PIECE = 250

#: From so many records on, further processes are worth their start.
_MANY = 4_000

#: Distinct nodes of records that a process remembers.
_REMEMBERED = 20_000


@dataclass(frozen=True)
class RecordFrame:
    """The readable records of a folder, by key.

    Attributes:
        unreadable: why a record is left out, by its key.
        not_cached: why the columns could not be cached; None if they are.
    """

    _file: "pq.ParquetFile"
    unreadable: dict[str, str] = field(default_factory=dict)
    not_cached: str | None = None

    @property
    def columns(self) -> list[str]:
        """Names of all columns, sorted."""
        return [name for name in self._file.schema_arrow.names if name not in _STAMP[1:]]

    def read(self, columns: Iterable[str] | None = None) -> "pd.DataFrame":
        """Return some columns, or all; each row is a record, in the order of their keys.

        Text is categorical, whole numbers are Int64, truth values boolean, other numbers float64. A
        column with values of several types holds their JSON as text, a list its JSON. What a record
        does not have is missing.
        """
        import pandas as pd
        import pyarrow as pa

        names = self.columns if columns is None else list(columns)
        types = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
        table = self._file.read(names, use_threads=False)
        made: pd.DataFrame = table.to_pandas(types_mapper=types.get, use_threads=False)
        return made[names]

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)


def load_frame(results: Results) -> RecordFrame:
    """Read the records of a folder, those that did not change since the last time from the cache.

    Beside the paths of its file a record has these columns: `key`; `score` and `metric` (the task's
    primary metric and its name); `trivial` (the same of the constant prediction); `peak_bytes` of
    training (of the GPU where there is one); `prompt` and `augmentation`; `alike`, equal in
    records that differ only in their seed; and `shared`, equal in records that differ at most in
    their seed and in what a method chooses.
    """
    stamps = results.stamps()
    path = results.cache("frame")
    cached = _open_cache(path)
    before = [] if cached is None else _stamps(cached)
    if cached is not None and before == stamps:
        return RecordFrame(cached)
    same = set(before) & set(stamps)
    new, unreadable = _read(results, [stamp[0] for stamp in stamps if stamp not in same])
    if cached is not None and not new and len(same) == len(before):
        return RecordFrame(cached, unreadable)  # nothing is new but what cannot be read

    import pyarrow as pa

    table = _table(new, stamps)
    if same:
        assert cached is not None
        kept = cached.read().filter(pa.array([stamp in same for stamp in before]))
        try:
            table = pa.concat_tables([kept, table], promote_options="permissive").sort_by("key")
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # a column has values of a new type
            every, unreadable = _read(results, [stamp[0] for stamp in stamps])
            table = _table(every, stamps)
    body = _parquet(table)
    not_cached = None
    try:
        if stamps:
            results.write(path, _HEAD + io.digest(body).encode() + body)
    except OSError as error:
        not_cached = f"{path}: {error.strerror}"
    return RecordFrame(_open(body), unreadable, not_cached)


# the cache: a line with the version, the SHA-256 of what follows, a parquet file


def _open_cache(path: Path) -> "pq.ParquetFile | None":
    """The cached columns; None where there are none, or they are torn or of another version."""
    try:
        whole = path.read_bytes()
    except OSError:
        return None
    start = len(_HEAD) + 64
    body = whole[start:]
    if whole[:start] != _HEAD + io.digest(body).encode():
        return None
    return _open(body)


def _open(body: bytes) -> "pq.ParquetFile":
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.ParquetFile(pa.BufferReader(body))


def _stamps(cached: "pq.ParquetFile") -> list[tuple[str, int, int]]:
    columns = cached.read(_STAMP, use_threads=False)
    return list(zip(*(columns[name].to_pylist() for name in _STAMP), strict=True))


def _parquet(table: "pa.Table") -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table.select(sorted(table.column_names)), sink, write_statistics=False)
    body: bytes = sink.getvalue().to_pybytes()
    return body


# records to columns

#: Values by column. Bytes are the JSON of a node that many records share, equal ones one object.
_Columns = dict[str, list[Any]]


def _read(results: Results, keys: list[str]) -> tuple[_Columns, dict[str, str]]:
    """Read records, in several processes if there are many; also why some cannot be read."""
    pieces = [keys[first : first + _PIECE] for first in range(0, len(keys), _PIECE)]
    cores = len(os.sched_getaffinity(0))
    if len(keys) < _MANY or cores < 2:
        return _joined([_read_piece(results.folder, piece) for piece in pieces])
    spawn = multiprocessing.get_context("spawn")  # Arrow has threads, which do not survive a fork
    # reading makes no cycles; looking for some would take a fifth of its time
    with ProcessPoolExecutor(min(cores, len(pieces)), spawn, gc.disable) as pool:
        found = pool.map(_read_piece, repeat(results.folder), pieces)
        import pandas  # noqa: F401 - is needed next, and takes a while to load

        return _joined(list(found))


def _joined(
    pieces: list[tuple[_Columns, dict[str, str]]],
) -> tuple[_Columns, dict[str, str]]:
    """Columns one below the other; None where a piece does not have one."""
    columns: _Columns = {}
    unreadable: dict[str, str] = {}
    count = 0
    for piece, reasons in pieces:
        unreadable |= reasons
        for name, values in piece.items():
            column = columns.setdefault(name, [])
            column += [None] * (count - len(column)) + values
        count += len(piece.get("key", []))
    for column in columns.values():
        column += [None] * (count - len(column))
    return columns, unreadable


def _read_piece(folder: Path, keys: list[str]) -> tuple[_Columns, dict[str, str]]:
    results = Results(folder)
    rows: list[Json] = []
    unreadable: dict[str, str] = {}
    for key in keys:
        try:
            rows.append(_read_record(results, key))
        except RecordError as error:
            unreadable[key] = str(error)
    return _by_column(rows), unreadable


def _by_column(rows: list[Json]) -> _Columns:
    names = dict.fromkeys(chain.from_iterable(rows))
    return {name: [row.get(name) for row in rows] for name in names}


def _read_record(results: Results, key: str) -> Json:
    """The columns of a record; those of its environment and of the parts of its run as JSON.

    Raises:
        RecordError: if the file is not a whole, unaltered record of this run.
    """
    try:
        data = of_schema("a record", results.record_json(key))
    except OSError as error:
        raise RecordError(f"{key}.json cannot be read: {error.strerror}") from error
    if data.keys() != _FIELDS:
        known(Record, data)  # says what is missing
    run, environment = data.pop("run"), data.pop("environment")
    del data["curve"]
    seed = run.pop("seed", None)
    setting = _setting(orjson.dumps(run))
    found = key_of_text(setting.text.replace(_NO_SEED, f'"seed":{canonical(seed)}'))
    if found != key:
        raise RecordError(f"{key}.json holds the record of another run, {found}")
    row: Json = {"key": key, "run.seed": seed, **setting.columns}
    row["environment"] = _part("environment", orjson.dumps(environment)).json
    flatten(row, data)
    row["score"] = data["metrics"].get(setting.metric)
    row["trivial"] = data["trivial"].get(setting.metric)
    row["peak_bytes"] = row.get(_ON_GPU if _ON_GPU in row else _ON_CPU)
    return row


#: In the text of a run's key where its seed will be; no JSON holds it elsewhere.
_NO_SEED = '"seed":?'


@dataclass(frozen=True, eq=False)
class _Setting:
    """What follows from a run without its seed.

    Attributes:
        metric: the task's primary one.
        text: of which a key is the hash, with `_NO_SEED`.
        columns: of its parts, and those that are made of several.
    """

    metric: str
    text: str
    columns: Json


@lru_cache(_REMEMBERED)
def _setting(raw: bytes) -> _Setting:
    given = orjson.loads(raw)
    parts = {name: _part(name, orjson.dumps(value)) for name, value in given.items()}
    known(Run, parts | {"seed": None})
    run = Run(seed=0, **{name: part.value for name, part in parts.items()})
    texts = {name: part.text for name, part in parts.items() if counts_in_key(name, part.value)}
    texts["size"] = canonical(run.counted_size)
    columns: Json = {f"run.{name}": part.json for name, part in parts.items()}
    columns["alike"] = key_of_text(key_text(texts))
    columns["shared"] = key_of_text(key_text({n: t for n, t in texts.items() if n in _SHARED}))
    columns["prompt"] = run.prompt.name if run.prompt else "head"
    columns["augmentation"] = run.augmentation.name if run.augmentation else "none"
    columns["metric"] = run.task.metric
    return _Setting(run.task.metric, key_text(texts | {"seed": "?"}), columns)


@dataclass(frozen=True, eq=False)
class _Part:
    """A node of a record: its value, its identity as canonical text and as JSON."""

    value: Any
    text: str
    json: bytes


@lru_cache(_REMEMBERED)
def _part(name: str, raw: bytes) -> _Part:
    value = orjson.loads(raw)
    if value is None or name not in PARTS:
        # a size is a number or a word, so that its column is one of words
        return _Part(value, canonical(value), orjson.dumps(str(value)) if name == "size" else raw)
    config = PARTS[name].from_json(value)
    same = identity(config.to_json())
    return _Part(config, canonical(same), orjson.dumps(same))


def flatten(found: Json, node: Json, prefix: str = "") -> None:
    """Add scalars by path; a method inside a method also by its name; lists as canonical JSON."""
    for name, value in node.items():
        if value.__class__ is dict:
            if "name" in value and f"{prefix}{name}".startswith("run.method"):
                found[prefix + name] = value["name"]
            flatten(found, value, f"{prefix}{name}.")
        elif value.__class__ is list:
            found[prefix + name] = canonical(value)
        else:
            found[prefix + name] = value


# columns to a table


def _table(columns: _Columns, stamps: list[tuple[str, int, int]]) -> "pa.Table":
    """All columns of records, with the stamps of their files."""
    import pyarrow as pa

    keys = columns.get("key", [])
    readable = set(keys)
    files = [stamp for stamp in stamps if stamp[0] in readable]  # in the order of the keys
    made = {
        name: pa.array([stamp[place] for stamp in files], pa.int64())
        for place, name in enumerate(_STAMP[1:], 1)
    }
    for name, values in columns.items():
        if isinstance(values[0], bytes):
            made |= _expanded(name, values)
        else:
            made[name] = _array(values)
    return pa.table(made | {"key": pa.array(keys, pa.string())})


def _expanded(path: str, nodes: list[bytes]) -> "dict[str, pa.Array]":
    """The columns of nodes, made once for each distinct one."""
    import pyarrow as pa

    numbers = {raw: number for number, raw in enumerate(dict.fromkeys(nodes))}
    rows: list[Json] = [{} for _ in numbers]
    for row, raw in zip(rows, numbers, strict=True):
        flatten(row, {path: orjson.loads(raw)})
    line = pa.array([numbers[raw] for raw in nodes])
    return {name: _array(values).take(line) for name, values in _by_column(rows).items()}


def _array(values: list[Any]) -> "pa.Array":
    """A column of one type; where values are of several, of their canonical texts."""
    import pyarrow as pa

    try:
        made = pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        made = pa.array([v if v is None or isinstance(v, str) else canonical(v) for v in values])
    return made.dictionary_encode() if pa.types.is_string(made.type) else made
