"""All scalar fields of a record's file by dotted path, checked as `Results.load` checks it.

Records share most of their nodes (models, tasks, recipes, environments), so the canonical text and
the fields of a node are made once for each distinct one. What is hashed is what is used: a file
whose text does not hash to what it says is left to `Results.load`, which finds the words.
"""

import re
from dataclasses import dataclass, fields
from functools import lru_cache
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

#: What the nodes of a record are, in their order: the environment, and the parts of a run.
_PARTS = tuple(f.name.encode() for f in fields(Run))
_RUN, _SEED = frozenset(_PARTS), _PARTS.index(b"seed")
_OWN = {f.name.encode() for f in fields(Record)} - {b"run", b"environment"}
_SCHEMA = str(SCHEMA).encode()


@dataclass(frozen=True, eq=False)
class Node:
    """What is made of a node once: its canonical text, that of its identity, and its fields."""

    name: str
    text: str
    identity: str
    value: Any
    fields: Json


class Reader:
    """Reads records of a folder as flat fields; remembers nodes between them."""

    def __init__(self, results: Results):
        self._results = results
        self._nodes: dict[tuple[bytes, bytes], Node] = {}
        self._settings: dict[tuple[Node, ...], _Setting] = {}

    def read(self, key: str) -> tuple[Json, list[Node]]:
        """The fields of a record that are its own, and the nodes that hold the others.

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
        """The fields, or None where a record is not as `files.sealed` writes it, or none at all.

        There every field of a record has a line that begins with one space, every part of a run one
        with two; nothing else has. So a part that is known already is not parsed again.
        """
        raw = _cut(body, b'\n "', b"\n}\n")
        parts = None if raw is None else _cut(raw.pop(b"run", b""), b'\n  "', b"\n }")
        if raw is None or parts is None or not parts.keys() <= _RUN:
            return None
        said = raw.pop(b"sha256", None)
        about = raw.pop(b"environment", None)
        if said is None or about is None or raw.keys() != _OWN or raw[b"schema"] != _SCHEMA:
            return None
        try:
            data = orjson.loads(_joined(raw))
            environment = self._node(b"environment", about)
            nodes = tuple(self._node(name, parts.get(name, b"null")) for name in _PARTS)
            setting = self._setting(nodes)
        except (ValueError, RecordError):  # the slow way says what it is
            return None
        run = _object({n.name: n.text for n in nodes if n.name.encode() in parts})
        digest = files.digest(_whole(data, {"environment": environment.text, "run": run}))
        if b'"%b"' % digest.encode() != said:
            return None
        own = _own(data, setting, nodes[_SEED])
        return (own, [environment, *nodes]) if own["key"] == key else None

    def _slow(self, key: str) -> tuple[Json, list[Node]]:
        data = self._results.load(key).to_json()
        run, about = data.pop("run"), orjson.dumps(data.pop("environment"))
        nodes = tuple(self._node(n, orjson.dumps(run.get(n.decode()))) for n in _PARTS)
        own = _own(data, self._setting(nodes), nodes[_SEED])
        return own, [self._node(b"environment", about), *nodes]

    def _node(self, name: bytes, raw: bytes) -> Node:
        node = self._nodes.get((name, raw))
        if node is None:
            if len(self._nodes) > _REMEMBERED:
                self._nodes.clear()
                self._settings.clear()  # they hold nodes
            value = orjson.loads(raw)
            path = name.decode() if name == b"environment" else f"run.{name.decode()}"
            told: Json = {}
            if name == b"size":  # numbers and words in one column
                told[path] = canonical(value).strip('"')
            else:
                _flatten(told, path, value if name == b"environment" else identity(value))
            made = canonical(value), canonical(identity(value))
            node = self._nodes[name, raw] = Node(name.decode(), *made, value, told)
        return node

    def _setting(self, nodes: tuple[Node, ...]) -> "_Setting":
        """What runs share that differ in nothing but their seed."""
        same = (*nodes[:_SEED], *nodes[_SEED + 1 :])
        found = self._settings.get(same)
        if found is None:
            found = self._settings[same] = _Setting.of(nodes)
        return found


@dataclass(frozen=True)
class _Setting:
    """What follows from all parts of a run but its seed.

    Attributes:
        before, after: the text of the run's identity on both sides of the seed's own.
    """

    before: bytes
    after: bytes
    metric: str
    told: Json

    @classmethod
    def of(cls, nodes: tuple[Node, ...]) -> "_Setting":
        run = Run.from_json({node.name: node.value for node in nodes})
        total = run.task.get("examples", {}).get("train")
        size = canonical(run.train_size(total) if total else run.size)
        said = {
            node.name: size if node.name == "size" else node.identity
            for node in nodes
            if getattr(run, node.name) is not None
        }
        before, after = _object(said | {"seed": "?"}).split('"seed":?')
        del said["seed"]
        told = {
            "alike": _short(said),
            "shared": _short({n: text for n, text in said.items() if n in _SHARED}),
            "form": run.form["name"] if run.form else "head",
            "augment": run.augment["name"] if run.augment else "none",
            "metric": run.task["metrics"][0],
        }
        return cls(before.encode(), after.encode(), told["metric"], told)

    def key(self, seed: Node) -> str:
        """The run's key."""
        text = b'%b"seed":%b%b' % (self.before, seed.identity.encode(), self.after)
        return files.digest(text)[:12]


