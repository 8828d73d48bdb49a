"""The results folder: the only module that knows a path in it.

A run has a record or it has not; that file is the only state. Whatever is written is drafted
first and moved to its place whole. A run in flight is claimed, see `system.run_locks`.
"""

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from peftbench.core.errors import ClosedFileError, ConfigError, OtherSchemaError, RecordError
from peftbench.core.evaluation import Evaluated, Evaluation, Job, cluster_job_of, job_json
from peftbench.core.failures import Failure
from peftbench.core.run import Json, Record, Run
from peftbench.system import io, run_locks

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

KEY = re.compile(r"[0-9a-f]{12}")
_FILES = re.compile(rf"(?<=/){KEY.pattern}(?=\.json/)")

#: Folders in which a run, an evaluation or its supervisor writes.
_WRITTEN = (
    *("cache", "checkpoints", "drafts", "evaluations", "failures", "logs", "predictions"),
    *("records", "trained"),
)


def _order(run: Run) -> tuple[str, str, str, str, int, str]:
    return run.task.name, str(run.size), run.model.name, run.method.name, run.seed, run.key


class ResultsFolder:
    """A results folder.

    Args:
        folder: made when the first run is claimed; one that is committed is no different.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._claims = run_locks.Claims(self.folder / "claims", self.folder / "claim_files")

    def log(self, key: str) -> Path:
        """The output of the worker while it had the run."""
        return self._path("logs", key, ".log")

    def checkpoint(self, key: str) -> Path:
        """The state of an unfinished training; removed when its record is there."""
        return self._path("checkpoints", key, ".safetensors")

    def checkpoints(self) -> list[Path]:
        """Every such file, sorted."""
        paths = sorted((self.folder / "checkpoints").glob("*.safetensors"))
        return [path for path in paths if KEY.fullmatch(path.stem)]

    def trained(self, key: str) -> Path:
        """What the method trained, where a run was asked to keep it."""
        return self._path("trained", key, ".safetensors")

    def kept(self, start: str) -> list[Path]:
        """Files of trained weights of the runs whose keys start so."""
        if not re.fullmatch(r"[0-9a-f]{4,12}", start):
            return []
        return sorted((self.folder / "trained").glob(f"{start}*.safetensors"))

    def with_evaluations(self, key: str) -> Iterator[str]:
        """A key and then, if it is a run's, those of its evaluations, as they are by then."""
        yield key
        for other in self.evaluations():
            try:
                if self.evaluated(other).evaluation.run.key == key:
                    yield other
            except (OSError, RecordError):  # one that cannot be read is removed by its own key
                continue

    def files_of(self, key: str) -> list[Path]:
        """All files of a run or evaluation; of a run, those of its evaluations too.

        The record comes first: without it, what an interrupted removal leaves is no result.
        """
        keys = list(self.with_evaluations(key))
        paths = (
            path
            for kind in dict.fromkeys(("records", *_WRITTEN))
            for one in keys
            for path in sorted((self.folder / kind).glob(f"{one}.*"))
        )
        return list(paths)

    def _path(self, kind: str, key: str, suffix: str) -> Path:
        if not KEY.fullmatch(key):
            raise RecordError(f"a run's key is 12 hexadecimal digits, got {key!r}")
        return self.folder / kind / (key + suffix)

    def cache(self, name: str) -> Path:
        """What peftbench keeps to be quick; it may be removed at any time."""
        return self.folder / "cache" / name

    def submissions(self) -> Path:
        """What peftbench/cluster/manifest.py keeps: what was handed to a scheduler."""
        return self.folder / "submissions"

    def choices(self) -> Path:
        """The folder of the learning rates that were chosen, see `results.choices`."""
        return self.folder / "choices"

    def trials(self) -> "ResultsFolder":
        """The runs of which choices were made."""
        return ResultsFolder(self.folder / "trials")

    def trackers(self) -> Path:
        """Files of TensorBoard and the like, see `runner.tracking`; nothing here reads them."""
        return self.folder / "trackers"

    def state(self) -> str:
        """Another text whenever a record, an evaluation or a choice came or went."""
        times = []
        for kind in ("records", "evaluations", "choices"):
            try:
                times.append(str((self.folder / kind).stat().st_mtime_ns))
            except FileNotFoundError:
                times.append("")
        return "-".join(times)

    def reports(self) -> Path:
        """The folder of the tables and plots made from these records."""
        return self.folder / "reports"

    def revisions(self) -> dict[str, str]:
        """Commits that were used for repositories of the hub which were named without one.

        By `models/NAME` and `datasets/NAME`. The same words mean the same commit in this folder.

        Raises:
            RecordError: if the file is torn or was altered.
        """
        try:
            found: dict[str, str] = io.unsealed(self.folder / "revisions.json")
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return found

    def keep_revisions(self, found: Mapping[str, str], renewed: Collection[str] = ()) -> None:
        """Keep commits for later commands; those that are kept already stay.

        Args:
            found: by `models/NAME` and `datasets/NAME`.
            renewed: of these, the ones that replace what was kept.

        Raises:
            OSError: if the folder cannot be written to.
        """
        before = self.revisions()
        after = {**found, **before} | {label: found[label] for label in renewed}
        if after != before:
            body = io.sealed(dict(sorted(after.items())))
            self.write(self.folder / "revisions.json", body)

    # records

    def has(self, key: str) -> bool:
        """Whether the run is done."""
        return self._path("records", key, ".json").exists()

    def keys(self) -> list[str]:
        """Keys of all records, sorted."""
        return self._keys("records")

    def record_json(self, key: str) -> Json:
        """The content of a record's file.

        Raises:
            OSError: if it cannot be read.
            RecordError: if it is not what was written.
        """
        return io.unsealed_bytes(self.record_bytes(key)[0], f"{self.folder}/records/{key}.json")

    def record_bytes(self, key: str) -> tuple[bytes, os.stat_result]:
        """The unchecked bytes of a record's file, and its status from before they were read.

        Raises:
            OSError: if it cannot be read.
        """
        return io.quickly(f"{self.folder}/records/{key}.json")  # a Path takes longer than reading

    def stamps(self) -> "pa.Table":
        """Columns of the files of records: key, file.size in bytes, file.changed in nanoseconds.

        In the order of keys. Size and time of modification are missing where a link leads nowhere.
        """
        import pyarrow as pa
        import pyarrow.compute as pc
        from pyarrow import fs

        # without the interpreter's lock, so beside what other threads do
        folder = fs.FileSelector(str(self.folder / "records"), allow_not_found=True)
        files = fs.LocalFileSystem().get_file_info(folder)
        names = pa.array([file.base_name for file in files], pa.string())
        columns = {
            "key": pc.utf8_slice_codeunits(names, 0, -len(".json")),
            "file.size": pa.array([file.size for file in files], pa.int64()),
            "file.changed": pa.array([file.mtime_ns for file in files], pa.int64()),
        }
        found = pa.table(columns).filter(pc.match_substring_regex(names, rf"^{KEY.pattern}\.json$"))
        if len(self._names("records")) != len(files):
            broken = sorted(set(self.keys()) - set(found["key"].to_pylist()))
            more = {"key": pa.array(broken, pa.string())}
            found = pa.concat_tables([found, pa.table(more)], promote_options="default")
        return found.sort_by("key")

    def _keys(self, kind: str) -> list[str]:
        # one search in all names takes a third of one in each; no name has a slash
        return sorted(_FILES.findall("/".join(["", *self._names(kind), ""])))

    def _names(self, kind: str) -> list[str]:
        folder = self.folder / kind
        return os.listdir(folder) if folder.is_dir() else []

    def save(
        self,
        record: Record,
        predictions: "dict[str, np.ndarray]",
        trained: bytes | None = None,
    ) -> Record:
        """Write the record with its predictions, or nothing; return it with their hashes.

        The predictions (and trained weights) go first: a record is never without them.

        Raises:
            OSError: if the disk is full or the folder cannot be written to.
        """
        key = record.run.key
        record = replace(
            record, predictions_sha256=self._write_arrays("predictions", key, predictions)
        )
        if trained is not None:
            record = replace(record, trained_sha256=io.digest(trained))
            self.write(self.trained(key), trained)
        self._write_json("records", key, record.to_json())
        self._path("failures", key, ".json").unlink(missing_ok=True)
        self.checkpoint(key).unlink(missing_ok=True)
        return record

    def adopt(self, other: "ResultsFolder", made: "Record | Evaluated") -> bool:
        """Copy a record or an evaluation of another folder, after its predictions and weights.

        Of these only files that are as they were saved with it; they replace files of their name
        that are not. Returns whether its predictions are here; weights may have been removed on
        purpose.

        Raises:
            OtherSchemaError, ClosedFileError: if here is one of its key that cannot be read.
            OSError: if the disk is full or the folder cannot be written to.
        """
        done = self.done(made.run if isinstance(made, Record) else made.evaluation)
        if isinstance(made, Record):
            kind, key = "records", made.run.key
            parts = {
                ("predictions", ".npz"): made.predictions_sha256,
                ("trained", ".safetensors"): made.trained_sha256,
            }
        else:
            kind, key = "evaluations", made.evaluation.key
            parts = {("evaluations", ".npz"): made.predictions_sha256}
        whole = True
        for (folder, suffix), digest in parts.items():
            path = self._path(folder, key, suffix)
            if digest is None or (path.is_file() and io.hash_file(path) == digest):
                continue
            try:
                self.write(path, io.checked(other._path(folder, key, suffix), digest))
            except RecordError:
                whole = whole and folder == "trained"
        if not done:
            body = io.read_bytes(other._path(kind, key, ".json"))
            self.write(self._path(kind, key, ".json"), body)
            self._path("failures", key, ".json").unlink(missing_ok=True)
        return whole

    def load(self, key: str) -> Record:
        """Read the record of a run.

        Raises:
            FileNotFoundError: if the run has none.
            RecordError: if the file is not what was written.
        """
        record = Record.from_json(self._read_json("records", key))
        if record.run.key != key:
            raise RecordError(f"{key}.json holds the record of another run, {record.run.key}")
        return record

    def key_of(self, start: str, keys: Iterable[str] | None = None) -> str:
        """The one key that begins with these digits.

        Args:
            start: of the key.
            keys: among which; those of records by default.

        Raises:
            RecordError: if none does, or more than one.
        """
        found = [key for key in (self.keys() if keys is None else keys) if key.startswith(start)]
        if len(found) != 1:
            several = f"{len(found)} keys begin with {start}: {', '.join(sorted(found)[:4])}"
            raise RecordError(
                several if found else f"no record in {self.folder} begins with {start}"
            )
        return found[0]

    def scan(self) -> tuple[list[Record], dict[str, str]]:
        """Read all records: the good ones, and what is wrong with each of the others.

        Their order, and so what is summed in which order, does not depend on their keys where
        anything else tells them apart.
        """
        good, bad = io.readable(self.keys(), self.load)
        return sorted(good, key=lambda record: _order(record.run)), bad

    def predictions(self, record: Record) -> "dict[str, np.ndarray]":
        """Arrays over the reporting split: item, label, scores.

        Raises:
            RecordError: if the file is not the one that was saved with the record.
        """
        return self._read_arrays("predictions", record.run.key, record.predictions_sha256)

    def weights(self, record: Record) -> bytes:
        """What the method trained, as the bytes of a safetensors file.

        Raises:
            ConfigError: if the run was not asked to keep it.
            RecordError: if the file is not the one that was saved with the record.
        """
        self.require_weights(record)
        return io.checked(self.trained(record.run.key), record.trained_sha256)

    def require_weights(self, record: Record) -> None:
        """Refuse a run whose weights were not kept, without reading them.

        Raises:
            ConfigError: if the run was not asked to keep them, or they are gone.
        """
        key = record.run.key
        if record.trained_sha256 is None or not self.trained(key).is_file():
            raise ConfigError(
                f"no weights of {key} were saved; `peftbench rm {key} --yes` removes its record, "
                "then run it again with --save-weights"
            )

    # evaluations

    def evaluations(self) -> list[str]:
        """Keys of all evaluations, sorted."""
        return self._keys("evaluations")

    def save_evaluated(self, found: Evaluated, predictions: "dict[str, np.ndarray]") -> Evaluated:
        """Write what an evaluation found with its predictions, or nothing.

        Raises:
            OSError: if the disk is full or the folder cannot be written to.
        """
        key = found.evaluation.key
        found = replace(
            found, predictions_sha256=self._write_arrays("evaluations", key, predictions)
        )
        self._write_json("evaluations", key, found.to_json())
        self._path("failures", key, ".json").unlink(missing_ok=True)
        self.checkpoint(key).unlink(missing_ok=True)
        return found

    def evaluated(self, key: str) -> Evaluated:
        """Read what an evaluation found.

        Raises:
            FileNotFoundError: if it was not made.
            RecordError: if the file is not what was written.
        """
        found = Evaluated.from_json(self._read_json("evaluations", key))
        if found.evaluation.key != key:
            raise RecordError(f"{key}.json holds another evaluation, {found.evaluation.key}")
        return found

    def scan_evaluated(self) -> tuple[list[Evaluated], dict[str, str]]:
        """Read all evaluations, as `scan` does records."""
        good, bad = io.readable(self.evaluations(), self.evaluated)
        return sorted(
            good, key=lambda e: (e.evaluation.suite["name"], *_order(e.evaluation.run))
        ), bad

    def evaluated_predictions(self, found: Evaluated) -> "dict[str, np.ndarray]":
        """Arrays of an evaluation, as `scores/SET`.

        Raises:
            RecordError: if the file is not the one that was saved with it.
        """
        return self._read_arrays("evaluations", found.evaluation.key, found.predictions_sha256)

    def _write_arrays(self, kind: str, key: str, arrays: "dict[str, np.ndarray]") -> str:
        body = io.packed(arrays)
        self.write(self._path(kind, key, ".npz"), body)
        return io.digest(body)

    def _read_arrays(self, kind: str, key: str, digest: str | None) -> "dict[str, np.ndarray]":
        return io.unpacked(self._path(kind, key, ".npz"), digest)

    # jobs

    def done(self, job: Job) -> bool:
        """Whether a job was done by anyone; what is damaged is to be made again.

        So is an evaluation of other weights than those of the record that is here now.

        Raises:
            OtherSchemaError: if it was done by an older or newer peftbench.
            ClosedFileError: if its file cannot be read, so that nobody knows.
        """
        try:
            if not isinstance(job, Evaluation):
                self.load(job.key)
                return True
            found = self.evaluated(job.key)
        except (OtherSchemaError, ClosedFileError):  # it may be good work
            raise
        except (FileNotFoundError, RecordError):
            return False
        try:
            return found.of_weights(self.load(job.run.key).trained_sha256)
        except (FileNotFoundError, RecordError):
            return True

    def refresh(self, job: Job) -> None:
        """Let a record appear that another machine has just written.

        NFS remembers for up to a minute that a file was not there, until this machine changes the
        folder.
        """
        folder = self.folder / ("evaluations" if isinstance(job, Evaluation) else "records")
        if folder.is_dir():
            probe = folder / io.own_name(Path("probe"))
            probe.touch()
            probe.unlink(missing_ok=True)  # `gc` may have found it

    def fail(self, failure: Failure) -> Failure:
        """Note why a run has no record; counts attempts."""
        try:
            before = self.failure(failure.job.key)
        except RecordError:  # a torn note is overwritten by the news
            before = None
        failure = failure.after(before)
        fields = ("kind", "reason", "attempts", "seconds", "by_kind")
        data = job_json(failure.job) | {name: getattr(failure, name) for name in fields}
        self._write_json("failures", failure.job.key, data)
        return failure

    def failed(self) -> list[str]:
        """Keys of all runs and evaluations that have failed, sorted; some may be done since."""
        return self._keys("failures")

    def diverged(self) -> list[Run]:
        """Runs without a record whose training diverged, by key."""
        found = []
        for key in self.failed():
            with suppress(RecordError):  # a torn note says nothing
                note = None if self.has(key) else self.failure(key)
                if note and note.kind == "diverged" and isinstance(note.job, Run):
                    found.append(note.job)
        return found

    def failure(self, key: str) -> Failure | None:
        """Why a run has no record or an evaluation no findings, if it was tried."""
        try:
            data = self._read_json("failures", key)
        except FileNotFoundError:
            return None
        told = (data["kind"], data["reason"], data["attempts"], data.get("seconds"))
        return Failure(cluster_job_of(data), *told, data.get("by_kind", {}))

    # claims

    def check_claims(self) -> str | None:
        """Try a claim before work; return what is odd about claims in this folder.

        Raises:
            ConfigError: if none can be taken, with what to do.
        """
        return self._claims.check_locking()

    def claim(self, key: str) -> bool:
        """Take the run for this process, unless another process has it.

        Raises:
            OSError: if the file system takes no claim, which `check_claims` tells before work.
        """
        return self._claims.take(key)

    def claimed_by(self, key: str) -> str:
        """Who has a run that cannot be claimed, as far as it is known."""
        return self._claims.holder(key)

    def release(self, key: str) -> None:
        """Give a claimed run back."""
        self._claims.give_back(key)

    def remove_claims(self, is_over: Callable[[str], bool]) -> None:
        """Remove claims by file of jobs of a cluster that are over.

        Args:
            is_over: whether a job is, by SUBMISSION/TASK.
        """
        self._claims.remove(is_over)

    def check_writable(self) -> None:
        """Refuse early a folder into which no record could be written.

        Raises:
            ConfigError: saying why.
        """
        probe = self.folder / "drafts" / io.own_name(Path("probe"))
        try:
            self.write(probe, b"peftbench")
            probe.unlink(missing_ok=True)  # `gc` may have found it
        except PermissionError as error:
            there = next(path for path in probe.parents if os.path.exists(path))
            raise ConfigError(run_locks.not_writable(self.folder, there)) from error
        except OSError as error:
            raise ConfigError(
                f"cannot write to the results folder {self.folder}: {error.strerror}; "
                "free it or choose another one with --results"
            ) from error
        for path in (self.folder, *(self.folder / kind for kind in _WRITTEN)):
            if not os.access(path, os.W_OK | os.X_OK) and path.is_dir():
                raise ConfigError(run_locks.not_writable(self.folder, path))

    # files

    def write(self, path: Path, body: bytes) -> None:
        """Put `body` at `path`, whole or not at all; its draft carries the run's key."""
        io.write_whole(path, body, self.folder / "drafts")

    def drafts(self) -> list[Path]:
        """Every draft, sorted: of files that are being written, and of killed processes."""
        beside = (io.drafts_in(self.folder / kind) for kind in _WRITTEN if kind != "drafts")
        return sorted([*(self.folder / "drafts").glob("*"), *chain(*beside)])

    def drop_drafts(self, key: str) -> None:
        """Remove what a killed process left of a run; only for the holder of its claim."""
        for draft in self.drafts():
            if draft.name.startswith(f"{key}."):
                draft.unlink(missing_ok=True)

    def _write_json(self, kind: str, key: str, data: Json) -> None:
        self.write(self._path(kind, key, ".json"), io.sealed(data))

    def _read_json(self, kind: str, key: str) -> Json:
        return io.unsealed(self._path(kind, key, ".json"))
