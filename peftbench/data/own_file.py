"""A user's own data file as a table: csv, tsv, json, jsonl or parquet, with the line of each row.

A file is hashed when it is read: `read_table` refuses bytes that are not those of the plan.
"""

import io
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peftbench.core.errors import ConfigError, first_line
from peftbench.core.text import close_names, did_you_mean
from peftbench.data import delimited
from peftbench.system.io import digest, hash_file

#: What a data file may be, by its ending.
FORMATS = {".csv": ",", ".tsv": "\t", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}

#: Parsed tables that are kept, by the hash of their bytes: planning reads a file for several runs.
_PARSED: dict[tuple[Any, ...], "FileTable"] = {}
_MOST_PARSED = 2

_AS_LINES = "one object a line: df.to_json(PATH, orient='records', lines=True)"


@dataclass
class FileTable:
    """The columns of a file.

    Attributes:
        path: of the file.
        names: of all columns; a name may stand twice.
        columns: by name; of a parquet file only those that were asked for.
        rows: the place of each row in the file.
        unit: what these places count: lines of a text file, examples of a list, rows of a table.
        notes: what was read otherwise than it stands there.
        made: what was made of the columns, by what it is: tables are kept and asked again.
        texts, label: the columns that `task.texts` and `task.label` name, where overrides can.
    """

    path: Path
    names: list[str]
    columns: dict[str, list[Any]]
    rows: list[int]
    unit: str
    notes: list[str] = field(default_factory=list)
    made: dict[Any, Any] = field(default_factory=dict, repr=False)
    texts: Sequence[str] = ()
    label: str | None = None

    def column(self, name: str) -> list[Any]:
        """The values of a column.

        Raises:
            ConfigError: if there is no such column, or several.
        """
        if name not in self.columns:
            raise ConfigError(
                f"{self.path} has no column {name!r}; {did_you_mean(name, self.names)}"
                f"{self._header_hint()}{self._key_hint(name)}"
            )
        if self.names.count(name) > 1:
            places = [str(i + 1) for i, other in enumerate(self.names) if other == name]
            raise ConfigError(
                f"{self.path}: {name!r} is the name of columns {' and '.join(places)}; "
                "rename all but one"
            )
        return self.columns[name]

    def _parted_by(self) -> str:
        """What the one name of all columns seems to hold between them; empty if nothing."""
        found = [d for d in ";\t|," if len(self.names) == 1 and d in self.names[0]]
        return found[0] if found else ""

    def _header_hint(self) -> str:
        if between := self._parted_by():
            what = "tabs" if between == "\t" else f"{between!r}"
            return f" (its columns seem to be separated by {what}: save it with commas, or as .tsv)"
        if FORMATS[self.path.suffix.lower()] in ",\t":
            return " (the first line of a file holds the names of its columns)"
        return ""

    def _key_hint(self, name: str) -> str:
        """The override that names another column in place of a missing one."""
        if name not in (*self.texts, self.label) or self._parted_by():
            return ""
        taken = {*self.texts, self.label} - {name}
        left = [
            column
            for column, cells in self.columns.items()
            if column not in taken and not any(isinstance(cell, list | dict) for cell in cells)
        ]
        near = close_names(name, left)
        if name == self.label:
            return f"; set task.label={near[0] if near else 'COLUMN'}"
        if not left:
            return ""
        longest = max(left, key=lambda column: sum(len(str(cell)) for cell in self.columns[column]))
        texts = [(near or [longest])[0] if text == name else text for text in self.texts]
        return f"; set 'task.texts=[{','.join(texts)}]'"

    def where(self, places: Iterable[int]) -> str:
        """Where rows with these numbers are in the file, the first few of them."""
        return self.named([self.rows[place] for place in places])

    def named(self, numbers: Sequence[int]) -> str:
        """Lines or rows with these numbers, the first few of them."""
        if len(numbers) == 1:
            return f"{self.unit} {numbers[0]}"
        more = f" and {len(numbers) - 5:,} more" if len(numbers) > 5 else ""
        return f"{self.unit}s {', '.join(map(str, numbers[:5]))}{more}"


