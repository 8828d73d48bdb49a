"""Where scalars stand among the lines of sealed JSON, so that what is alike is parsed once.

`io.sealed` writes a name and its value on each line. Files with the same names in the same order
differ only in their scalars: those of the next file are picked from its lines, and put into the
gaps of the canonical text, which takes a third of the time of parsing it and writing it again.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any

import orjson

from peftbench.core.run import Json, canonical

#: Layouts that are remembered; beyond them all are forgotten.
_REMEMBERED = 1_000

_Getter = Callable[[list[bytes]], tuple[bytes, ...]]


@dataclass(frozen=True)
class Layout:
    """Of some fields of an object.

    Attributes:
        names, named: the tokens that are no scalars, and what they are.
        values, paths: the scalars that are told, and their dotted paths.
        order, form: the scalars in the canonical text, and that text with gaps for them.
        gaps: which of the gaps are for the texts of fields that stand apart.
    """

    names: _Getter
    named: tuple[bytes, ...]
    values: _Getter
    paths: list[str]
    order: _Getter
    form: bytes
    gaps: list[int]

    @classmethod
    def of(
        cls, body: bytes, tokens: list[bytes], names: set[str], aside: str, apart: list[str]
    ) -> "Layout":
        """Of the fields whose lines these are; of those that stand apart the text is given later.

        Raises:
            ValueError: if they are not written as expected.
        """
        data = orjson.loads(b"{%b}" % body)
        if data.keys() != names:
            raise ValueError(f"fields that do not belong, or too few: {sorted(data)}")
        at = itertools.count(1)
        laid = {name: (next(at), _laid(value, at))[1] for name, value in data.items()}
        own: Json = {}
        for name, value in data.items():
            if name != aside:
                flatten(own, name, value)
        told = sorted(place for name in data if name != aside for place in laid[name][1])
        form, order = _sorted(laid | dict.fromkeys(apart, (b"%b", [-1])))
        gaps = [gap for gap, place in enumerate(order) if place < 0]
        order = [place for place in order if place >= 0]
        others = itemgetter(*sorted(set(range(len(tokens))) - set(order)))
        made = cls(
            others,
            others(tokens),
            itemgetter(*told),
            list(own),
            itemgetter(*order, 0),  # the empty one, so that every scalar ends with its line
            form + b"%b",
            gaps,
        )
        if next(at) != len(tokens) or made.fields(tokens) != own:
            raise ValueError("not written as expected")
        return made

    def fields(self, tokens: list[bytes]) -> Json:
        """The scalars by their paths."""
        values = orjson.loads(b"[%b]" % b",".join(self.values(tokens)))
        return dict(zip(self.paths, values, strict=True))

    def text(self, tokens: list[bytes], *apart: bytes) -> bytes:
        """The canonical text, with those of the fields that stand apart, by name."""
        lines = b"\n".join(self.order(tokens)).replace(b".0\n", b"\n")
        if b"e+" in lines or b"-0\n" in lines:
            lines = _ODD.sub(_usual, lines)
        found = lines.split(b"\n")
        for gap, text in zip(self.gaps, apart, strict=True):
            found.insert(gap, text)
        return self.form % tuple(found)


class Layouts:
    """Those that were met.

    Args:
        names: of all fields whose lines are given.
        aside: of one that is in the text but not told.
        apart: of fields whose lines are not given but whose texts are.
    """

    def __init__(self, names: set[str], aside: str, apart: list[str]):
        self._names, self._aside, self._apart = names, aside, apart
        self._known: dict[int, list[Layout]] = {}
        self._count = 0

    def find(self, body: bytes) -> tuple[Layout, list[bytes]]:
        """The layout of these lines, and their tokens.

        Raises:
            ValueError: if these are not the fields, or not written as expected.
        """
        tokens = body.replace(b",\n", b"\n").replace(b'": ', b"\n").split(b"\n")
        known = self._known.get(len(tokens), [])
        for layout in known:
            if layout.names(tokens) == layout.named:
                return layout, tokens
        layout = Layout.of(body, tokens, self._names, self._aside, self._apart)
        if self._count >= _REMEMBERED:
            self._known.clear()
            self._count = 0
        self._known.setdefault(len(tokens), []).append(layout)
        self._count += 1
        return layout, tokens


def _laid(value: Any, at: Iterator[int]) -> tuple[bytes, list[int]]:
    """The canonical text with gaps for scalars, and the places of the tokens that fill them.

    Raises:
        ValueError: if there is a list of scalars, whose lines are no tokens.
    """
    place = next(at)
    if isinstance(value, dict) and value:
        inner = {name: (next(at), _laid(part, at))[1] for name, part in value.items()}
        next(at)  # what closes it
        return _sorted(inner)
    if isinstance(value, list) and value:
        if not all(isinstance(part, dict) for part in value):
            raise ValueError("a list of scalars")
        parts = [_laid(part, at) for part in value]
        next(at)
        return b"[%b]" % b",".join([text for text, _ in parts]), [p for _, ps in parts for p in ps]
    if isinstance(value, dict | list):
        return canonical(value).encode(), []
    return b"%b", [place]


def _sorted(laid: dict[str, tuple[bytes, list[int]]]) -> tuple[bytes, list[int]]:
    """Those of an object, from those of its values."""
    lines, order = [], []
    for name, (text, places) in sorted(laid.items()):
        lines.append(b"%b:%b" % (canonical(name).encode().replace(b"%", b"%%"), text))
        order += places
    return b"{%b}" % b",".join(lines), order


#: Numbers that a file holds in another way than the canonical text, 1e+16 and -0 (that was -0.0).
_ODD = re.compile(rb"^-?(?:\d[\d.]*e\+\d+|0)$", re.MULTILINE)


def _usual(found: re.Match[bytes]) -> bytes:
    return str(int(float(found[0]))).encode()


def flatten(found: Json, path: str, value: Any) -> None:
    """Add scalars by path; a method inside a method also by its name; lists as canonical JSON."""
    if value.__class__ is dict:
        if "_target_" in value and "name" in value:
            found[path] = value["name"]
        for inner_path, inner in zip(_paths(path, tuple(value)), value.values(), strict=True):
            if inner.__class__ is dict or inner.__class__ is list:
                flatten(found, inner_path, inner)
            else:
                found[inner_path] = inner
    else:
        found[path] = canonical(value) if isinstance(value, list) else value


@lru_cache(20_000)
def _paths(path: str, names: tuple[str, ...]) -> list[str]:
    return [f"{path}.{name}" for name in names]
