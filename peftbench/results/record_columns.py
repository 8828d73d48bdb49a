"""The files of records as Arrow columns: one row a record, one column a scalar.

Every file is checked as `ResultsFolder.load` checks it. Most records of a folder share their
models, tasks, training configs and environments, and a sweep's seeds share all of their run. So a
file is cut where the layout of `sealed` has these nodes: what has been seen is not parsed again.
"""

import gc
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from peftbench.core.errors import RecordError
from peftbench.core.run import (
    PARTS,
    SCHEMA,
    Json,
    Record,
    Run,
    canonical,
    counted_size,
    counts_in_key,
    flattened,
    identity,
    key_of_text,
    key_text,
    known,
    of_schema,
)
from peftbench.results.store import ResultsFolder
from peftbench.system import io

if TYPE_CHECKING:
    import pyarrow as pa

#: What a method does not choose.
_SHARED = (
    *("model", "task", "prompt", "augmentation", "protocol", "loss_revision", "size"),
    "budget",
)

#: Records of one piece of work: so few that all their values stay in a processor's cache.
_PIECE = 1_000

#: From so many records on, further processes are worth their start.
_MANY = 4_000

#: Distinct nodes of records that a process remembers.
_REMEMBERED = 50_000


def read(results: ResultsFolder, keys: list[str]) -> "tuple[pa.Table, dict[str, str]]":
    """Read records, in several processes if there are many; also why some cannot be read."""
    pieces = [keys[first : first + _PIECE] for first in range(0, len(keys), _PIECE)]
    pieces = pieces or [[]]
    cores = len(os.sched_getaffinity(0))
    if len(keys) < _MANY or cores < 2:
        found = [_read_piece(results.folder, piece) for piece in pieces]
    else:
        spawn = multiprocessing.get_context("spawn")  # Arrow's threads do not survive a fork
        # reading makes no cycles; looking for some would take a fifth of its time
        with ProcessPoolExecutor(min(cores, len(pieces)), spawn, gc.disable) as pool:
            work = pool.map(_read_piece, repeat(results.folder), pieces)
            import pandas  # noqa: F401 - is needed next, and takes a while to load
            import scipy.special  # noqa: F401

            found = list(work)
    unreadable = {key: reason for _, reasons in found for key, reason in reasons.items()}
    return _expanded(joined([table for table, _ in found])), unreadable


def joined(tables: "list[pa.Table]") -> "pa.Table":
    """Tables one below the other; a column of several types becomes one of canonical texts."""
    import pyarrow as pa

    names = dict.fromkeys(chain.from_iterable(table.column_names for table in tables))
    lengths = [len(table) for table in tables]
    columns = {
        name: _one_type(
            [
                table[name] if name in table.schema.names else pa.chunked_array([pa.nulls(length)])
                for table, length in zip(tables, lengths, strict=True)
            ]
        )
        for name in names
    }
    return _leaves_alone(columns)


def _leaves_alone(columns: "dict[str, pa.Array]") -> "pa.Table":
    """A table without columns for what is None in some records and a node in others."""
    import pyarrow as pa

    nodes = {name.rpartition(".")[0] for name in columns} - {"trivial"}  # a column as well
    return pa.table({n: c for n, c in columns.items() if n not in nodes or c.type != pa.null()})


def _one_type(columns: "list[pa.ChunkedArray]") -> "pa.Array":
    """Columns one below the other, as numbers if all are, otherwise as texts."""
    import pyarrow as pa

    types = {column.type for column in columns} - {pa.null()}
    if types == {pa.int64(), pa.float64()}:
        with suppress(pa.ArrowInvalid):  # where there is a whole number that no float is
            columns, types = [column.cast(pa.float64()) for column in columns], {pa.float64()}
    if len(types) > 1:
        columns = [pa.chunked_array([_texts(column.to_pylist())]) for column in columns]
        types = {column.type for column in columns}
    kind = types.pop() if types else pa.null()
    chunks = [chunk for column in columns for chunk in column.cast(kind).chunks]
    whole = pa.chunked_array(chunks, kind)
    return whole.unify_dictionaries().combine_chunks()


# records to columns


