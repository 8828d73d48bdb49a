"""Bring results folders of schema 1 (peftbench before 0.2) to schema 2.

Keys of configurations have other names since, and a run's key no longer holds the paths of classes.
Nothing is trained again: records, predictions, evaluations, kept weights, notes of
failures and logs get the names and keys of today, and JSON files the seal of today. A checkpoint
says only the key of its run: where no note of a failure says more, the run starts again.

Regressions of either schema whose predictions hardly vary (`metrics.base.FLAT`) are marked as
collapsed, and have no correlation, as those that are trained today.

A record is verified first; one that was altered, or that cannot be said today, stays as it is and
is named. The new files are there before the old ones go, so the script may be killed at any time
and started again; on a folder that is up to date it does nothing. `peftbench report`
writes the tables again.

usage: uv run python scripts/migrate_records.py FOLDER [FOLDER …]
"""

import argparse
import fcntl
import hashlib
import json
import os
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from peftbench.config import catalog
from peftbench.core.configs import class_name
from peftbench.core.errors import RecordError
from peftbench.core.evaluation import Evaluated, Evaluation
from peftbench.core.run import SCHEMA, Json, Record, Run, canonical
from peftbench.metrics import task_metrics
from peftbench.results.store import ResultsFolder
from peftbench.system import io

# Names of schema 1 stand here, not only in `old_names`, which forgets them after a release.

PARTS = {"form": "prompt", "augment": "augmentation", "select": "checkpoint_selection"}

#: Keys of a part.
KEYS = {
    "train": {
        "batch": "batch_size",
        "micro_batch": "micro_batch_size",
        "clip": "max_grad_norm",
        "warmup": "warmup_steps",
        "schedule": "lr_scheduler_type",
        "evaluations": "num_evals",
    },
    "prompt": {"words": "verbalizer", "demonstrations": "num_demonstrations"},
    "augmentation": {"part": "probability"},
    "suite": {"chain": "posterior_as_prior"},
    "model_family": {"words": "language_model"},
}

#: Hyper-parameters by the class that has them.
HYPERPARAMETERS = {
    "LoRA": {"targets": "target_modules", "power": "rank_scaling", "decompose": "use_dora"},
    "Peft": {"targets": "target_modules"},
    "BitFit": {"at": "target_modules"},
}
CLASSES = {
    "peftbench.methods.hybrid.Hybrid": ("combined", "peftbench.methods.combined.Combined"),
    "peftbench.suites.rounds.Rounds": ("continual", "peftbench.suites.continual.Continual"),
}


Made = TypeVar("Made")


class Stays(ValueError):
    """Why a file is left as it is."""


# what a run says


def renamed(node: Json, names: dict[str, str]) -> Json:
    """The node with some of its keys renamed."""
    return {names.get(key, key): value for key, value in node.items()}


def run_of(old: Json) -> Json:
    """A run's JSON of schema 2 from that of schema 1.

    Raises:
        Stays: if it cannot be said in schema 2.
    """
    if old["train"]["warmup"] >= 1:
        raise Stays("a warm-up of the whole budget; train.warmup_steps=1 would be one step")
    new = renamed({"form": None, "augment": None} | old, PARTS)
    model = renamed(old["model"], {"parts": "family_config"})
    family = renamed(model["family_config"], KEYS["model_family"])
    if family.get("language_model"):
        family["language_model"] = renamed(family["language_model"], {"class": "kind"})
    new["model"] = model | {"family_config": family}
    new["method"] = method_of(old["method"])
    new["task"] = task_of(old["task"])
    new["train"] = renamed(old["train"], KEYS["train"])
    if new["prompt"]:
        new["prompt"] = renamed(new["prompt"], KEYS["prompt"])
    if new["augmentation"]:
        new["augmentation"] = renamed(new["augmentation"], KEYS["augmentation"])
    return new | {"loss_revision": 1}


def method_of(old: Any) -> Any:
    """A method's node, and those of the methods inside it."""
    if not isinstance(old, dict):
        return old
    node = {key: method_of(value) for key, value in old.items()}
    if "_target_" not in node:
        return node
    kind = node["_target_"].rpartition(".")[2]
    node = renamed(node, HYPERPARAMETERS.get(kind, {}) | {"host": "base_method"})
    return identified("method", node)