def content_of(path: Path) -> str:
    """The hash of a file that is to be read now.

    Raises:
        ConfigError: if its ending is none of `FORMATS`, or it cannot be read.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"{path} is none of {', '.join(FORMATS)}: the ending says which")
    try:
        return hash_file(path)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def check_unchanged(path: str, expected: str) -> None:
    """Refuse a file that is not the one of the plan.

    Raises:
        ConfigError: if it is gone or has changed.
    """
    _bytes(Path(path), expected)


def read_table(
    path: str,
    expected: str,
    texts: Sequence[str],
    label: str,
    quoting: str | None,
    every: bool = False,
    keep_empty: bool = False,
) -> FileTable:
    """Read a file, if it is still the one of the plan.

    Args:
        path: of the file.
        expected: its SHA-256.
        texts: columns of the texts.
        label: column of the labels.
        quoting: see `delimited.read_rows`.
        every: also read the other columns of a parquet file.
        keep_empty: also the rows of a csv or tsv whose cells are all empty.

    Raises:
        ConfigError: if it has changed, or is not a table; with the line.
    """
    body = _bytes(Path(path), expected)
    key = (path, expected, *texts, label, quoting, every, keep_empty)
    if key not in _PARSED:
        while len(_PARSED) >= _MOST_PARSED:
            del _PARSED[next(iter(_PARSED))]
        _PARSED[key] = _parsed(Path(path), body, texts, label, quoting, every, keep_empty)
    return _PARSED[key]


def _bytes(path: Path, expected: str) -> bytes:
    try:
        body = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if (found := digest(body)) != expected:
        raise ConfigError(
            f"{path} has changed since it was planned (SHA-256 {expected[:12]}, now {found[:12]}); "
            "give the same command again to plan with what it holds now"
        )
    return body


def _parsed(
    path: Path,
    body: bytes,
    texts: Sequence[str],
    label: str,
    quoting: str | None,
    every: bool,
    keep_empty: bool,
) -> FileTable:
    kind = FORMATS[path.suffix.lower()]
    if kind == "parquet":
        return _parquet(path, body, None if every else [*texts, label])
    text = _decoded(path, body)
    if kind == "json":
        return _json(path, text)
    rows = delimited.read_rows(path, text, kind, quoting, label, texts, keep_empty)
    columns = dict(zip(rows.names, map(list, zip(*rows.cells, strict=True)), strict=True))
    return FileTable(path, rows.names, columns, rows.lines, "line", rows.notes)


def _decoded(path: Path, body: bytes) -> str:
    """The text of a file.

    Raises:
        ConfigError: if it is not UTF-8, with the line.
    """
    marks = {b"\xff\xfe\x00\x00": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
    for mark, name in marks.items():
        if body.startswith(mark):
            raise ConfigError(f"cannot read {path}: line 1 starts as in {name}; save as UTF-8")
    if (zero := body.find(b"\x00")) >= 0:
        raise ConfigError(
            f"cannot read {path}: line {_line(body[:zero])} holds a zero byte, as in UTF-16; "
            "save as UTF-8"
        )
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        bad = error.object[error.start]
        raise ConfigError(
            f"cannot read {path}: line {_line(error.object[: error.start])} is not UTF-8 (byte "
            f"0x{bad:02x}, as in Latin-1 or Windows-1252); save as UTF-8"
        ) from None


def _line(before: bytes) -> int:
    """The line of what follows these bytes."""
    return len(re.findall(rb"\r\n|\r|\n", before)) + 1


# json


def _json(path: Path, text: str) -> FileTable:
    """Objects one a line, a list of objects, or an object of columns as pandas writes it.

    Raises:
        ConfigError: with the line or the example, if it is none of these.
    """
    try:
        found, places, unit = _json_values(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"cannot read {path}: line {error.lineno}: {error.msg}") from None
    except _RepeatedKey as error:
        raise ConfigError(f"cannot read {path}: {error}; keep one of them") from None
    except (ValueError, RecursionError) as error:  # integers of thousands of digits, deep lists
        raise ConfigError(f"cannot read {path}: {error}") from None
    if places is None:
        return _json_columns(path, found[0])
    for value, place in zip(found, places, strict=True):
        if not isinstance(value, dict):
            raise ConfigError(
                f"cannot read {path}: {unit} {place} holds {_kind(value)} where an object is "
                f"expected; write {_AS_LINES}"
            )
    if not found:
        raise ConfigError(f"cannot read {path}: it holds no examples")
    names = list(dict.fromkeys(name for value in found for name in value))
    columns = {name: _uniform([value.get(name) for value in found]) for name in names}
    return FileTable(path, [str(name) for name in names], columns, places, unit)


class _RepeatedKey(ValueError):
    """An object with the same key twice, of which json keeps the last."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _RepeatedKey(f"an object has the key {twice!r} twice")
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _json_values(text: str) -> tuple[list[Any], list[int] | None, str]:
    """Values, the place of each and what places count; one object of columns has no places.

    A list may stand on one line, so that its elements are counted.
    """
    start = len(text) - len(text.lstrip())
    if text[start : start + 1] == "[":
        values = _elements(text, start + 1)
        return values, list(range(1, len(values) + 1)), "example"
    filled = [(n, line) for n, line in enumerate(io.StringIO(text), 1) if line.strip()]
    try:
        first = json.loads(filled[0][1]) if filled else None
    except json.JSONDecodeError:
        if len(filled) == 1:
            raise
        whole = _DECODER.decode(text)
        return [whole], [filled[0][0]] if _scalars(whole) else None, "line"
    if len(filled) == 1 and isinstance(first, dict) and not _scalars(first):
        return [_DECODER.decode(text)], None, "line"
    values = []
    for number, line in filled:
        try:
            values.append(_DECODER.decode(line))
        except json.JSONDecodeError as error:
            raise json.JSONDecodeError(error.msg, "\n" * (number - 1), number - 1) from None
        except _RepeatedKey as error:
            raise _RepeatedKey(f"line {number}: {error}") from None
    return values, [number for number, _ in filled], "line"