def _read_piece(folder: Path, keys: list[str]) -> "tuple[pa.Table, dict[str, str]]":
    """The columns of some records; nodes that many share as JSON, each distinct one once."""
    import pyarrow as pa

    results = ResultsFolder(folder)
    found: list[tuple[Json, Json, _Setting, bytes]] = []
    unreadable: dict[str, str] = {}
    for key in keys:
        try:
            found.append(_read_record(results, key))
        except RecordError as error:
            unreadable[key] = str(error)
    rows = [row for _, row, *_ in found]
    columns = _flat([outcome for outcome, *_ in found]) | _flat(rows)
    columns |= _of_settings([setting for *_, setting, _ in found])
    if found:
        columns["environment"] = _encoded([environment for *_, environment in found])
    for name, kind in _ALWAYS.items():  # also of no records, and the key is not compacted
        columns[name] = pa.array([row[name] for row in rows], kind)
    return pa.table(columns), unreadable


def _of_settings(settings: "list[_Setting]") -> "dict[str, pa.Array]":
    """Columns of the settings of records; of what many share, each distinct recipe once."""
    import pyarrow as pa

    if not settings:
        return {}
    numbers: dict[_Recipe, int] = {}
    places = pa.array([numbers.setdefault(s.recipe, len(numbers)) for s in settings], pa.int32())
    shared = _by_column([recipe.columns for recipe in numbers])
    return {
        **{name: _encoded(values).take(places) for name, values in shared.items()},
        "run.train": _encoded([setting.train for setting in settings]),
        "alike": _encoded([setting.alike for setting in settings]),
    }


#: Columns that are there even without records, and their types: of which file, as it was read.
_ALWAYS = {"key": "string", "file.size": "int64", "file.changed": "int64"}


def _read_record(results: ResultsFolder, key: str) -> "tuple[Json, Json, _Setting, bytes]":
    """A record's file but its run and environment, more about it, its setting, its environment.

    Raises:
        RecordError: if the file is not the whole, unaltered record of this run.
    """
    try:
        body, status = results.record_bytes(key)
        try:
            cut = _cut(body) if io.has_seal(body) else None
        except orjson.JSONDecodeError:
            cut = None
        if cut is None:  # damaged, of another schema, or laid out in another way
            cut = _cut(_laid_out(results.record_json(key)))
    except OSError as error:
        raise RecordError(f"{key}.json cannot be read: {error.strerror}") from error
    if cut is None:
        raise RecordError(f"{key}.json: the seed of its run is not a number")
    setting, (seed, seed_text), environment, outcome = cut
    found = key_of_text(f'{setting.text[0]}"seed":{seed_text}{setting.text[1]}')
    if found != key:
        raise RecordError(f"{key}.json holds the record of another run, {found}")
    row = {"key": key, "file.size": status.st_size, "file.changed": status.st_mtime_ns}
    row["run.seed"] = seed
    row["score"] = outcome["metrics"].get(setting.recipe.metric)
    row["trivial"] = outcome["trivial"].get(setting.recipe.metric)
    row["peak_bytes"] = _peak(outcome["memory"])
    del outcome["curve"], outcome["sha256"]
    return outcome, row, setting, environment


def _peak(memory: Json) -> int | None:
    """The most bytes of training, of the GPU where there is one."""
    for kind in ("cuda_peak_allocated_bytes", "cpu_peak_rss_bytes"):
        if "train" in (phases := memory.get(kind) or {}):
            return phases["train"]
    return None


#: Where `sealed` has the nodes of a record, and the seed in its run.
_RUN, _METRICS = b'{\n "run": ', b',\n "metrics": '
_ENVIRONMENT, _HASHES = b',\n "environment": ', b',\n "predictions_sha256": '
_MEMBER, _SEED = b',\n  "', b',\n  "seed": '

#: The fields that are not cut out of a record.
_OUTCOME = {one.name for one in fields(Record)} - {"run", "environment"} | {"sha256"}
_RUN_PARTS = {one.name for one in fields(Run)} - {"seed"}

#: Fields of a run that are left out where they are None.
_LEFT_OUT: Json = {"role_seeds": None}