def identified(group: str, node: Json) -> Json:
    """A node with the name and class of today, and what identifies a user's own."""
    name, target = CLASSES.get(node["_target_"], (node["name"], node["_target_"]))
    if node["_target_"] in CLASSES and node["name"] not in ("hybrid", "rounds"):
        name = node["name"]  # a user's own option
    found = node | {"_target_": target, "name": name}
    if catalog.packaged_targets(group).get(name) != target:
        found["implementation"] = class_name(target)
    return found


def task_of(old: Json) -> Json:
    """A task's node; a generated one is called synthetic."""
    if "builtin" not in old.get("source", {}):
        return old
    source = {"synthetic": synthetic(old["source"]["builtin"])}
    return old | {"name": synthetic(old["name"]), "source": source}


def synthetic(name: str) -> str:
    """The name of a generated task, or of what is called after one."""
    return name.replace("builtin_", "synthetic_")


def suite_of(old: Json) -> Json:
    """A suite's node."""
    node = identified("suite", renamed(old, KEYS["suite"]))
    if isinstance(node.get("targets"), dict):
        node["targets"] = {synthetic(name): asked_of(t) for name, t in node["targets"].items()}
    if isinstance(node.get("sequence"), list):
        node["sequence"] = [asked_of(target) for target in node["sequence"]]
    return node


def asked_of(old: Json) -> Json:
    """One of the tasks that a suite asks about."""
    return old | {"task": task_of(old["task"])}


def everywhere(value: Any, change: Callable[[str], str]) -> Any:
    """Plain data with all its names and texts changed."""
    if isinstance(value, dict):
        return {change(name): everywhere(inner, change) for name, inner in value.items()}
    if isinstance(value, list):
        return [everywhere(inner, change) for inner in value]
    return change(value) if isinstance(value, str) else value


# what schema 1 was


_ASIDE = {"about", "parts", "package", "path", "validation_path", "examples"}


def old_key(run: Json) -> str:
    """The key that a run had."""
    parts = {name: _identity(part) for name, part in run.items() if part is not None}
    total, size = run["task"].get("examples", {}).get("train"), run["size"]
    if total and size == "full":
        parts["size"] = total
    elif total and isinstance(size, float):
        parts["size"] = max(1, round(size * total))
    else:
        parts["size"] = size
    return _short(parts)


def old_evaluation_key(run: Json, suite: Json) -> str:
    """The key that an evaluation had."""
    return _short([old_key(run), _asked(suite)])


def _short(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:12]


def _identity(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _identity(inner) for name, inner in value.items() if name not in _ASIDE}
    return value


def _asked(value: Any) -> Any:
    if isinstance(value, dict):
        told = {n: inner for n, inner in value.items() if n not in _ASIDE - {"examples"}}
        return {n: _identity(inner) if n == "task" else _asked(inner) for n, inner in told.items()}
    return [_asked(inner) for inner in value] if isinstance(value, list) else value


def unsealed(path: Path) -> Json:
    """The content of a file with the seal of schema 1.

    Raises:
        Stays: if it is torn or was altered.
    """
    try:
        data: Any = json.loads(path.read_bytes())
        seal = data.pop("sha256", None)
    except (ValueError, AttributeError) as error:
        raise Stays("it is not whole") from error
    if seal != io.digest(canonical(data).encode()):
        raise Stays("it was altered: its content does not hash to what it says")
    return dict(data)


# folders