def _elements(text: str, place: int) -> list[Any]:
    """The elements of a list that starts before `place`."""
    values: list[Any] = []
    blank = re.compile(r"[\s]*")

    def skip(place: int) -> int:
        found = blank.match(text, place)
        assert found is not None
        return found.end()

    place = skip(place)
    while text[place : place + 1] != "]":
        try:
            value, place = _DECODER.raw_decode(text, place)
        except _RepeatedKey as error:
            raise _RepeatedKey(f"example {len(values) + 1}: {error}") from None
        values.append(value)
        place = skip(place)
        if text[place : place + 1] == ",":
            place = skip(place + 1)
        elif text[place : place + 1] != "]":
            raise json.JSONDecodeError("a comma or the end of the list is missing", text, place)
    if text[place + 1 :].strip():
        raise json.JSONDecodeError("something follows the list", text, skip(place + 1))
    return values


def _scalars(value: Any) -> bool:
    return isinstance(value, dict) and not any(isinstance(v, dict | list) for v in value.values())


def _json_columns(path: Path, value: Any) -> FileTable:
    """An object of columns: {"text": {"0": …, "1": …}, …} or {"text": […], …}."""
    columns = list(value.values()) if isinstance(value, dict) else []
    kinds = {type(column) for column in columns}
    keys: list[Any] = []
    if kinds in ({dict}, {list}):
        keys = [list(c) if isinstance(c, dict) else len(c) for c in columns]
    if not keys or any(key != keys[0] for key in keys):
        names = ", ".join(map(repr, list(value)[:5])) if isinstance(value, dict) else ""
        held = f"an object with the keys {names[:200]}" if names else _kind(value)
        raise ConfigError(
            f"cannot read {path}: it holds {held}, neither examples nor columns of one length; "
            f"write {_AS_LINES}"
        )
    lists = {n: list(c.values()) if isinstance(c, dict) else c for n, c in value.items()}
    count = len(next(iter(lists.values())))
    if not count:
        raise ConfigError(f"cannot read {path}: it holds no examples")
    return FileTable(
        path,
        [str(name) for name in lists],
        {str(name): _uniform(column) for name, column in lists.items()},
        list(range(1, count + 1)),
        "example",
    )


def _uniform(values: list[Any]) -> list[Any]:
    """Numbers of one kind: where one of a column has a fraction, 1 is 1.0 as well."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    filled = sum(value is not None for value in values)
    if len(numbers) == filled and any(isinstance(value, float) for value in numbers):
        return [None if value is None else as_float(value) for value in values]
    return values


def as_float(value: int | float | str) -> float:
    """A number as float, infinite where it is too large for one."""
    try:
        return float(value)
    except OverflowError:  # of an integer
        return math.inf


def _kind(value: Any) -> str:
    names: dict[Any, str] = {dict: "an object", list: "a list", bytes: "bytes", str: "a text"}
    names[bool] = "true or false"
    return names.get(type(value), "null" if value is None else "a number")


# parquet


def _parquet(path: Path, body: bytes, wanted: Iterable[str] | None) -> FileTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(body))
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"cannot read {path}: {first_line(error)}") from error
    names = list(map(str, table.column_names))
    columns = {
        name: table.column(names.index(name)).to_pylist()
        for name in (names if wanted is None else wanted)
        if name in names
    }
    if not table.num_rows:
        raise ConfigError(f"cannot read {path}: it holds no examples")
    return FileTable(path, names, columns, list(range(1, table.num_rows + 1)), "row")


# cells


def text_cells(table: FileTable, name: str) -> list[str]:
    """A column as texts; what is missing is empty.

    Raises:
        ConfigError: naming the row, if a cell is a list, an object or bytes.
    """
    values = table.column(name)
    bad = [i for i, value in enumerate(values) if isinstance(value, dict | list | bytes)]
    if bad:
        raise ConfigError(
            f"{table.path}: {table.where(bad)}: column {name!r} holds {_kind(values[bad[0]])} "
            "where a text is expected; write the text itself into a column"
        )
    texts = ["" if is_missing(value) else str(value) for value in values]
    refuse_halves(table, name, texts)
    return texts


def refuse_halves(table: FileTable, name: str, cells: list[str]) -> None:
    """Refuse cells with half of a character, as JSON has it where an emoji was cut in two.

    No tokenizer takes them, and no file can be written with them.

    Raises:
        ConfigError: naming the rows.
    """
    try:
        "".join(cells).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        bad = [i for i, cell in enumerate(cells) if _HALF.search(cell)]
        raise ConfigError(
            f"{table.path}: {table.where(bad)}: column {name!r} holds half of a character "
            f"({half.encode('unicode_escape').decode()}), as of an emoji that was cut in two; "
            "remove it"
        ) from None


_HALF = re.compile("[\ud800-\udfff]")


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing."""
    return value is None or (isinstance(value, float) and math.isnan(value))
