"""Colour, mark and dash of a method in every figure of a folder: styles.json.

The methods that people compare most have nine colours to themselves, which differ by at least 25
in CIELAB also under protanopia, deuteranopia and tritanopia; relatives of one share its colour and
differ in mark and dash. A method that the file does not know gets a look that is left.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

MarkerStyle = dict[str, Any]

#: What rows of one method, and methods that the file does not know, take in turn.
_MARKS = "osD^v<>pPXd*h8"
_DASHES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Palette:
    """Looks of the methods of one folder.

    Attributes:
        others: methods that the file does not know, sorted.
    """

    others: tuple[str, ...] = ()

    @classmethod
    def for_methods(cls, methods: Iterable[str]) -> "Palette":
        """The palette of a folder that holds these."""
        return cls(tuple(sorted(set(methods) - set(known()))))

    def look(self, method: str) -> MarkerStyle:
        """Colour, mark and dash, as matplotlib calls them."""
        if method in known():
            return dict(known()[method])
        left = _left()
        every = sorted({*self.others, method})
        return dict(left[every.index(method) % len(left)])

    def looks(self, labels: Iterable[str]) -> dict[str, MarkerStyle]:
        """Of rows, by the labels of `grouping.labels`: the colour of the method, in shades.

        The first row of a method has its look; others have another shade, mark and dash.
        """
        named: dict[str, list[str]] = {}
        for label in labels:
            named.setdefault(method_of(label), []).append(label)
        found = {}
        for method, here in named.items():
            look = self.look(method)
            first = _MARKS.index(look["marker"])
            for number, label in enumerate(here):
                found[label] = {
                    "color": _shade(look["color"], number / max(1, len(here) - 1)),
                    "marker": _MARKS[(first + number) % len(_MARKS)],
                    "linestyle": look["linestyle"]
                    if number == 0
                    else _DASHES[number % len(_DASHES)],
                }
        return found


def method_of(label: str) -> str:
    """The method of a row, from its label: what stands before its settings."""
    return label.partition(",")[0]


@cache
def known() -> dict[str, MarkerStyle]:
    """Looks from the file, by method."""
    told = json.loads(Path(__file__).with_name("styles.json").read_text(encoding="utf-8"))
    return {
        name: {"color": look["colour"], "marker": look["mark"], "linestyle": look["dash"]}
        for name, look in told.items()
    }


@cache
def _left() -> list[MarkerStyle]:
    """Colours with marks that no known method has."""
    taken = [(look["color"], look["marker"]) for look in known().values()]
    colours = dict.fromkeys(colour for colour, _ in taken)
    return [
        {"color": colour, "marker": mark, "linestyle": "-"}
        for mark, colour in product(_MARKS, colours)
        if (colour, mark) not in taken
    ]


def _shade(colour: str, part: float) -> str:
    """The colour, blended with white by up to a half; a light one with black."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    light = 0.299 * red + 0.587 * green + 0.114 * blue > 140
    goal, much = (0, 0.5 * part) if light else (255, 0.55 * part)
    return "#" + "".join(f"{round(c + much * (goal - c)):02X}" for c in (red, green, blue))