def _own(data: Json, setting: _Setting, seed: Node) -> Json:
    """The fields that are a record's own, and those that are made of several."""
    own: Json = {}
    for name, value in data.items():
        if name != "curve":
            _flatten(own, name, value)
    own |= setting.told
    own["key"] = setting.key(seed)
    own["score"] = data["metrics"][setting.metric]
    own["trivial"] = data["trivial"].get(setting.metric)
    own["peak_bytes"] = _peak(data["memory"])
    return own


def _cut(body: bytes, between: bytes, end: bytes) -> dict[bytes, bytes] | None:
    """The texts of an object's values by name; None where it is not written as expected."""
    head, *lines = body.split(between)
    if head != b"{" or not body.endswith(end):
        return None
    found = {}
    lines[-1] = lines[-1][: -len(end)] + b","
    for line in lines:
        name, _, text = line.partition(b'": ')
        if text[-1:] != b",":
            return None
        found[name] = text[:-1]
    return found if len(found) == len(lines) else None


def _joined(texts: dict[bytes, bytes]) -> bytes:
    return b"{" + b",".join([b'"%b":%b' % pair for pair in texts.items()]) + b"}"


def _short(texts: dict[str, str]) -> str:
    return files.digest(_object(texts).encode())[:12]


def _whole(data: Json, texts: dict[str, str]) -> bytes:
    """The canonical text of a record, given that of some of its parts."""
    pieces = []
    for given, names in groupby(sorted([*data, *texts]), texts.__contains__):
        if given:
            pieces += [f'"{name}":{texts[name]}'.encode() for name in names]
        else:
            pieces.append(_plain_text({name: data[name] for name in names})[1:-1])
    return b"{" + b",".join(pieces) + b"}"


#: Numbers that orjson writes in another way than the canonical text: 8.0 for 8, 0.00001 for 1e-05.
_POINT = re.compile(rb"\.0(?=[,}\]])")
_ODD = re.compile(rb"(?<=[:,\[])(?:-?(?:\d[\d.]*e[-+]?\d+|0\.0000\d*)|-0)(?=[,}\]])")
_SIGNS = (b"e-", b"e+", b"0.0000", b"-0")


def _plain_text(value: Json) -> bytes:
    """What `canonical` gives, by orjson, which takes a fifth of the time.

    Where it does not after all, the hash does not fit, and `Results.load` decides.
    """
    text = _POINT.sub(b"", orjson.dumps(value, option=orjson.OPT_SORT_KEYS))
    if not text.isascii():
        return canonical(value).encode()
    return _ODD.sub(_usual, text) if any(sign in text for sign in _SIGNS) else text


def _usual(found: re.Match[bytes]) -> bytes:
    number = float(found[0])
    return (str(int(number)) if number.is_integer() else repr(number)).encode()


def _object(texts: dict[str, str]) -> str:
    """The canonical text of an object, from that of its values."""
    return "{" + ",".join([f'"{name}":{texts[name]}' for name in sorted(texts)]) + "}"


def _flatten(found: Json, path: str, value: Any) -> None:
    """Add scalars by path; a method inside a method also by its name; lists as canonical JSON."""
    if value.__class__ is dict:
        if "_target_" in value and "name" in value:
            found[path] = value["name"]
        for inner_path, inner in zip(_paths(path, tuple(value)), value.values(), strict=True):
            if inner.__class__ is dict or inner.__class__ is list:
                _flatten(found, inner_path, inner)
            else:
                found[inner_path] = inner
    else:
        found[path] = canonical(value) if isinstance(value, list) else value


@lru_cache(_REMEMBERED)
def _paths(path: str, names: tuple[str, ...]) -> list[str]:
    return [f"{path}.{name}" for name in names]


def _peak(memory: Json) -> float | None:
    on_gpu = memory.get("cuda_peak_allocated_bytes")
    peak: float | None = (on_gpu or memory.get("cpu_peak_rss_bytes") or {}).get("train")
    return peak
