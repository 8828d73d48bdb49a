"""All scalar fields of a record's file by dotted path, checked as `Results.load` checks it.

Records share most of their nodes (models, tasks, recipes, environments), so the canonical text and
the fields of a node are made once for each distinct one. What is hashed is what is used: a file
whose text does not hash to what it says is left to `Results.load`, which finds the words.
"""

import re
from dataclasses import dataclass, fields
from functools import lru_cache
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
_RUN = frozenset(_PARTS)
_OWN = {f.name for f in fields(Record)} - {"run", "environment"}

#: Lines of a record's file between which its parts are.
_RUN_LINE, _ABOUT_LINE, _SAID_LINE = b'{\n "run": ', b'\n "environment": ', b'\n "sha256": "'


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
        self._settings: dict[tuple[bytes, bytes], _Setting] = {}

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
        with two; nothing else has. So a run that is known but for its seed is not parsed again.
        """
        first, about, last = body.find(_RUN_LINE), body.find(_ABOUT_LINE), body.find(_SAID_LINE)
        if first != 0 or not 0 < about < last or not body.endswith(b'"\n}\n'):
            return None
        after_run, after_about = (body.find(b'\n "', line + 4) for line in (first, about))
        said = body[last + len(_SAID_LINE) : -4].decode()
        run = body[len(_RUN_LINE) : after_run - 1]
        before, _, rest = run.partition(b'\n  "seed": ')
        number, _, after = rest.partition(b",")
        try:
            data = orjson.loads(b"{%b%b}" % (body[after_run:about], body[after_about : last - 1]))
            if data.keys() != _OWN or data["schema"] != SCHEMA:
                return None
            about_raw = body[about + len(_ABOUT_LINE) : after_about - 1]
            environment, seed = self._node(b"environment", about_raw), self._node(b"seed", number)
            setting = self._settings.get((before, after))
            if setting is None:
                parts = _cut(run, b'\n  "', b"\n }")
                if parts is None or not {b"seed"} <= parts.keys() <= _RUN:
                    return None
                nodes = {n: self._node(n, parts.get(n, b"null")) for n in _PARTS if n != b"seed"}
                there = [name.decode() for name in parts]
                setting = self._settings[before, after] = _Setting.of(nodes, seed, there)
        except (ValueError, RecordError):  # the slow way says what it is
            return None
        if files.digest(_whole(data, environment.text, setting.text(seed))) != said:
            return None
        own = _own(data, setting, seed)
        return (own, [environment, seed, *setting.nodes]) if own["key"] == key else None

    def _slow(self, key: str) -> tuple[Json, list[Node]]:
        data = self._results.load(key).to_json()
        run, about = data.pop("run"), orjson.dumps(data.pop("environment"))
        nodes = {n: self._node(n, orjson.dumps(run.get(n.decode()))) for n in _PARTS}
        seed = nodes.pop(b"seed")
        setting = _Setting.of(nodes, seed, list(run))
        own = _own(data, setting, seed)
        return own, [self._node(b"environment", about), seed, *setting.nodes]

    def _node(self, name: bytes, raw: bytes) -> Node:
        node = self._nodes.get((name, raw))
        if node is None:
            if len(self._nodes) > _REMEMBERED:
                self._nodes.clear()
                self._settings.clear()
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


@dataclass(frozen=True)
class _Setting:
    """What follows from all parts of a run but its seed.

    Attributes:
        nodes: of the parts, in their order.
        whole, same: the run's canonical text on both sides of the seed's own, and its identity's.
        metric: the task's primary one.
        told: fields that are made of the parts.
    """

    nodes: list[Node]
    whole: tuple[str, str]
    same: tuple[str, str]
    metric: str
    told: Json

    @classmethod
    def of(cls, nodes: dict[bytes, Node], seed: Node, there: list[str]) -> "_Setting":
        """Of the parts of a run, of which those that are `there` are in its file."""
        parts = {node.name: node for node in nodes.values()}
        run = Run.from_json({name: (parts | {"seed": seed})[name].value for name in there})
        total = run.task.get("examples", {}).get("train")
        size = canonical(run.train_size(total) if total else run.size)
        said = {
            name: size if name == "size" else node.identity
            for name, node in parts.items()
            if getattr(run, name) is not None
        }
        texts = {name: parts[name].text for name in there if name != "seed"}
        told = {
            "alike": _short(said),
            "shared": _short({name: text for name, text in said.items() if name in _SHARED}),
            "form": run.form["name"] if run.form else "head",
            "augment": run.augment["name"] if run.augment else "none",
            "metric": run.task["metrics"][0],
        }
        return cls(list(nodes.values()), _around(texts), _around(said), told["metric"], told)

    def text(self, seed: Node) -> str:
        """The run's canonical text."""
        return seed.text.join(self.whole)

    def key(self, seed: Node) -> str:
        """The run's key."""
        return files.digest(seed.identity.join(self.same).encode())[:12]


def _around(texts: dict[str, str]) -> tuple[str, str]:
    """The text of an object on both sides of its seed's."""
    before, after = _object(texts | {"seed": "?"}).split('"seed":?')
    return f'{before}"seed":', after


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


def _short(texts: dict[str, str]) -> str:
    return files.digest(_object(texts).encode())[:12]


def _whole(data: Json, environment: str, run: str) -> bytes:
    """The canonical text of a record from its own fields and that of its two large parts.

    These stand before the first fields of such names; if those were not the record's, the hash
    would not fit.
    """
    text = _plain_text(data)
    first, second = text.find(b',"flops":'), text.find(b',"schema":')
    parts = text[:first], environment.encode(), text[first:second], run.encode(), text[second:]
    return b'%b,"environment":%b%b,"run":%b%b' % parts


#: Numbers that orjson writes in another way than the canonical text: 8.0 for 8, 0.00001 for 1e-05.
_POINT = re.compile(rb"\.0(?=[,}\]])")
_ODD = re.compile(rb"(?<=[:,\[])(?:-?(?:\d[\d.]*e[-+]?\d+|0\.0000\d*)|-0)(?=[,}\]])")


def _plain_text(value: Json) -> bytes:
    """What `canonical` gives, by orjson, which takes a fifth of the time.

    Where it does not after all, the hash does not fit, and `Results.load` decides.
    """
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    if not text.isascii():
        return canonical(value).encode()
    text = _POINT.sub(b"", text) if b".0" in text else text
    odd = b"e-" in text or b"e+" in text or b"0.0000" in text or b"-0" in text
    return _ODD.sub(_usual, text) if odd else text


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
