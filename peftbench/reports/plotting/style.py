"""How figures look: type and width of a paper's columns, files that depend on the data alone."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peftbench.reports import glossary

#: Inches of a column and of two, in which most venues set figures.
COLUMN, PAGE = 3.3, 6.8

#: Grey of what stands behind, and of lines that are no method.
QUIET, REFERENCE = "#DADADA", "#707070"

FORMATS = ("png", "pdf", "svg")

#: matplotlib's own font, so that every machine has it; text stays text in PDF and SVG.
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "text.parse_math": False,  # a $ in a name is a $
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "peftbench",
}


@dataclass(frozen=True)
class Figure:
    """A figure and what stands below it.

    Attributes:
        figure: matplotlib's.
        caption: what it shows, what was left out, how it was counted.
        part: what its name ends with, where a question takes several pictures.
    """

    figure: Any
    caption: str
    part: str = ""

    def file(self, kind: str) -> bytes:
        """PNG, PDF or SVG; without dates, so that equal figures are equal bytes."""
        about = {
            "png": {"Software": None},
            "pdf": {"CreationDate": None, "Subject": self.caption},
            "svg": {"Date": None, "Description": self.caption},
        }
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format=kind, dpi=160, metadata=about[kind])
        return _quantized(buffer) if kind == "png" else buffer.getvalue()


def _quantized(png: io.BytesIO) -> bytes:
    """The same picture in 256 colours: a third of the bytes.

    Without k-means, colours of small marks differ visibly (by up to 58 of 255; with it by 5).
    """
    from PIL import Image

    with Image.open(png) as image:
        small = image.convert("RGB").quantize(256, kmeans=1, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    small.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def panels(
    count: int, height: float = 1.75, columns: int = 3, rows: int = 1
) -> tuple[Any, list[list[Any]]]:
    """A figure as wide as a column, or as two where there are several panels.

    Args:
        count: panels.
        height: of each, in inches.
        columns: most panels side by side; two and four stand two by two.
        rows: axes of each panel, above each other.

    Returns:
        The figure, and the axes of each panel from top to bottom.
    """
    side = 2 if count in (2, 4) and columns > 2 else min(count, columns)
    down = -(-count // side)
    figure, axes = grid([height] * (down * rows), side)
    for place in range(count, down * side):
        for row in range(rows):
            axes[place // side * rows + row][place % side].remove()
    found = [
        [axes[place // side * rows + row][place % side] for row in range(rows)]
        for place in range(count)
    ]
    return figure, found


def grid(heights: Sequence[float], columns: int) -> tuple[Any, Any]:
    """A figure and its `(rows, columns)` axes, rows of these heights in inches."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update(_STYLE)  # type: ignore[arg-type]
    width = COLUMN if columns == 1 else PAGE
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    axes = figure.subplots(
        len(heights), columns, squeeze=False, gridspec_kw={"height_ratios": list(heights)}
    )
    return figure, axes


def plain(axis: Any, title: str, x: str, y: str) -> None:
    """Title and labels with the names of the glossary, a light grid."""
    axis.set_title(glossary.heading(title))
    axis.set_xlabel(glossary.metric(x))
    axis.set_ylabel("\n".join(glossary.metric(glossary.heading(line)) for line in y.split("\n")))
    axis.grid(axis="y", color="#E6E6E6", linewidth=0.5)
    axis.set_axisbelow(True)


def counts(axis: Any, places: Sequence[int]) -> None:
    """A logarithmic axis of counts, ticks where they are, but for those that would touch."""
    import math

    axis.set_xscale("log")
    places = sorted(places)
    reach = math.log(places[-1] / places[0]) or 1.0
    inches = 0.65 * axis.figure.get_figwidth() / axis.get_gridspec().ncols
    shown: list[int] = []
    for place in reversed(places):  # the largest is always told
        room = 0.065 * max(len(f"{place:,}"), len(f"{places[-1]:,}")) + 0.05
        if not shown or inches * math.log(shown[-1] / place) / reach > room:
            shown.append(place)
    axis.set_xticks(shown, [f"{place:,}" for place in shown])
    axis.minorticks_off()
    axis.margins(x=0.1)


def decades(axis: Any) -> None:
    """Make one axis, such as `axes.xaxis`, logarithmic with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = axis.get_view_interval()
    subs = (1,) if high > 1000 * low else (1, 3) if high > 30 * low else (1, 2, 5)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda x, _: _short(x)))
    axis.set_minor_locator(NullLocator())


def _short(value: float) -> str:
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def legend(figure: Any, axes: Sequence[Any], order: Sequence[str]) -> None:
    """One legend below all panels, in this order, of what is in any of them; never too wide."""
    named: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    shown = [name for name in order if name in named]
    if not shown:
        return
    names = [glossary.row(name) for name in shown]
    figure.set_figheight(
        figure.get_figheight() + 0.1 + 0.15 * -(-len(shown) // _fit(figure, names))
    )
    figure.legend(
        [named[name] for name in shown],
        names,
        loc="outside lower center",
        ncols=_fit(figure, names),
        columnspacing=1.2,
        handlelength=2.2,
    )


def _fit(figure: Any, names: Sequence[str]) -> int:
    """How many columns of a legend fit; entries fill columns downwards."""
    for down in range(1, len(names)):
        columns = -(-len(names) // down)
        longest = [
            max(map(len, names[start : start + down])) for start in range(0, len(names), down)
        ]
        if sum(0.058 * length + 0.42 for length in longest) < figure.get_figwidth():
            return columns
    return 1


def slug(text: str) -> str:
    """Text as the part of a file's name: what is no letter, digit or dot becomes a line."""
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in text.replace(",", "")).strip("_")