def _cut(body: bytes) -> "tuple[_Setting, tuple[Any, str], bytes, Json] | None":
    """The run without its seed, the seed, the environment's JSON, the other fields of a record.

    Where each part is JSON, so is the whole, with these parts as its fields. None if it does not
    have the fields of a record of this schema, or not in the order and layout of `sealed`.

    Raises:
        JSONDecodeError: if a part is not JSON.
    """
    run, _, rest = body.partition(_METRICS)
    middle, _, rest = rest.partition(_ENVIRONMENT)
    environment, _, rest = rest.partition(_HASHES)
    outcome = orjson.loads(b'{"metrics": %b,"predictions_sha256": %b' % (middle, rest))
    if outcome.keys() != _OUTCOME or outcome["schema"] != SCHEMA or not run.startswith(_RUN):
        return None
    before, _, rest = run[len(_RUN) :].rpartition(_SEED)
    seed, _, after = rest.partition(b",")
    setting = _setting(before, after)
    if setting is None:
        return None
    return setting, _seed(seed), _environment(environment), outcome


def _laid_out(data: Json) -> bytes:
    """The record as `sealed` has it, with the seed inside the run, whatever the order was.

    Raises:
        RecordError: if it is of another schema, or a field is missing or unknown.
    """
    known(Record, of_schema("a record", data))
    run = known(Run, _LEFT_OUT | data["run"])
    data = {one.name: data[one.name] for one in fields(Record)}
    names = [one.name for one in fields(Run)]
    data["run"] = {n: run[n] for n in names if n not in _LEFT_OUT or run[n] is not None}
    return io.sealed(data)


@lru_cache(_REMEMBERED)
def _seed(raw: bytes) -> tuple[Any, str]:
    """The seed, and its canonical text."""
    seed = orjson.loads(raw)
    return seed, canonical(seed)


@lru_cache(_REMEMBERED)
def _environment(raw: bytes) -> bytes:
    return orjson.dumps(orjson.loads(raw))


#: Where the seed and the training config will be in the text of a run's key; no JSON has such text.
_NO_SEED, _NO_TRAIN = '"seed":?', '"train":?'


@dataclass(frozen=True, eq=False)
class _Setting:
    """What follows from a run without its seed.

    Attributes:
        recipe: the run without its training config.
        text: of which a key is the hash, before and after the seed.
        train: the training config as JSON.
        alike: equal in settings that are equal.
    """

    recipe: "_Recipe"
    text: tuple[str, str]
    train: bytes
    alike: str


@lru_cache(_REMEMBERED)
def _setting(before: bytes, after: bytes) -> _Setting | None:
    """The setting of a run's JSON on both sides of its seed; None if that is not laid out so."""
    start, end = b'{\n  "', b"\n }"
    if not (before.startswith(start) and after.startswith(start[1:]) and after.endswith(end)):
        return None
    members = [
        *before[len(start) :].split(_MEMBER),
        *after[len(start) - 1 : -len(end)].split(_MEMBER),
    ]
    train, *rest = sorted(map(_part, members), key=_other_than_train)
    recipe = _recipe(tuple(rest)) if train.name == "train" else None
    if recipe is None:
        return None
    first, middle, last = recipe.text
    text = first, f"{middle}{_TRAIN}{train.text}{last}"
    alike = key_of_text(f"{recipe.alike[0]}{_TRAIN}{train.text}{recipe.alike[1]}")
    return _Setting(recipe, text, train.json, alike)


_TRAIN = '"train":'


def _other_than_train(part: "_Part") -> bool:
    return part.name != "train"


@dataclass(frozen=True, eq=False)
class _Recipe:
    """What follows from a run without its seed and training config, which sweeps vary most.

    Attributes:
        metric: the task's primary one.
        text: of which a key is the hash, cut where these two are.
        alike: of which `alike` is the hash, cut where the training config is.
        columns: of the parts as JSON, and those that are made of several.
    """

    metric: str
    text: tuple[str, str, str]
    alike: tuple[str, str]
    columns: Json


@lru_cache(_REMEMBERED)
def _recipe(found: "tuple[_Part, ...]") -> _Recipe | None:
    """The recipe of these parts; None if they are not those of a run."""
    parts = {part.name: part for part in found}
    if len(parts) < len(found) or {*parts, "train", *_LEFT_OUT} != _RUN_PARTS:
        return None
    task = parts["task"].value
    texts = {name: part.text for name, part in parts.items() if part.text is not None}
    texts["size"] = canonical(counted_size(parts["size"].value, task))
    columns: Json = {f"run.{name}": part.json for name, part in parts.items()}
    columns["shared"] = key_of_text(key_text({n: t for n, t in texts.items() if n in _SHARED}))
    prompt, augmentation = parts["prompt"].value, parts["augmentation"].value
    columns["prompt"] = prompt.name if prompt else "head"
    columns["augmentation"] = augmentation.name if augmentation else "none"
    columns["metric"] = task.metric
    without, _, end = key_text(texts | {"train": "?"}).partition(_NO_TRAIN)
    before, _, after = key_text(texts | {"seed": "?", "train": "?"}).partition(_NO_SEED)
    middle, _, last = after.partition(_NO_TRAIN)
    return _Recipe(task.metric, (before, middle, last), (without, end), columns)


