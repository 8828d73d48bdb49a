"""Which differences are there, which are not, and which nobody can tell: each row against one."""

import statistics
from collections.abc import Sequence
from typing import Any

from peftbench.analysis import convention, failures
from peftbench.analysis.comparison import DRAWS, PairedComparison
from peftbench.analysis.significance import DETECTED
from peftbench.core.run import Run
from peftbench.reports import glossary
from peftbench.reports.base import Inputs, Report
from peftbench.reports.plotting import style as drawing
from peftbench.reports.plotting.style import Figure
from peftbench.reports.tables.markdown import Table

REPORT = Report(
    name="paired",
    question="which differences are there?  (--against ROW, --margin POINTS)",
    order=13,
    tables=lambda inputs: (
        [paired_table(*inputs.comparison, _diverged(inputs))] if inputs.pairs else []
    ),
    figures=lambda inputs: plot_paired(inputs.pairs),
    needs="two rows of one budget with a seed in common, and defined scores; where the method that "
    "trains most has several rows, name a baseline with --against",
    page=None,  # the page shows the pairs as a figure
)


def _diverged(inputs: Inputs) -> list[Run]:
    return inputs.diverged.beside(record.run for record in inputs.tested)


def paired_table(
    pairs: list[PairedComparison], split: list[str], diverged: Sequence[Run] = ()
) -> Table:
    """Every pair with its effect in points of the metric.

    Args:
        pairs: from `compare`.
        split: names of the settings in their rows.
        diverged: seeds of their runs that have no score.
    """
    lines = [
        [pair.task, *pair.row, pair.against, f"{pair.seeds} × {pair.examples:,}", *_cells(pair)]
        for pair in pairs
    ]
    columns = ["task", "method", *split, "against", "seeds × examples", *_HEADS]
    counts = {
        (failed + lost, pair.seeds + lost)
        for pair in pairs
        if pair.seeds
        for failed, lost in zip(pair.failed, pair.lost, strict=True)
    }
    bounds = "; ".join(failures.bound(*one) for one in sorted(counts))
    margin = 100 * pairs[0].margin
    notes = [_NOTE.format(margin=f"{margin:g} point" + "s" * (margin != 1), bounds=bounds)]
    notes.append(convention.NOTE)
    if diverged:
        listed = failures.diverged_listed(diverged)
        notes.append(f"Seeds that diverged have no score and are in no comparison: {listed}.")
    return Table("Paired comparisons", columns, lines, 4 + len(split), notes, prose=1)


_HEADS = [
    *("effect", "95 % from", "to", "P(better)", "p", "p, corrected", "detectable"),
    *("collapsed", "verdict"),
]


def _cells(pair: PairedComparison) -> list[str]:
    effect = pair.effect
    if effect is None or pair.superior is None or pair.adjusted is None:
        return [*["–"] * (len(_HEADS) - 2), _collapsed(pair), pair.verdict]
    return [
        *(format_points(value) for value in (effect.value, effect.low, effect.high)),
        f"{pair.superior:.2f}",
        *(f"{p:.3f}" if p >= 0.001 else "< 0.001" for p in (effect.p, pair.adjusted)),
        "–" if effect.detectable != effect.detectable else f"{100 * effect.detectable:.1f}",
        _collapsed(pair),
        pair.verdict,
    ]


def _collapsed(pair: PairedComparison) -> str:
    return f"{pair.failed[0]} / {pair.failed[1]}"


def format_points(value: float) -> str:
    """In hundredths with a sign, which 0 has not."""
    text = f"{100 * value:+.1f}"
    return text[1:] if float(text) == 0 else text


_NOTE = (
    "Points of the task's first metric (hundredths). Rows of one task, size, budget and precision "
    "(and machine, where the budget is in seconds) are a family, compared with the row of the "
    "baseline's method that trained longest; their intervals hold together with 95 % "
    "(Bonferroni), so that better and worse are intervals without 0, and "
    "corrected p below 0.05. Not worse: else, if the interval ends above a loss of {margin}; a "
    "loss beyond its lower end is excluded. "
    f"From {DRAWS:,} resamples of the examples, the same for both sides, and of seeds by Student's "
    "t. One seed compares two models and no methods: nothing is said of other seeds, and p of "
    "accuracies is McNemar's. P(better): a run of the row scores above one of the baseline, ties "
    "as half. Detectable: the least true difference that as many seeds and examples find "
    f"{DETECTED}, after correction; – below three seeds. Collapsed: seeds of the row / of the "
    "baseline; given that it trains: none was seen, and none that diverged, which leaves rates of "
    "failure possible that no such test sees (95 %, Clopper-Pearson; {bounds})."
)


#: Colour, mark, whether it is filled, by the kind of verdict.
_LOOKS = {
    "better": ("#0072B2", "^", True),
    "not worse": ("#009E73", "s", True),
    "undecided": ("#777777", "o", False),
    "worse": ("#D55E00", "v", True),
    "both collapsed": ("#777777", "x", False),
    "one seed": ("#777777", "D", False),
}


_CAPTION = (
    "Difference of mean scores from {against}, in points of the metric, with 95 % intervals over "
    "seeds and examples that hold together within a panel (pairs of one seed are a family of their "
    "own); the grey band is a loss or gain of {margin}. {lost}An interval that reaches far outside "
    "is cut, an arrow says so, and a number says "
    f"where its middle is. {convention.NOTE}"
)

