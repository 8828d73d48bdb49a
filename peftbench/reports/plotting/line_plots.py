"""Figures of lines: few rows share a panel; many get a panel for each method, the others grey."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from peftbench.analysis import convention, grouping
from peftbench.core.evaluation import Evaluated
from peftbench.reports import glossary
from peftbench.reports.plotting import annotation
from peftbench.reports.plotting import style as drawing
from peftbench.reports.plotting.palette import MarkerStyle, Palette, method_of
from peftbench.reports.plotting.style import Figure

Points = list[tuple[float, float]]

#: Rows that can be told apart in one panel.
MOST = 8

#: Evaluations of a run from which its curve says more than a straight line.
LEAST_POINTS = 4

#: Panels of one figure, and rows of a method that its panel names.
_PAGE, _NAMED = 9, 5

_APART = "A panel a method, its best five rows are named; grey: all other rows."
_OWN = "A panel a method, with a scale of its own; its best five rows are named."


@dataclass(frozen=True)
class Series:
    """A row in a panel.

    Attributes:
        mean: over seeds; may be empty.
        seeds: points of each seed.
        spread: standard deviation at each point of the mean, None where there is one seed.
        after: a score that stands alone, at the right of the last place.
        collapsed: whether each seed did, whose dots are then open; empty where it is not known.
    """

    mean: Points
    seeds: list[Points] = field(default_factory=list)
    spread: list[float | None] = field(default_factory=list)
    after: float | None = None
    collapsed: list[bool] = field(default_factory=list)


@dataclass(frozen=True)
class Panel:
    """Rows of one task.

    Attributes:
        series: by label.
        level: the constant prediction's score by place.
        places: of ticks on a logarithmic axis of counts; None is a plain axis.
        joined: whether the points of a seed are a line; else they are dots.
        loss: whether less is better, and rows of different methods do not compare; heights over
            more than a decade are then logarithmic.
        span: the least and the greatest height that there can be, at which bars end.
    """

    title: str
    x: str
    y: str
    series: dict[str, Series]
    level: Points = field(default_factory=list)
    places: Sequence[int] | None = None
    joined: bool = False
    loss: bool = False
    span: tuple[float, float] = (-math.inf, math.inf)

    @property
    def wide(self) -> bool:
        """Whether the places span more than a decade."""
        return _decade(x for x, _ in self._points())

    @property
    def tall(self) -> bool:
        """Whether losses do."""
        return self.loss and _decade(y for _, y in self._points())

    def _points(self) -> Points:
        every = self.series.values()
        return [point for one in every for points in (one.mean, *one.seeds) for point in points]


def _decade(values: Iterable[float]) -> bool:
    """Whether these are positive, and the largest is more than ten times the smallest."""
    every = sorted(values)
    return bool(every) and 0 < 10 * every[0] < every[-1]


def of_suite(
    found: list[Evaluated],
    trained: dict[str, int],
    palette: Palette,
    x: str,
    caption: str,
    curve: Callable[[Evaluated], Points],
) -> list[Figure]:
    """A panel for each task and size that a suite was asked for, a line for each row.

    Args:
        found: evaluations by the suite, whose findings name their metric.
        trained: trained parameters of each run, by key.
        palette: of the folder.
        x: what the places are.
        caption: of all.
        curve: points of one evaluation, in percent; none if it is not to be drawn.
    """
    sections = grouping.sections(found, trained)
    panels = []
    for section in sections:
        labels = grouping.labels(section.rows, section.split)
        series = {}
        for row, members in section.rows.items():
            if seeds := [points for e in members if (points := curve(e))]:
                series[labels[row]] = Series(mean_curve(seeds), seeds)
        y = f"{section.found[0].findings['metric']} (%)"
        if series:
            panels.append(Panel(section.title, x, y, series, joined=True))
    return draw_line_plots(panels, palette, grouping.series(sections, trained), caption)


def draw_line_plots(
    panels: Sequence[Panel], palette: Palette, order: list[str], caption: str
) -> list[Figure]:
    """Pictures of all panels: those of few rows on one page, a page for each of many.

    Args:
        panels: of any number.
        palette: of the folder.
        order: labels of all rows, as legends have them.
        caption: of all.
    """
    few = [panel for panel in panels if len(panel.series) <= MOST]
    made = []
    for start in range(0, len(few), _PAGE):
        part = "" if start == 0 else f"{start // _PAGE + 1}"
        made.append(Figure(_together(few[start : start + _PAGE], palette, order), caption, part))
    for panel in panels:
        if len(panel.series) > MOST:
            told = f"{panel.title}. {caption} {_OWN if panel.loss else _APART}"
            made.append(Figure(_apart(panel, palette, order), told, drawing.slug(panel.title)))
    return made


def _together(panels: Sequence[Panel], palette: Palette, order: list[str]) -> Any:
    looks = palette.looks(order)
    figure, axes = drawing.panels(len(panels))
    flat = [axis for (axis,) in axes]
    named = []
    for axis, panel in zip(flat, panels, strict=True):
        shown = [label for label in order if label in panel.series]
        for number, label in enumerate(shown):
            off = number - (len(shown) - 1) / 2
            series = panel.series[label]  # without a mean it has no end to be named at
            _row(axis, panel, series, looks[label], "" if series.mean else label, off)
        _frame(axis, panel)
        drawing.plain(axis, panel.title, panel.x, panel.y)
        means = {label: one for label in shown if (one := panel.series[label]).mean}
        _widen(axis, max((len(glossary.row(label)) for label in means), default=0))
        ends = [(_last(one), label, looks[label]["color"]) for label, one in means.items()]
        named.append((axis, ends))
    drawing.legend(figure, flat, [*order, convention.BASELINE])
    annotation.ends(figure, named)
    return figure


def _widen(axis: Any, letters: int) -> None:
    """Make room at the right of the lines for so many letters."""
    left, right = axis.get_xlim()
    scale = axis.xaxis.get_transform()
    low, high = scale.transform([left, right])
    high = low + (high - low) / (1 - min(0.4, 0.024 * letters))
    axis.set_xlim(left, scale.inverted().transform(high))


def _apart(panel: Panel, palette: Palette, order: list[str]) -> Any:
    methods = list(dict.fromkeys(method_of(label) for label in order if label in panel.series))
    side = 4
    figure, axes = drawing.grid([1.35] * -(-len(methods) // side), side)
    flat = list(axes.flat)
    for axis in flat[len(methods) :]:
        axis.remove()
    named = []
    for place, (axis, method) in enumerate(zip(flat, methods, strict=False)):
        own = [label for label in order if label in panel.series and method_of(label) == method]
        for label, series in panel.series.items():
            if label not in own and not panel.loss:
                xs, ys = zip(*series.mean, strict=True) if series.mean else ((), ())
                axis.plot(xs, ys, color=drawing.QUIET, linewidth=0.6, zorder=1)
        looks = palette.looks(own)
        ranked = sorted(own, key=lambda label: _rank(panel, label))
        for label in own:
            _row(axis, panel, panel.series[label], looks[label], "", 0)
        _frame(axis, panel, quiet=True)
        last_row = place + side >= len(methods)
        first = place % side == 0
        drawing.plain(axis, method, panel.x if last_row else "", panel.y if first else "")
        ends = [
            (_last(panel.series[label]), label.removeprefix(f"{method}, "), looks[label]["color"])
            for label in ranked[:_NAMED]
            if len(own) > 1 and panel.series[label].mean
        ]
        named.append((axis, ends))
    letters = max((len(t) for _, ends in named for _, t, _ in ends), default=0)
    _share(flat[: len(methods)], letters, heights=not panel.loss)
    annotation.ends(figure, named)
    return figure


def _rank(panel: Panel, label: str) -> float:
    """The best at its end comes first; rows without a mean come last."""
    mean = panel.series[label].mean
    if not mean:
        return float("inf")
    return mean[-1][1] if panel.loss else -mean[-1][1]


def _last(series: Series) -> tuple[float, float]:
    """The last place, or the one to the right of it that a lone score has, and the last height."""
    x, y = series.mean[-1]
    return (x if series.after is None else 1.25 * x), y


def _row(
    axis: Any, panel: Panel, series: Series, look: MarkerStyle, label: str, off: float
) -> None:
    """One row: seeds faint, the mean above them, bars of its standard deviation.

    Args:
        axis, panel: where.
        series: what.
        look: of the row.
        label: in the legend; nothing if empty.
        off: steps by which points at one count are moved aside, or they hide each other.
    """
    move: Callable[[float], float] = (lambda x: x * 1.018**off) if panel.places else (lambda x: x)
    faint = {"color": look["color"], "alpha": 0.35, "markeredgewidth": 0}
    collapsed = series.collapsed or [False] * len(series.seeds)
    for points, gone in zip(series.seeds, collapsed, strict=True):
        xs, ys = [move(x) for x, _ in points], [y for _, y in points]
        if panel.joined:
            dots = {"marker": look["marker"], "markersize": 2} if len(xs) == 1 else {}
            axis.plot(xs, ys, linewidth=0.6, zorder=2, **faint, **dots)
        else:
            dot = {"marker": look["marker"], "markersize": 3, "linestyle": "none"}
            face = {"markerfacecolor": "w", "markeredgewidth": 0.7} if gone else {}
            axis.plot(xs, ys, zorder=3, **faint | dot | {"alpha": 0.6} | face)
    xs, ys = [move(x) for x, _ in series.mean], [y for _, y in series.mean]
    marked: MarkerStyle = {} if len(xs) <= 12 else {"marker": "none"}
    if not panel.joined:  # the dots have the row's mark
        marked = {"marker": "_", "markersize": 5}
    axis.plot(xs, ys, zorder=3, **look | marked)
    bars = [(x, y, sd) for x, y, sd in zip(xs, ys, series.spread, strict=False) if sd is not None]
    if bars:
        at, height, _ = zip(*bars, strict=True)
        least, most = panel.span
        ends = [[y - max(y - sd, least), min(y + sd, most) - y] for _, y, sd in bars]
        reach = list(zip(*ends, strict=True))
        axis.errorbar(at, height, reach, fmt="none", ecolor=look["color"], elinewidth=0.7, zorder=2)
    if series.after is not None:
        alone = look | {"linestyle": "none", "markerfacecolor": "w", "markersize": 5}
        axis.plot([_last(series)[0]], [series.after], zorder=3, **alone)
    if label:
        axis.plot([], [], label=label, **look)


def _frame(axis: Any, panel: Panel, quiet: bool = False) -> None:
    """The constant prediction, and ticks at counts."""
    label = {} if quiet else {"label": convention.BASELINE}
    look = {"color": drawing.REFERENCE, "linestyle": ":", "linewidth": 0.9}
    if panel.level and len({round(y, 6) for _, y in panel.level}) == 1:
        axis.axhline(panel.level[0][1], zorder=1, **look, **label)
    elif panel.level:
        axis.plot(*zip(*panel.level, strict=True), zorder=1, **look, **label)
    if panel.places:
        drawing.counts(axis, panel.places)
    elif panel.wide:
        drawing.decades(axis.xaxis)
    elif few := _few_places(panel):
        axis.set_xticks(few, [f"{place:g}" for place in few])
    if panel.tall and not quiet:
        drawing.decades(axis.yaxis)


def _few_places(panel: Panel) -> list[float]:
    """The places of all lines where these are few and apart, such as numbers of demonstrations."""
    places = sorted({x for series in panel.series.values() for x, _ in series.mean})
    if not 1 < len(places) <= 6:
        return []
    least = min(after - before for before, after in pairwise(places))
    return places if least > (places[-1] - places[0]) / 8 else []


def _share(axes: Sequence[Any], letters: int, heights: bool) -> None:
    """One range of places and, if asked, heights, with room at the right for so many letters.

    Only the panels at the edges tell what all share.
    """
    low = min(axis.get_ylim()[0] for axis in axes), min(axis.get_xlim()[0] for axis in axes)
    high = max(axis.get_ylim()[1] for axis in axes), max(axis.get_xlim()[1] for axis in axes)
    for place, axis in enumerate(axes):
        if heights:
            axis.set_ylim(low[0], high[0])
        axis.set_xlim(low[1], high[1])
        scale = axis.xaxis.get_transform()
        left, right = scale.transform([low[1], high[1]])
        right = left + (right - left) / (1 - min(0.5, 0.036 * letters))
        axis.set_xlim(low[1], scale.inverted().transform(right))
        axis.tick_params(
            labelleft=place % 4 == 0 or not heights, labelbottom=place + 4 >= len(axes)
        )


def mean_curve(seeds: list[Points]) -> Points:
    """The mean of straight lines between points, at every place where one of them bends.

    It reaches from where the last curve begins to where the first one ends: outside it would be a
    mean over fewer seeds.

    Args:
        seeds: points of each seed, by place.
    """
    seeds = [points for points in seeds if points]
    if not seeds:
        return []
    first, last = max(points[0][0] for points in seeds), min(points[-1][0] for points in seeds)
    if first > last:
        return []
    places = sorted({first, last, *(x for points in seeds for x, _ in points if first < x < last)})
    heights = [np.interp(places, [x for x, _ in p], [y for _, y in p]) for p in seeds]
    return [(x, float(y)) for x, y in zip(places, np.mean(heights, axis=0), strict=True)]


def defined_points(points: list[tuple[float, float | None]]) -> Points:
    """What comes after the last undefined point: a line across one would be made up."""
    kept: Points = []
    for x, y in points:
        kept = [] if y is None else [*kept, (x, y)]
    return kept


def curve_points(curve: list[dict[str, Any]], x: str, y: str, scale: float = 1) -> Points:
    """Of a record's curve."""
    return defined_points([(p[x], None if p.get(y) is None else scale * p[y]) for p in curve])
