"""All scalar fields of a record's file by dotted path, checked as `Results.load` checks it.

Records share most of their nodes (models, tasks, recipes, environments), so the canonical text and
the fields of a node are made once for each distinct one. What is hashed is what is used: a file
whose text does not hash to what it says is left to `Results.load`, which finds the words.
"""

from dataclasses import dataclass, fields
from typing import Any

import orjson

from peftbench.core.errors import RecordError
from peftbench.core.run import SCHEMA, Json, Record, Run, canonical, identity
from peftbench.results.layouts import Layouts, flatten
from peftbench.results.store import Results
from peftbench.system import io

#: Distinct nodes that are remembered; beyond them all are forgotten.
_REMEMBERED = 20_000

#: What a method does not choose.
_SHARED = ("model", "task", "form", "augment", "protocol", "size")

#: What the nodes of a record are, in their order: the environment, and the parts of a run.
_PARTS = tuple(f.name.encode() for f in fields(Run))
_RUN = frozenset(_PARTS)
_OWN = {f.name for f in fields(Record)} - {"run", "environment"}

#: Peaks of memory in training.
_ON_GPU = "memory.cuda_peak_allocated_bytes.train"
_ON_CPU = "memory.cpu_peak_rss_bytes.train"

#: Lines of a record's file between which its parts are.
_RUN_LINE, _ABOUT_LINE, _SAID_LINE = b'{\n "run": ', b'\n "environment": ', b'\n "sha256": "'
_END = b'"\n}\n'


@dataclass(frozen=True, eq=False)
class Node:
    """What is made of a node once: its canonical text, that of its identity, and its fields."""

    name: str
    text: bytes
    identity: bytes
    value: Any
    fields: Json


class Reader:
    """Reads records of a folder as flat fields; remembers nodes between them."""

    def __init__(self, results: Results):
        self._results = results
        self._nodes: dict[tuple[bytes, bytes], Node] = {}
        self._settings: dict[tuple[bytes, bytes], _Setting] = {}
        self._layouts = Layouts(_OWN, "curve", ["environment", "run"])

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
        """The fields, or None where a record is not as `io.sealed` writes it, or none at all.

        There every field of a record has a line that begins with one space, every part of a run one
        with two; nothing else has. So a run that is known but for its seed is not parsed again.
        """
        before, _, rest = body.partition(b'\n  "seed": ')
        number, _, rest = rest.partition(b",")
        last = len(rest) - len(_SAID_LINE) - 64 - len(_END)
        after_run, about = rest.find(b'\n "'), rest.find(_ABOUT_LINE)
        after_about = rest.find(b'\n "', about + 4)
        if not (before.startswith(_RUN_LINE) and rest.startswith(_SAID_LINE, last)):
            return None
        if not (0 < after_run <= about < after_about <= last and rest.endswith(_END)):
            return None
        try:
            about_raw = rest[about + len(_ABOUT_LINE) : after_about - 1]
            environment, seed = self._node(b"environment", about_raw), self._node(b"seed", number)
            after = rest[: after_run - 1]
            setting = self._settings.get((before, after))
            if setting is None:
                run = b'%b\n  "seed": %b,%b' % (before[len(_RUN_LINE) :], number, after)
                parts = _cut(run, b'\n  "', b"\n }")
                if parts is None or not {b"seed"} <= parts.keys() <= _RUN:
                    return None
                nodes = {n: self._node(n, parts.get(n, b"null")) for n in _PARTS if n != b"seed"}
                there = [name.decode() for name in parts]
                setting = self._settings[before, after] = _Setting.of(nodes, seed, there)
            layout, tokens = self._layouts.find(
                rest[after_run:about] + rest[after_about : last - 1]
            )
            own = layout.fields(tokens)
        except (ValueError, RecordError):  # the slow way says what it is
            return None
        if own["schema"] != SCHEMA:
            return None
        text = layout.text(tokens, environment.text, setting.text(seed))
        if io.digest(text) != rest[-64 - len(_END) : -len(_END)].decode():
            return None
        _add(own, setting, seed)
        return (own, [environment, seed, *setting.nodes]) if own["key"] == key else None

    def _slow(self, key: str) -> tuple[Json, list[Node]]:
        data = self._results.load(key).to_json()
        run, about = data.pop("run"), orjson.dumps(data.pop("environment"))
        nodes = {n: self._node(n, orjson.dumps(run.get(n.decode()))) for n in _PARTS}
        seed = nodes.pop(b"seed")
        setting = _Setting.of(nodes, seed, list(run))
        own: Json = {}
        for name, value in data.items():
            if name != "curve":
                flatten(own, name, value)
        _add(own, setting, seed)
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
            text, same = canonical(value), identity(value)
            if name == b"size":  # numbers and words in one column
                told[path] = text.strip('"')
            else:
                flatten(told, path, value if name == b"environment" else same)
            made = text.encode(), (text if same == value else canonical(same)).encode()
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
    whole: tuple[bytes, bytes]
    same: tuple[bytes, bytes]
    metric: str
    told: Json

    @classmethod
    def of(cls, nodes: dict[bytes, Node], seed: Node, there: list[str]) -> "_Setting":
        """Of the parts of a run, of which those that are `there` are in its file."""
        parts = {node.name: node for node in nodes.values()}
        named = parts | {"seed": seed}
        run = Run.from_json({name: named[name].value for name in there})
        total = run.task.examples.get("train")
        size = canonical(run.train_size(total) if total else run.size)
        said = {
            name: size.encode() if name == "size" else node.identity
            for name, node in parts.items()
            if getattr(run, name) is not None
        }
        texts = {name: parts[name].text for name in there if name != "seed"}
        told = {
            "alike": _short(said),
            "shared": _short({name: text for name, text in said.items() if name in _SHARED}),
            "form": run.form.name if run.form else "head",
            "augment": run.augment.name if run.augment else "none",
            "metric": run.task.metrics[0],
        }
        return cls(list(nodes.values()), _around(texts), _around(said), told["metric"], told)

    def text(self, seed: Node) -> bytes:
        """The run's canonical text."""
        return seed.text.join(self.whole)

    def key(self, seed: Node) -> str:
        """The run's key."""
        return io.digest(seed.identity.join(self.same))[:12]


def _around(texts: dict[str, bytes]) -> tuple[bytes, bytes]:
    """The text of an object on both sides of its seed's."""
    before, after = _object(texts | {"seed": b"?"}).split(b'"seed":?')
    return before + b'"seed":', after


def _add(own: Json, setting: _Setting, seed: Node) -> None:
    """Add the fields that are made of several."""
    own |= setting.told
    own["key"] = setting.key(seed)
    own["score"] = own[f"metrics.{setting.metric}"]
    own["trivial"] = own.get(f"trivial.{setting.metric}")
    own["peak_bytes"] = own.get(_ON_GPU if _ON_GPU in own else _ON_CPU)


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


def _short(texts: dict[str, bytes]) -> str:
    return io.digest(_object(texts))[:12]


def _object(texts: dict[str, bytes]) -> bytes:
    """The canonical text of an object, from that of its values."""
    return b"{%b}" % b",".join([b'"%b":%b' % (n.encode(), texts[n]) for n in sorted(texts)])