_LOST = "Seeds that diverged have no score and are in no difference. "

#: Rows of a panel and inches of a figure: what a page has room for.
_ROWS, _TALL = 60, 9.0

Cells = dict[str, PairedComparison]


def plot_paired(pairs: list[PairedComparison]) -> list[Figure]:
    """A forest: effects with intervals, a panel a task and size, coloured by verdict.

    Panels of the same rows stand side by side.
    """
    parted: dict[str, Cells] = {}
    for pair in pairs:
        parted.setdefault(_family(pair, pairs), {})[pair.label] = pair
    parted = {
        task: cells for task, cells in parted.items() if any(p.effect for p in cells.values())
    }
    alike: dict[tuple[str, ...], list[tuple[str, Cells]]] = {}
    for task, cells in parted.items():
        alike.setdefault(tuple(cells), []).append((task, cells))
    bands = [
        [
            (task, {label: cells[label] for label in names[start : start + _ROWS]})
            for task, cells in side
        ]
        for names, found in alike.items()
        for start in range(0, len(names), _ROWS)
        for side in (found[at : at + 3] for at in range(0, len(found), 3))
    ]
    pages: list[list[list[tuple[str, Cells]]]] = []
    for band in bands:
        if pages and sum(map(_height, [*pages[-1], band])) <= _TALL:
            pages[-1].append(band)
        else:
            pages.append([band])
    against = " or ".join(dict.fromkeys(pair.against for pair in pairs))
    margin = 100 * pairs[0].margin if pairs else 1
    points = f"{margin:g} point" + "s" * (margin != 1)
    lost = _LOST if any(any(pair.lost) for pair in pairs) else ""
    caption = _CAPTION.format(against=against, margin=points, lost=lost)
    return [
        Figure(_page(page), caption, f"{number + 1}" if number else "")
        for number, page in enumerate(pages)
    ]


def _family(pair: PairedComparison, among: Sequence[PairedComparison]) -> str:
    """The task, and what else tells a family from others of the task."""
    several = {(one.metric, one.against) for one in among if one.task == pair.task}
    return f"{pair.task}, {pair.metric}, {pair.against}" if len(several) > 1 else pair.task


def _height(band: list[tuple[str, Cells]]) -> float:
    return 0.77 + 0.135 * max(3, len(band[0][1]))


def _page(bands: list[list[tuple[str, Cells]]]) -> Any:
    figure, axes = drawing.grid([_height(band) for band in bands], max(map(len, bands)))
    for line, band in zip(axes, bands, strict=True):
        for number, axis in enumerate(line):
            if number < len(band):
                _forest(axis, *band[number], named=number == 0)
            else:
                axis.remove()
    drawing.legend(figure, figure.axes, list(_LOOKS))
    return figure


def _forest(axis: Any, task: str, cells: Cells, named: bool) -> None:
    here = [pair for pair in cells.values() if pair.effect]
    reaches = [max(-pair.effect.low, pair.effect.high) for pair in here if pair.effect]
    margin = next(iter(cells.values())).margin
    reach = 100 * max(5 * margin, 0.05, 2.5 * statistics.median_low(reaches) if reaches else 0.0)
    axis.axvspan(-100 * margin, 100 * margin, color="#E6E6E6", linewidth=0)
    axis.axvline(0, color="#333333", linewidth=0.7)
    for y, pair in enumerate(cells.values()):
        _draw(axis, y, pair, reach)
    axis.set_xlim(*(1.08 * max(-reach, min(_ends(here))), 1.08 * min(reach, max(_ends(here)))))
    axis.set_yticks(range(len(cells)), [glossary.row(label) for label in cells])
    axis.set_ylim(len(cells) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0, labelleft=named)
    one = next(iter(cells.values()))
    drawing.plain(
        axis, task, f"{glossary.metric(one.metric)},\npoints over {glossary.row(one.against)}", ""
    )


def _ends(pairs: list[PairedComparison]) -> list[float]:
    """Ends of all intervals in points, and the margins."""
    ends = [end for p in pairs if p.effect for end in (p.effect.low, p.effect.high)]
    return [100 * end for end in (*ends, -2 * pairs[0].margin, 2 * pairs[0].margin)]


_BOX = {"facecolor": "w", "edgecolor": "none", "pad": 0.5}


def _draw(axis: Any, y: int, pair: PairedComparison, reach: float) -> None:
    if pair.effect is None:
        axis.text(
            0, y, "undefined", ha="center", va="center", fontsize=5, color="#777777", bbox=_BOX
        )
        return
    kind = pair.kind
    colour, mark, fill = _LOOKS[kind]
    low, value, high = (100 * v for v in (pair.effect.low, pair.effect.value, pair.effect.high))
    first, place, last = (min(reach, max(-reach, end)) for end in (low, value, high))
    look = {"color": colour, "linestyle": "none", "markersize": 4}
    axis.plot([first, last], [y, y], color=colour, linewidth=1.2, solid_capstyle="butt")
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
            fontsize=5.5,
            color=colour,
            bbox=_BOX,
        )
