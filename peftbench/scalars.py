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


@dataclass(frozen=True)
class _Node:
    """What is made of a node once: its canonical text, that of its identity, and its fields."""

    text: str
    identity: str
    fields: Json


class Reader:
    """Reads records of a folder as flat fields; remembers nodes between them."""

    def __init__(self, results: Results):
        self._results = results
        self._nodes: dict[tuple[str, bytes], _Node] = {}

    def read(self, key: str) -> Json:
        """The fields of a record.

        Beside the dotted paths: `key`, `score` and `metric` (the task's primary one), `trivial`
        (the same of the constant prediction), `peak_bytes` of training (of the GPU where there is
        one), `form`, `augment`, and two hashes: records with one `alike` differ in nothing but
        their seed; with one `shared` at most in the seed and in what a method chooses for itself.

        Raises:
            RecordError: if the file is not a whole, unaltered record of this run.
        """
        try:
            body = self._results.record_file(key).read_bytes()
            return self._fast(key, body) or self._slow(key)
        except OSError as error:
            raise RecordError(f"{key}.json cannot be read: {error.strerror}") from error

    def _fast(self, key: str, body: bytes) -> Json | None:
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
        environment = self._node("environment", data["environment"])
        nodes = {name: self._node(f"run.{name}", part) for name, part in data["run"].items()}
        texts = {"environment": environment.text, "run": _object(nodes, "text")}
        if files.digest(_whole(data, texts)) != said:
            return None
        found = self._fields(data, nodes, environment)
        return found if found["key"] == key else None

    def _slow(self, key: str) -> Json:
        data = self._results.load(key).to_json()
        nodes = {name: self._node(f"run.{name}", part) for name, part in data["run"].items()}
        return self._fields(data, nodes, self._node("environment", data["environment"]))

    def _fields(self, data: Json, nodes: dict[str, _Node], environment: _Node) -> Json:
        run = Run.from_json(data["run"])
        total = run.task.get("examples", {}).get("train")
        size = run.train_size(total) if total else run.size
        known = {name: node for name, node in nodes.items() if getattr(run, name) is not None}
        known["size"] = _Node("", canonical(size), {})
        seedless = {name: node for name, node in known.items() if name != "seed"}
        found: Json = {
            "key": files.digest(_object(known, "identity").encode())[:12],
            "alike": files.digest(_object(seedless, "identity").encode())[:12],
            "shared": files.digest(
                _object(
                    {name: known[name] for name in _SHARED if name in known}, "identity"
                ).encode()
            )[:12],
            "form": run.form["name"] if run.form else "head",
            "augment": run.augment["name"] if run.augment else "none",
            "metric": run.task["metrics"][0],
            "score": data["metrics"][run.task["metrics"][0]],
            "peak_bytes": _peak(data["memory"]),
        }
        found |= {"run.form": None, "run.augment": None}  # records from before they were there
        for node in (environment, *nodes.values()):
            found |= node.fields
        for name, value in data.items():
            if name not in ("run", "environment", "curve"):
                found |= _flat(name, value)
        found["run.size"] = canonical(run.size).strip('"')  # numbers and words in one column
        found["trivial"] = data["trivial"].get(found["metric"])
        return found

    def _node(self, name: str, value: Any) -> _Node:
        raw = orjson.dumps(value)
        node = self._nodes.get((name, raw))
        if node is None:
            if len(self._nodes) > _REMEMBERED:
                self._nodes.clear()
            told = identity(value) if name.startswith("run.") else value
            node = _Node(canonical(value), canonical(identity(value)), _flat(name, told))
            self._nodes[name, raw] = node
        return node


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
    return _ODD.sub(lambda found: canonical(float(found[0])).encode(), text)


def _object(nodes: dict[str, _Node], which: str) -> str:
    """The canonical text of an object, from that of its values."""
    return "{" + ",".join(f'"{name}":{getattr(nodes[name], which)}' for name in sorted(nodes)) + "}"


def _flat(path: str, value: Any) -> Json:
    """Scalars by path; a method inside a method also by its name; lists as canonical JSON."""
    if isinstance(value, dict):
        found: Json = {path: value["name"]} if "_target_" in value and "name" in value else {}
        for name, inner in value.items():
            found |= _flat(f"{path}.{name}", inner)
        return found
    return {path: canonical(value) if isinstance(value, list) else value}


def _peak(memory: Json) -> float | None:
    on_gpu = memory.get("cuda_peak_allocated_bytes")
    peak: float | None = (on_gpu or memory.get("cpu_peak_rss_bytes") or {}).get("train")
    return peak
