"""Which differences are there, which are not, and which nobody can tell: each row against one."""

from typing import Any

import numpy as np

from peftbench import figure as drawing
from peftbench.comparison import DRAWS, MARGIN, Pair
from peftbench.table import Table


def table(pairs: list[Pair], split: list[str]) -> Table:
    """Every pair with its effect in points of the metric.

    Args:
        pairs: from `compare`.
        split: names of the settings in their rows.
    """
    lines = [
        [pair.task, *pair.row, pair.against, f"{pair.seeds} × {pair.examples:,}", *_cells(pair)]
        for pair in pairs
    ]
    columns = ["task", "method", *split, "against", "seeds × examples", *_HEADS]
    return Table("Paired comparisons", columns, lines, 4 + len(split), [_NOTE])


_HEADS = ["effect", "95 % from", "to", "P(better)", "p", "p, Holm", "detectable", "verdict"]


def _cells(pair: Pair) -> list[str]:
    effect = pair.effect
    if effect is None or pair.superior is None or pair.adjusted is None:
        return [*["–"] * (len(_HEADS) - 1), pair.verdict]
    return [
        *(_points(value) for value in (effect.value, effect.low, effect.high)),
        f"{pair.superior:.2f}",
        *(f"{p:.3f}" if p >= 0.001 else "< 0.001" for p in (effect.p, pair.adjusted)),
        f"{100 * effect.detectable:.1f}",
        pair.verdict,
    ]


def _points(value: float) -> str:
    """In hundredths with a sign, which 0 has not."""
    text = f"{100 * value:+.1f}"
    return text[1:] if float(text) == 0 else text


_NOTE = (
    "Points of the task's first metric (hundredths); undefined: a run, or one resample in twenty, "
    f"predicts one class throughout. Intervals and p: {DRAWS:,} resamples of the examples, the same"
    " for both sides, and of seeds by Student's t; with one seed p of accuracies is McNemar's, and "
    "nothing is said of other seeds. P(better): a run of the row scores above one of the baseline, "
    "ties as half. Holm: p corrected over the rows of this task and size. Detectable: the least "
    "true difference that as many seeds and examples find four times in five, before correction. "
    "Better, worse: corrected p below 0.05; not worse: else, if the interval ends above -1 point."
)


#: Colour, mark, whether it is filled, by how a verdict begins.
_LOOKS = {
    "better": ("#0072B2", "^", True),
    "not worse": ("#009E73", "s", True),
    "undecided": ("#777777", "o", False),
    "worse": ("#D55E00", "v", True),
}


def plot(pairs: list[Pair]) -> bytes | None:
    """A forest: effects with intervals, a panel a task and size, coloured by verdict.

    What lies far outside of a panel's other intervals is cut there, an arrow says so.
    """
    shown = [pair for pair in pairs if pair.effect]
    tasks = list(dict.fromkeys(pair.task for pair in shown))
    if not tasks:
        return None
    names = list(dict.fromkeys(pair.label for pair in pairs))
    width = 2.3 + 0.07 * max(map(len, names)) / len(tasks)
    figure, axes = drawing.panels(len(tasks), width, 1.4 + 0.24 * len(names))
    for axis, task in zip(axes[0], tasks, strict=True):
        here = [pair for pair in shown if pair.task == task]
        reaches = [max(-pair.effect.low, pair.effect.high) for pair in here if pair.effect]
        reach = 100 * max(5 * MARGIN, 2.5 * float(np.median(reaches)))
        axis.axvspan(-100 * MARGIN, 100 * MARGIN, color="#e6e6e6", linewidth=0)
        axis.axvline(0, color="#333333", linewidth=0.9)
        for pair in pairs:
            if pair.task == task:
                _draw(axis, names.index(pair.label), pair, reach)
        axis.set_xlim(*(1.08 * max(-reach, min(_ends(here))), 1.08 * min(reach, max(_ends(here)))))
        axis.set_yticks(range(len(names)), names if axis is axes[0][0] else [""] * len(names))
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.tick_params(axis="y", length=0)
        drawing.plain(axis, task, f"{here[0].metric}, points\nagainst {here[0].against}", "")
        axis.grid(axis="y", color="#eeeeee", linewidth=0.6)
    drawing.legend(figure, axes, list(_LOOKS))
    return drawing.png(figure)


def _ends(pairs: list[Pair]) -> list[float]:
    """Ends of all intervals in points, and the margins."""
    ends = [end for p in pairs if p.effect for end in (p.effect.low, p.effect.high)]
    return [100 * end for end in (*ends, -2 * MARGIN, 2 * MARGIN)]


_BOX = {"facecolor": "w", "edgecolor": "none", "pad": 0.5}


def _draw(axis: Any, y: int, pair: Pair, reach: float) -> None:
    if pair.effect is None:
        axis.text(
            0, y, "undefined", ha="center", va="center", fontsize=7, color="#777777", bbox=_BOX
        )
        return
    kind = next(kind for kind in _LOOKS if pair.verdict.startswith(kind))
    colour, mark, fill = _LOOKS[kind]
    low, value, high = (100 * v for v in (pair.effect.low, pair.effect.value, pair.effect.high))
    first, place, last = (min(reach, max(-reach, end)) for end in (low, value, high))
    look = {"color": colour, "linestyle": "none", "markersize": 6}
    axis.plot([first, last], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt")
    axis.plot([], [], mark, label=kind, markerfacecolor=colour if fill else "w", **look)
    if low < -reach:
        axis.plot([-reach], [y], "<", **look)
    if high > reach:
        axis.plot([reach], [y], ">", **look)
    if place == value:
        axis.plot([value], [y], mark, markerfacecolor=colour if fill else "w", **look)
    else:  # it lies outside, so its number stands at the arrow
        side, shift = ("left", 0.08) if value < 0 else ("right", -0.08)
        axis.text(
            place + shift * reach,
            y,
            f"{value:+.0f}",
            ha=side,
            va="center",
            fontsize=8,
            color=colour,
            bbox=_BOX,
        )