class Migration:
    """Of one results folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.results = ResultsFolder(folder)
        self.keys: dict[str, str] = {}
        self.moved: dict[str, int] = {}
        self.stays: dict[str, str] = {}

    def migrate(self) -> None:
        """Do all that is to do."""
        with self._alone():
            records = self._old("records", lambda data: (data["run"], None))
            evaluations = self._old(
                "evaluations", lambda d: (d["evaluation"]["run"], d["evaluation"]["suite"])
            )
            new_records = self._made(records, self._new_record)
            new_evaluations = self._made(evaluations, self._new_evaluation)
            failures = self._failures()
            self._others()  # first: once the JSON files are new, nothing tells the old keys
            for path, data in new_records.items():
                self._record(path, data)
            for path, (data, arrays) in new_evaluations.items():
                self._evaluation(path, data, arrays)
            for path, data in failures.items():
                self._replace(path, data)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody trains into this folder meanwhile."""
        claims = self.folder / "claims"
        there = claims.exists()
        with open(claims, "a+b") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                sys.exit(f"{self.folder}: runs are in flight; stop them first")
            yield
        if not there:
            claims.unlink()

    def _old(
        self, kind: str, parts: Callable[[Json], tuple[Json, Json | None]]
    ) -> dict[Path, Json]:
        """Files of schema 1 with their content; fills in the keys of their runs and suites."""
        found = {}
        for path in sorted((self.folder / kind).glob("*.json")):
            try:
                if json.loads(path.read_bytes()).get("schema") == SCHEMA:
                    continue
                data = unsealed(path)
                run, suite = parts(data)
                was = old_key(run) if suite is None else old_evaluation_key(run, suite)
                if was != path.stem:
                    raise Stays(f"it holds another one, {was}")
                self.keys[was] = new_key(run, suite)
                found[path] = data
            except (Stays, ValueError, KeyError, TypeError, AttributeError) as error:
                self.stays[f"{kind}/{path.name}"] = str(error)
        return found

    def _made(self, olds: dict[Path, Json], make: Callable[[Path, Json], Made]) -> dict[Path, Made]:
        """What is made of each file, before anything is written; what cannot be made stays."""
        found = {}
        for path, data in olds.items():
            try:
                found[path] = make(path, data)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                self.stays[f"{path.parent.name}/{path.name}"] = str(error)
                del self.keys[path.stem]
        return found

    def _new_record(self, path: Path, data: Json) -> Json:
        new = data | {"run": run_of(data["run"]), "schema": SCHEMA}
        new["work"] = renamed(data["work"], {"micro_batch": "micro_batch_size"})
        if "packed_with" in new["work"]:
            others = new["work"]["packed_with"].split()
            new["work"]["packed_with"] = " ".join(self.keys.get(key, key) for key in others)
        Record.from_json(new)
        return new

    def _record(self, path: Path, new: Json) -> None:
        self._copy("predictions", path.stem, ".npz")
        self._copy("trained", path.stem, ".safetensors")
        self._replace(path, new)
        self._drop("predictions", path.stem, ".npz")
        self._drop("trained", path.stem, ".safetensors")

    def _new_evaluation(self, path: Path, data: Json) -> tuple[Json, bytes | None]:
        """An evaluation, and its arrays where names in them are others."""
        run, suite = data["evaluation"]["run"], data["evaluation"]["suite"]
        new = data | {
            "evaluation": {"run": run_of(run), "suite": suite_of(suite)},
            "findings": everywhere(data["findings"], synthetic),
            "schema": SCHEMA,
        }
        arrays, body = path.with_suffix(".npz"), None
        if arrays.is_file() and b"builtin_" in arrays.read_bytes():
            held = io.unpacked(arrays, data["predictions_sha256"])
            body = io.packed({synthetic(name): array for name, array in held.items()})
            new["predictions_sha256"] = io.digest(body)
        Evaluated.from_json(new)
        return new, body

    def _evaluation(self, path: Path, new: Json, arrays: bytes | None) -> None:
        if arrays is None:
            self._copy("evaluations", path.stem, ".npz")
        else:
            to = path.with_stem(self.keys[path.stem]).with_suffix(".npz")
            self.results.write(to, arrays)
        self._replace(path, new)
        self._drop("evaluations", path.stem, ".npz")

    def _failures(self) -> dict[Path, Json]:
        """Notes of failures as they will be; fills in the keys of their runs and suites."""
        found = {}
        for path in sorted((self.folder / "failures").glob("*.json")):
            try:
                data = unsealed(path)
                if "run" in data:
                    run, suite = data["run"], None
                    data["run"] = run_of(run)
                else:
                    run, suite = data["evaluation"]["run"], data["evaluation"]["suite"]
                    data["evaluation"] = {"run": run_of(run), "suite": suite_of(suite)}
                self.keys[path.stem] = new_key(run, suite)
            except (Stays, ValueError, KeyError, TypeError) as error:
                if is_current(path):
                    continue
                self.stays[f"failures/{path.name}"] = str(error)
            else:
                found[path] = data
        return found

    def _others(self) -> None:
        """Checkpoints and logs of runs that have a record or a failure; caches go."""
        for path in sorted((self.folder / "checkpoints").glob("*.safetensors")):
            if path.stem in self.keys:
                body = rekeyed_checkpoint(path.read_bytes(), self.keys[path.stem])
                self.results.write(path.with_stem(self.keys[path.stem]), body)
                path.unlink()
        for path in sorted((self.folder / "logs").glob("*.log")):
            if path.stem in self.keys:
                path.rename(path.with_stem(self.keys[path.stem]))
        for path in sorted((self.folder / "cache").glob("*")):
            path.unlink()
        if (self.folder / "submissions").is_dir():  # their jobs say runs of schema 1
            (self.folder / "submissions").rename(self.folder / "submissions-schema1")

    def _copy(self, kind: str, key: str, suffix: str) -> None:
        """Give a file its new name beside the old one."""
        old = self.folder / kind / (key + suffix)
        new = old.with_stem(self.keys[key])
        if old.is_file() and not new.exists():
            os.link(old, new)

    def _drop(self, kind: str, key: str, suffix: str) -> None:
        (self.folder / kind / (key + suffix)).unlink(missing_ok=True)

    def _replace(self, path: Path, data: Json) -> None:
        self.results.write(path.with_stem(self.keys[path.stem]), io.sealed(data))
        path.unlink()
        self.moved[path.parent.name] = self.moved.get(path.parent.name, 0) + 1


