"""All scalar fields of a record's file by dotted path, checked as `Results.load` checks it.

Records share most of their nodes (models, tasks, recipes, environments), so the canonical text and
the fields of a node are made once for each distinct one. What is hashed is what is used: a file
whose text does not hash to what it says is left to `Results.load`, which finds the words.
"""

import re
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Any

import orjson

from peftbench import files
from peftbench.run import SCHEMA, Json, Record, RecordError, Run, canonical, identity
from peftbench.store import Results

#: Distinct nodes that are remembered; beyond them all are forgotten.
_REMEMBERED = 20_000

#: What a method does not choose.
_SHARED = ("model", "task", "form", "augment", "protocol", "size")

_RECORD = {f.name for f in fields(Record)}
_PARTS = tuple(f.name for f in fields(Run))

#: What the nodes of a record are, in their order.
SLOTS = ("environment", *(f"run.{name}" for name in _PARTS))


@dataclass(frozen=True, eq=False)
class Node:
    """What is made of a node once: its canonical text, that of its identity, and its fields."""

    text: str
    identity: str
    fields: Json


class Reader:
    """Reads records of a folder as flat fields; remembers nodes between them."""

    def __init__(self, results: Results):
        self._results = results
        self._nodes: dict[tuple[str, bytes], Node] = {}
        self._settings: dict[tuple[tuple[str, str], ...], tuple[str, str]] = {}

    def read(self, key: str) -> tuple[Json, list[Node]]:
        """The fields of a record that are its own, and the nodes of `SLOTS` that hold the others.

        Beside dotted paths: `key`, `score` and `metric` (the task's primary one), `trivial` (the
        same of the constant prediction), `peak_bytes` of training (of the GPU where there is one),
        `form`, `augment`, and two hashes: records with one `alike` differ in nothing but their
        seed; with one `shared` at most in the seed and in what a method chooses for itself.

        Raises:
            RecordError: if the file is not a whole, unaltered record of this run.
        """
        try:
            body = self._results.record_bytes(key)
            return self._fast(key, body) or self._slow(key)
        except OSError as error:
            raise RecordError(f"{key}.json cannot be read: {error.strerror}") from error

    def _fast(self, key: str, body: bytes) -> tuple[Json, list[Node]] | None:
        """The fields, or None where a record is not the usual one, or none at all."""
        try:
            data = orjson.loads(body)
        except ValueError:
            return None
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            return None
        said = data.pop("sha256", None)
        if set(data) != _RECORD:
            return None
        nodes = self._part_nodes(data["run"])
        environment = self._node("environment", data["environment"])
        run = _object({name: node.text for name, node in nodes.items()})
        if files.digest(_whole(data, {"environment": environment.text, "run": run})) != said:
            return None
        own, held = self._fields(data, nodes, environment)
        return (own, held) if own["key"] == key else None

    def _slow(self, key: str) -> tuple[Json, list[Node]]:
        data = self._results.load(key).to_json()
        environment = self._node("environment", data["environment"])
        return self._fields(data, self._part_nodes(data["run"]), environment)

    def _part_nodes(self, run: Json) -> dict[str, Node]:
        return {name: self._node(f"run.{name}", part) for name, part in run.items()}

    def _fields(
        self, data: Json, given: dict[str, Node], environment: Node
    ) -> tuple[Json, list[Node]]:
        run = Run.from_json(data["run"])
        nodes = [given.get(name) or self._node(f"run.{name}", None) for name in _PARTS]
        total = run.task.get("examples", {}).get("train")
        size = canonical(run.train_size(total) if total else run.size)
        said = {
            name: size if name == "size" else node.identity
            for name, node in zip(_PARTS, nodes, strict=True)
            if getattr(run, name) is not None
        }
        alike, shared = self._hashes(tuple(one for one in said.items() if one[0] != "seed"))
        metric = run.task["metrics"][0]
        own: Json = {}
        for name, value in data.items():
            if name not in ("run", "environment", "curve"):
                _flatten(own, name, value)
        own |= {
            "key": _short(said),
            "alike": alike,
            "shared": shared,
            "form": run.form["name"] if run.form else "head",
            "augment": run.augment["name"] if run.augment else "none",
            "metric": metric,
            "score": data["metrics"][metric],
            "trivial": data["trivial"].get(metric),
            "peak_bytes": _peak(data["memory"]),
        }
        return own, [environment, *nodes]

    def _hashes(self, setting: tuple[tuple[str, str], ...]) -> tuple[str, str]:
        """Of what runs that differ in their seed share, and of what no method chooses in it."""
        found = self._settings.get(setting)
        if found is None:
            if len(self._settings) > _REMEMBERED:
                self._settings.clear()
            shared = {name: text for name, text in setting if name in _SHARED}
            found = self._settings[setting] = _short(dict(setting)), _short(shared)
        return found

    def _node(self, name: str, value: Any) -> Node:
        raw = orjson.dumps(value)
        node = self._nodes.get((name, raw))
        if node is None:
            if len(self._nodes) > _REMEMBERED:
                self._nodes.clear()
            told: Json = {}
            if name == "run.size":  # numbers and words in one column
                told[name] = canonical(value).strip('"')
            else:
                _flatten(told, name, identity(value) if name.startswith("run.") else value)
            node = Node(canonical(value), canonical(identity(value)), told)
            self._nodes[name, raw] = node
        return node


def _short(texts: dict[str, str]) -> str:
    return files.digest(_object(texts).encode())[:12]


def _whole(data: Json, texts: dict[str, str]) -> bytes:
    """The canonical text of a record, given that of some of its parts."""
    pieces = []
    for given, names in groupby(sorted(data), texts.__contains__):
        if given:
            pieces += [f'"{name}":{texts[name]}'.encode() for name in names]
        else:
            pieces.append(_plain_text({name: data[name] for name in names})[1:-1])
    return b"{" + b",".join(pieces) + b"}"


#: Numbers that orjson writes in another way than the canonical text: 0.00001 for 1e-05, 8.0 for 8.
_ODD = re.compile(rb"(?<=[:,\[])-?(?:\d[\d.]*e[-+]?\d+|0\.0000\d*|\d+\.0)(?=[,}\]])")


def _plain_text(value: Json) -> bytes:
    """What `canonical` gives, by orjson, which takes a fifth of the time."""
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    if not text.isascii():
        return canonical(value).encode()
    return _ODD.sub(_usual, text)


def _usual(found: re.Match[bytes]) -> bytes:
    number = float(found[0])
    return (str(int(number)) if number.is_integer() else repr(number)).encode()


def _object(texts: dict[str, str]) -> str:
    """The canonical text of an object, from that of its values."""
    return "{" + ",".join([f'"{name}":{texts[name]}' for name in sorted(texts)]) + "}"


def _flatten(found: Json, path: str, value: Any) -> None:
    """Add scalars by path; a method inside a method also by its name; lists as canonical JSON."""
    if isinstance(value, dict):
        if "_target_" in value and "name" in value:
            found[path] = value["name"]
        for name, inner in value.items():
            if isinstance(inner, dict | list):
                _flatten(found, f"{path}.{name}", inner)
            else:
                found[f"{path}.{name}"] = inner
    else:
        found[path] = canonical(value) if isinstance(value, list) else value


def _peak(memory: Json) -> float | None:
    on_gpu = memory.get("cuda_peak_allocated_bytes")
    peak: float | None = (on_gpu or memory.get("cpu_peak_rss_bytes") or {}).get("train")
    return peak