@dataclass(frozen=True, eq=False)
class _Part:
    """A field of a run.

    Attributes:
        text: canonical, of its identity; None where it does not count in a run's key.
        json: of its identity.
    """

    name: str
    value: Any
    text: str | None
    json: bytes


@lru_cache(_REMEMBERED)
def _part(member: bytes) -> _Part:
    """The field of which this is the name, without its first quote, and the JSON."""
    name, _, raw = member.partition(b'": ')
    return _made(name.decode(), orjson.loads(raw))


def _made(name: str, value: Any) -> _Part:
    same = value
    if value is not None and name in PARTS:
        value = PARTS[name].from_json(value)
        same = identity(value.to_json())
    text = canonical(same) if counts_in_key(name, value) else None
    # a size is a number or a word, so that its column is one of words
    return _Part(name, value, text, orjson.dumps(str(value) if name == "size" else same))


# values to Arrow


def _flat(rows: list[Json]) -> "dict[str, pa.Array]":
    """The scalars of nodes by path; lists as canonical JSON."""
    import pyarrow as pa

    if not rows:
        return {}
    try:
        return dict(_leaves("", pa.array(rows)))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # values of several types
        flat = map(flattened, rows)
        return {name: _array(values) for name, values in _by_column([*flat]).items()}


def _leaves(prefix: str, node: "pa.StructArray") -> "Iterator[tuple[str, pa.Array]]":
    import pyarrow as pa

    for part, column in zip(node.type, node.flatten(), strict=True):
        if pa.types.is_struct(part.type):
            yield from _leaves(f"{prefix}{part.name}.", column)
        elif not pa.types.is_nested(part.type):
            yield prefix + part.name, _compact(column)
        elif pa.types.is_nested(part.type.value_type):
            raise pa.ArrowTypeError("the nodes of a list have fields of each other")
        else:
            yield prefix + part.name, _texts(column.to_pylist())


def _by_column(rows: list[Json]) -> dict[str, list[Any]]:
    names = dict.fromkeys(chain.from_iterable(rows))
    return {name: [row.get(name) for row in rows] for name in names}


def _array(values: list[Any]) -> "pa.Array":
    """A column of one type; where values are of several, of their canonical texts."""
    import pyarrow as pa

    try:
        return _compact(pa.array(values))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return _texts(values)


def _texts(values: list[Any]) -> "pa.Array":
    import pyarrow as pa

    texts = [v if v is None or isinstance(v, str) else canonical(v) for v in values]
    return _compact(pa.array(texts, pa.string()))


def _compact(column: "pa.Array") -> "pa.Array":
    """The column with each distinct text once."""
    import pyarrow as pa

    return column.dictionary_encode() if pa.types.is_string(column.type) else column


def _encoded(values: list[Any]) -> "pa.Array":
    """Texts or JSON of which equal ones are one object, each distinct one once; or None."""
    import pyarrow as pa

    distinct = [value for value in dict.fromkeys(values) if value is not None]
    numbers = {value: number for number, value in enumerate(distinct)}
    codes = pa.array([numbers.get(value) for value in values], pa.int32())
    return pa.DictionaryArray.from_arrays(codes, pa.array(distinct))


def _expanded(table: "pa.Table") -> "pa.Table":
    """The table with the columns of the nodes instead of their JSON."""
    import pyarrow as pa

    columns: dict[str, pa.Array] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        whole = column.combine_chunks()
        if whole.type != pa.dictionary(pa.int32(), pa.binary()):
            columns[name] = whole
            continue
        nodes = [{name: orjson.loads(raw)} for raw in whole.dictionary.to_pylist()]
        for path, values in _by_column([flattened(node) for node in nodes]).items():
            columns[path] = _array(values).take(whole.indices)
    return _leaves_alone(columns)