def mark_collapsed(results: ResultsFolder, stays: dict[str, str]) -> int:
    """Mark regressions that predict one value throughout by today's definition; how many.

    Args:
        stays: where to note records whose predictions cannot be read, and why.
    """
    marked = 0
    for record in results.scan()[0]:
        if not record.run.task.regression or record.collapsed:
            continue
        try:
            arrays = results.predictions(record)
        except RecordError as error:
            stays[f"records/{record.run.key}.json"] = str(error)
            continue
        if not task_metrics.collapsed(arrays["scores"], arrays["label"]):
            continue
        scored = task_metrics.score(record.metrics, arrays["scores"], arrays["label"])
        *before, last = record.curve
        curve = [*before, last | {name: scored[name] for name in scored if name in last}]
        results.save(replace(record, metrics=scored, curve=curve, collapsed=True), arrays)
        marked += 1
    return marked


def new_key(run: Json, suite: Json | None) -> str:
    """The key that a run, or an evaluation of it, has now."""
    now = Run.from_json(run_of(run))
    return now.key if suite is None else Evaluation(now, suite_of(suite)).key


def is_current(path: Path) -> bool:
    """Whether a file has the seal of today."""
    try:
        io.unsealed(path)
    except ValueError:
        return False
    return True


def rekeyed_checkpoint(body: bytes, key: str) -> bytes:
    """A safetensors file whose metadata name another run; the tensors are not touched."""
    (length,) = struct.unpack("<Q", body[:8])
    head = json.loads(body[8 : 8 + length])
    head["__metadata__"]["run"] = key
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body[8 + length :]


def main() -> int:
    """Migrate the folders that are given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    left = 0
    for folder in parser.parse_args().folders:
        if not (folder / "records").is_dir():
            parser.error(f"{folder} is no results folder: it has no records/")
        migration = Migration(folder)
        migration.migrate()
        if marked := mark_collapsed(ResultsFolder(folder), migration.stays):
            migration.moved["regressions marked as collapsed"] = marked
        for name, reason in migration.stays.items():
            print(f"{folder}/{name} is left as it is: {reason}", file=sys.stderr)
        moved = ", ".join(f"{count} {kind}" for kind, count in migration.moved.items())
        print(f"{folder}: {moved or 'nothing to do'}")
        left += len(migration.stays)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
