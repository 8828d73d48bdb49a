"""The records of a results folder as a pandas DataFrame: one row a record, one column a scalar.

Columns are named by their dotted path in the record's file, such as `run.train.lr`. They are cached
in the results folder with the size and modification time of each record's file, so that only new
and changed files are read. The cache may be removed at any time; one that is torn or of another
version is made again.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftbench.core.run import Run
from peftbench.core.tuning import Choice
from peftbench.results import choices, record_columns
from peftbench.results.store import ResultsFolder
from peftbench.results.tuned import Tuned
from peftbench.system import io

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

#: Raised when the columns of a record change, so that older caches are not used.
VERSION = 6

_HEAD = f"peftbench frame {VERSION}\n".encode()
_STAMP = ["key", "file.size", "file.changed"]

#: The column that is not cached, since a choice may be newer than the record.
_TUNED = "tuned"


@dataclass(frozen=True)
class RecordFrame:
    """The readable records of a folder, by key.

    Attributes:
        unreadable: why a record is left out, by its key.
        not_cached: why the columns could not be cached; None if they are.
        suites: more columns, of some records, by key.
    """

    _file: "pq.ParquetFile"
    _results: ResultsFolder
    unreadable: dict[str, str] = field(default_factory=dict)
    not_cached: str | None = None
    suites: "pd.DataFrame | None" = None

    @property
    def columns(self) -> list[str]:
        """Names of all columns, sorted."""
        names = [name for name in self._file.schema_arrow.names if name not in _STAMP[1:]]
        names += [] if self.suites is None else list(self.suites.columns)
        return sorted([*names, _TUNED]) if len(self) else names

    @cached_property
    def _choices(self) -> tuple[list[Choice], dict[str, str]]:
        return choices.scan(self._results)

    @property
    def unreadable_choices(self) -> list[str]:
        """Why a choice is left out, for each that is."""
        return [*self._choices[1].values()]

    @cached_property
    def tuned(self) -> Tuned:
        """Records with a learning rate that was chosen, by a choice that can be read."""
        known = self._choices[0]
        if not known or not len(self):
            return Tuned()
        names = self._file.read(["key", "run.method.name", "run.task.name"]).to_pydict()
        cells = {(choice.run.method.name, choice.run.task.name) for choice in known}
        keys = [key for key, *cell in zip(*names.values(), strict=True) if tuple(cell) in cells]
        return Tuned.from_runs((self._results.load(key).run for key in keys), known)

    @cached_property
    def diverged(self) -> list[Run]:
        """Runs that are no row, as their training diverged."""
        return self._results.diverged()

    def read(self, columns: Iterable[str] | None = None) -> "pd.DataFrame":
        """Return some columns, or all; each row is a record, in the order of their keys.

        Text is categorical, whole numbers are Int64, truth values boolean, other numbers float64. A
        column with values of several types holds their JSON as text, a list its JSON. What a record
        does not have is missing.
        """
        import pandas as pd
        import pyarrow as pa

        wanted = self.columns if columns is None else list(columns)
        names = [name for name in wanted if name != _TUNED]
        if _TUNED in wanted and "key" not in names:
            names.append("key")
        types = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
        more = [] if self.suites is None else [name for name in names if name in self.suites]
        own = dict.fromkeys([*(name for name in names if name not in more), *["key"] * bool(more)])
        table = self._file.read(list(own), use_threads=False)
        made: pd.DataFrame = table.to_pandas(types_mapper=types.get, use_threads=False)
        if self.suites is not None and more:
            made = made.join(self.suites[more], on="key")
        if _TUNED in wanted:
            made[_TUNED] = made["key"].isin(list(self.tuned.choices)).astype("boolean")
        return made[wanted]

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)


def load_frame(results: ResultsFolder) -> RecordFrame:
    """Read the records of a folder, those that did not change since the last time from the cache.

    Beside the paths of its file a record has these columns: `key`; `score` and `metric` (the task's
    primary metric and its name); `trivial` (the same of the constant prediction); `peak_bytes` of
    training (of the GPU where there is one); `prompt` and `augmentation`; `tuned`, whether the
    learning rate is the one that the folder's choices hold for it; `alike`, equal in
    records that differ only in their seed (`Run.cell_key`); and `shared`, equal in records that
    differ at most in their seed and in what a method chooses.
    """
    path = results.cache("frame")
    with ThreadPoolExecutor(1) as aside:
        listing = aside.submit(results.stamps) if path.exists() else None
        cached = _open_cache(path)
        if cached is not None:
            import pandas  # noqa: F401 - is needed next, and takes as long as the listing
    if cached is None or listing is None:
        table, unreadable = record_columns.read(results, results.keys())
    else:
        stamps = listing.result()
        before = cached.read(_STAMP).select(_STAMP)
        if before.equals(stamps):
            return RecordFrame(cached, results)
        was, now = _rows(before), _rows(stamps)
        same = set(was) & set(now)
        table, unreadable = record_columns.read(results, [row[0] for row in now if row not in same])
        if not len(table) and len(same) == len(was):
            return RecordFrame(
                cached, results, unreadable
            )  # nothing is new but what cannot be read
        if same:
            kept = cached.read().filter([row in same for row in was])
            table = record_columns.joined([kept, table]).sort_by("key")
    body = _parquet(table)
    not_cached = None
    try:
        if len(table) or unreadable:
            results.write(path, _HEAD + io.digest(body).encode() + body)
    except OSError as error:
        not_cached = f"{path}: {error.strerror}"
    return RecordFrame(_open(body), results, unreadable, not_cached)


def _rows(table: "pa.Table") -> list[tuple[Any, ...]]:
    return list(zip(*table.to_pydict().values(), strict=True))


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


def _parquet(table: "pa.Table") -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table.select(sorted(table.column_names)), sink, write_statistics=False)
    body: bytes = sink.getvalue().to_pybytes()
    return body
