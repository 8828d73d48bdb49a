"""How much does the seed matter? Every seed a dot, by row, task and size."""

import math
import statistics
import textwrap
from typing import Any

from peftbench.analysis import convention, failures, grouping, mean_ranks
from peftbench.analysis.failures import Diverged
from peftbench.core.run import Record
from peftbench.reports import glossary
from peftbench.reports.base import Report
from peftbench.reports.plotting import style as drawing
from peftbench.reports.plotting import takeaway
from peftbench.reports.plotting.palette import Palette
from peftbench.reports.plotting.style import Figure

REPORT = Report(
    name="seeds",
    question="how much does the seed matter?",
    order=7,
    figures=lambda inputs: plot_seeds(
        inputs.records, inputs.palette, takeaway.sentence(inputs.pairs), inputs.diverged
    ),
    needs="records",
)

_CAPTION = (
    "Every seed a dot, the bar their mean; rows with the best mean ranks come first, where all are "
    "of one budget and precision, otherwise those with the highest means in the first panel. Open: "
    "the seed collapsed, it predicts one class or value throughout. Dotted: the "
    f"{convention.BASELINE}. {convention.NOTE}"
)

#: Rows of a panel, panels side by side, inches of a figure: what a page has room for.
_ROWS, _SIDE, _TALL = 60, 3, 9.0

Cell = dict[str, list[Record]]


def plot_seeds(
    records: list[Record], palette: Palette, title: str = "", diverged: Diverged | None = None
) -> list[Figure]:
    """A panel for each task and size; panels with the same rows stand side by side.

    Args:
        records: of any tasks.
        palette: of the folder.
        title: above the first picture.
        diverged: runs without a record, which have no dot.
    """
    diverged = diverged or Diverged()
    by_row, split = grouping.of_records(records)
    labels = grouping.labels(by_row, split)
    parts = grouping.alike(records)
    alike: dict[tuple[str, ...], list[tuple[str, Cell]]] = {}
    for one, members in parts:
        keys = {record.run.key for record in members}
        cell = {
            labels[row]: here
            for row, every in by_row.items()
            if (here := [record for record in every if record.run.key in keys])
        }
        alike.setdefault(tuple(cell), []).append((grouping.title(one, dict(parts)), cell))
    bands = [
        [
            (title, {label: cell[label] for label in names[start : start + _ROWS]})
            for title, cell in side
        ]
        for names, cells in ((_ranked(cells, diverged), cells) for cells in alike.values())
        for start in range(0, len(names), _ROWS)
        for side in (cells[at : at + _SIDE] for at in range(0, len(cells), _SIDE))
    ]
    pages: list[list[list[tuple[str, Cell]]]] = [[]]
    for band in bands:
        if pages[-1] and sum(map(_height, [*pages[-1], band])) > _TALL:
            pages.append([])
        pages[-1].append(band)
    return [
        Figure(
            _page(page, palette, "" if number else title),
            " ".join([_CAPTION, *failures.diverged_told([r.run for r in records], diverged)]),
            "" if number == 0 else f"{number + 1}",
        )
        for number, page in enumerate(pages)
    ]


def _ranked(cells: list[tuple[str, Cell]], diverged: Diverged) -> list[str]:
    """Rows of panels that stand side by side: by mean rank, those without one by their score."""
    label_of: dict[str, str] = {}
    records: list[Record] = []
    first = {label: _mean(here) for label, here in cells[0][1].items()}
    for _, cell in cells:
        for label, here in cell.items():
            records += here
            label_of |= {record.run.key: label for record in here}
    by_row, _ = grouping.of_records(records)
    ranks = mean_ranks.mean_rank(records, diverged)
    place = {label_of[by_row[row][0].run.key]: rank for row, rank in ranks.items()}
    return sorted(first, key=lambda label: (place.get(label, math.inf), -first[label]))


def _mean(records: list[Record]) -> float:
    scores = [record.score for record in records if record.score is not None]
    return statistics.fmean(scores) if scores else -math.inf


def _height(band: list[tuple[str, Cell]]) -> float:
    return 0.6 + 0.125 * max(4, len(band[0][1]))


def _page(bands: list[list[tuple[str, Cell]]], palette: Palette, title: str) -> Any:
    most = max(len(band) for band in bands)
    figure, axes = drawing.grid([_height(band) for band in bands], most)
    for line, band in zip(axes, bands, strict=True):
        for number, axis in enumerate(line):
            if number >= len(band):
                axis.remove()
                continue
            _strip(axis, *band[number], palette, named=number == 0)
    if title:
        lines = textwrap.wrap(title, int(16 * figure.get_figwidth()), break_on_hyphens=False)
        figure.set_figheight(figure.get_figheight() + 0.14 * len(lines))
        figure.suptitle("\n".join(lines), fontsize=7.5, x=0.01, ha="left")
    return figure


def _strip(axis: Any, title: str, cell: Cell, palette: Palette, named: bool) -> None:
    every = [record for here in cell.values() for record in here]
    metric = every[0].run.task.metrics[0]
    looks = palette.looks(cell)
    for y, (label, here) in enumerate(cell.items()):
        colour, mark = looks[label]["color"], looks[label]["marker"]
        for number, record in enumerate(sorted(here, key=lambda r: r.run.seed)):
            off = 0.14 * (number - (len(here) - 1) / 2) if len(here) < 7 else 0.0
            if record.score is None:  # the labels are of one class
                continue
            shape = {"marker": mark, "markersize": 3}
            if record.collapsed:  # open stars and triangles of this size look filled
                shape = {"marker": "o", "markersize": 4, "markerfacecolor": "w"}
            axis.plot(
                [100 * record.score],
                [y + off],
                linestyle="none",
                color=colour,
                **shape,
                markeredgewidth=0.7,
                zorder=3,
            )
        scores = [100 * record.score for record in here if record.score is not None]
        if scores:
            centre = statistics.fmean(scores)
            axis.plot([centre] * 2, [y - 0.38, y + 0.38], color=colour, linewidth=1.4, zorder=2)
    base = convention.baseline(every, metric)
    if base is not None:
        look = {"color": drawing.REFERENCE, "linestyle": ":", "linewidth": 0.9}
        axis.axvline(100 * base, zorder=1, **look)
    drawing.plain(axis, title, f"{metric} (%)", "")
    axis.set_yticks(range(len(cell)), [glossary.row(label) for label in cell])
    axis.tick_params(axis="y", length=0, labelleft=named)
    axis.set_ylim(len(cell) - 0.4, -0.6)
