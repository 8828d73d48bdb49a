"""Which method is worth its cost? Score by weights, seconds, memory and money, and the front."""

import itertools
import statistics
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from peftbench.analysis import convention, costs, failures, grouping, significance
from peftbench.analysis.failures import Diverged
from peftbench.analysis.pareto import fronts
from peftbench.core.run import Record
from peftbench.reports.base import Report
from peftbench.reports.plotting import annotation
from peftbench.reports.plotting import style as drawing
from peftbench.reports.plotting.palette import Palette, method_of
from peftbench.reports.plotting.style import Figure
from peftbench.results.tuned import Tuned

REPORT = Report(
    name="pareto",
    question="which method is worth its weights, seconds, memory or money?",
    order=6,
    figures=lambda inputs: plot_pareto(
        inputs.records,
        inputs.palette,
        partial(inputs.prices.money, tuned=inputs.tuned) if inputs.prices.known() else None,
        inputs.prices.currency or "",
        inputs.warning,
        inputs.tuned,
        costs.latencies(inputs.evaluated),
        inputs.diverged,
    ),
    needs="two rows with a defined score on one task, size and machine",
)

#: Rows of a panel below which there is no front to see.
_LEAST = 2

_MEMORY = "peak memory (MiB)"

_WITH_TUNING = "training and tuning seconds"

_LATENCY = "latency of one text (ms)"

_LATENCY_NOTE = (
    "Latency: the median of suite=latency, merged where the method can be, each machine by itself. "
)

#: How costs are called of which a longer budget takes more.
_SPENT = ("training ", "money ")

#: Without and with tuned rows.
_MONEY = (
    "Money: by the prices that were given. ",
    "Money: by the prices that were given, for the hours of trials too. ",
)

#: Money of a run, None if nothing of it has a price.
Money = Callable[[Record], float | None]

_CAPTION = (
    "{task}: mean score over seeds by mean cost of a run, logarithmic where it spans a decade. "
    "Line: Pareto's front, rows that no other equals or beats in both and beats in one; those on "
    "it are named and have the 95 % interval of their mean over seeds (an arrow: it goes on), the "
    "others small and pale; "
    "dashed where intervals of neighbours overlap, solid where they do not, over seeds alone: "
    "examples are held fixed, so paired comparisons say what is decided. Rows of several budgets "
    "or precisions share a front over seconds and money, which a longer budget costs, and have one "
    "each over the rest. Weights: "
    "trained, the head left out; a method that trains nothing else stands at 1. Seconds: of "
    "training{tuning}. Memory: the peak while training, of the process on a CPU, of CUDA's "
    "allocator on a GPU. {latency}{money}{level}A panel holds one device with one number of "
    "threads{one}.{lost} "
    f"{convention.NOTE}"
)


def plot_pareto(
    records: list[Record],
    palette: Palette,
    money: Money | None = None,
    currency: str = "",
    warning: str = "",
    tuned: Tuned | None = None,
    latencies: Mapping[costs.Machine, dict[str, float]] | None = None,
    diverged: Diverged | None = None,
) -> list[Figure]:
    """A picture for each task: a line of panels for each size and machine, one for each cost."""
    by_row, split = grouping.of_records(records)
    labels = grouping.labels(by_row, split)
    row_of = {r.run.key: labels[row] for row, members in by_row.items() for r in members}
    machines = sorted({costs.machine(record) for record in records})
    tuned, diverged = tuned or Tuned(), diverged or Diverged()
    seconds = _WITH_TUNING if tuned.choices else "training seconds"
    kinds: dict[str, Money] = {
        "trained weights": lambda r: max(1, r.parameters["trained"]),  # the axis is logarithmic
        seconds: lambda r: costs.seconds_with_tuning(r, tuned),
        _MEMORY: _mebibytes,
    }
    if money is not None:
        kinds[f"money ({currency})"] = money
    parts = grouping.alike(records)
    for where, taken in (latencies or {}).items():
        kinds[_latency(where, latencies or {})] = partial(_latency_of, taken)
    tasks: dict[str, list[tuple[str, dict[str, list[Record]]]]] = {}
    for one, members in parts:
        for machine in machines:
            cell: dict[str, list[Record]] = {}
            for record in members:
                if costs.machine(record) == machine:
                    cell.setdefault(row_of[record.run.key], []).append(record)
            if sum(_score(here) is not None for here in cell.values()) >= _LEAST:
                title = grouping.title(one, dict(parts))
                if len(machines) > 1:
                    title += f", {costs.called(machine, machines)}"
                tasks.setdefault(one[0], []).append((title, cell))
    made = []
    for task, cells in tasks.items():
        order = [label for label in labels.values() if any(label in cell for _, cell in cells)]
        figure, lost = _figure(cells, kinds, palette, order, diverged)
        names = "; ".join(dict.fromkeys(lost))
        every = [r for _, cell in cells for here in cell.values() for r in here]
        level = convention.baseline(every, _metric(every[0])) is not None
        caption = _CAPTION.format(
            task=task,
            lost=f" No room for the names of {names} on a front." if lost else "",
            level=f"Dotted: the {convention.BASELINE}. " if level else "",
            one=", so that means may be over fewer seeds than in tables"
            if len(machines) > 1
            else f" ({costs.called(machines[0])})",
            latency=_LATENCY_NOTE if latencies else "",
            money=_MONEY[bool(tuned.choices)] if money else "",
            tuning=_tuning(every, row_of, tuned) if tuned.choices else " alone",
        )
        gone = failures.diverged_told([record.run for record in records], diverged)
        if diverged.count(every):
            gone.append("Rows of which seeds diverged are on no front.")
        caption = " ".join(filter(None, [caption, *gone, warning]))
        made.append(Figure(figure, caption, drawing.slug(task)))
    return made


def _tuning(records: list[Record], row_of: dict[str, str], tuned: Tuned) -> str:
    """What the seconds of tuned rows are, and which rows have none."""
    gone = {
        row_of[r.run.key]: None for r in records if costs.tuning_seconds(r, tuned) is None
    }  # in the order of the rows
    untuned = {row_of[r.run.key]: None for r in records if r.run.key not in tuned.choices}
    told = " and of all trials that the learning rate was chosen from"
    if untuned:
        told += f", of training alone for {', '.join(untuned)}, whose rate was not chosen here"
    if gone:
        told += f"; none of {', '.join(gone)}, tuned on another machine"
    return told


def _latency(where: costs.Machine, among: Iterable[costs.Machine]) -> str:
    """What the axis of latencies on a machine is called: machines have axes of their own."""
    several = len(list(among)) > 1
    return f"{_LATENCY}, {costs.called(where, among)}" if several else _LATENCY


def _latency_of(taken: Mapping[str, float], record: Record) -> float | None:
    return taken.get(record.run.key)


def _mebibytes(record: Record) -> float | None:
    found = costs.peak(record)
    return None if found is None else found / 2**20


def points(
    cell: dict[str, list[Record]], cost: Money, some: bool = False
) -> dict[str, tuple[float, float]]:
    """Mean score in percent and mean cost of each row that has both.

    Args:
        cell: records by row.
        cost: of one.
        some: whether the cost of some seeds is that of the row, as it does not vary with them.
    """
    found = {}
    for label, here in cell.items():
        score, paid = _score(here), [value for r in here if (value := cost(r)) is not None]
        if score is not None and paid and (some or len(paid) == len(here)):
            found[label] = score, statistics.fmean(paid)
    return found


def _metric(record: Record) -> str:
    name: str = record.run.task.metrics[0]
    return name


def _score(records: list[Record]) -> float | None:
    known = [100 * record.score for record in records if record.score is not None]
    return statistics.fmean(known) if known else None


def _figure(
    cells: list[tuple[str, dict[str, list[Record]]]],
    kinds: dict[str, Money],
    palette: Palette,
    order: list[str],
    diverged: Diverged,
) -> tuple[Any, list[str]]:
    """The picture, and rows on a front that are not named there."""
    kinds = {
        kind: cost
        for kind, cost in kinds.items()
        if any(points(cell, cost, kind.startswith(_LATENCY)) for _, cell in cells)
    }
    figure, axes = drawing.grid([2.0] * len(cells), len(kinds))
    named, drawn = [], set()
    for line, (title, cell) in zip(axes, cells, strict=True):
        bars = []
        for axis, (kind, cost) in zip(line, kinds.items(), strict=True):
            first = axis is line[0]
            if not first:
                axis.sharey(line[0])
            metric = _metric(next(iter(cell.values()))[0])
            found = points(cell, cost, kind.startswith(_LATENCY))
            drawing.plain(axis, "", kind, f"{metric} (%)" if first else "")
            if first:
                axis.set_title(title, loc="left")
            axis.tick_params(labelleft=first)
            if not found:
                why = {_MEMORY: "not measured", _WITH_TUNING: "tuned on other machines"}
                missing = "no price known" if kind.startswith("money") else "not measured"
                axis.text(0.5, 0.5, why.get(kind, missing), transform=axis.transAxes, ha="center")
                continue
            parts = _fronts(found, cell, kind.startswith(_SPENT), diverged)
            best = [label for part in parts for label in part]
            for label in order:
                if label in found:
                    _mark(axis, found[label], palette.look(method_of(label)), label in best)
            reach = {label: _interval(cell[label]) for label in best}
            lines = []
            for part in parts:
                lines += _front(axis, [(*found[label][::-1], reach[label]) for label in part])
            runs = [record for here in cell.values() for record in here]
            base = convention.baseline(runs, metric)
            if base is not None:
                look = {"color": drawing.REFERENCE, "linestyle": ":", "linewidth": 0.9}
                lines.append(axis.axhline(100 * base, zorder=0, **look))
            _scale(axis, [cost for _, cost in found.values()])
            bars.append((axis, {name: (found[name][1], reach[name]) for name in best}))
            on = {name: (*found[name], palette.look(method_of(name))["color"]) for name in best}
            named.append((axis, on, list(found.values()), lines))
            drawn |= {method_of(label) for label in found}
        _bars(line[0], bars, palette)
    methods = [method for method in dict.fromkeys(map(method_of, order)) if method in drawn]
    for method in methods:
        look = palette.look(method) | {"linestyle": "none"}
        axes[0][0].plot([], [], label=method, **look)
    drawing.legend(figure, [axes[0][0]], methods)
    return figure, annotation.points(figure, named)


def _fronts(
    found: dict[str, tuple[float, float]],
    cell: dict[str, list[Record]],
    across: bool,
    diverged: Diverged,
) -> list[list[str]]:
    """Fronts of these points: one, or one for each budget and precision.

    Args:
        found: score and cost by row.
        cell: records by row.
        across: whether rows of several budgets and precisions, and of none, share one.
        diverged: runs without a record, beside which no row is on a front.
    """
    whole = {
        label: point
        for label, point in found.items()
        if not diverged.count(cell[label]) and (across or not cell[label][0].run.untrained)
    }
    return fronts(whole, lambda label: across or grouping.conditions(cell[label][0]))


def _interval(records: list[Record]) -> tuple[float, float] | None:
    """95 % interval of the mean score in percent, by Student's t; None where seeds are too few."""
    known = np.array([100 * record.score for record in records if record.score is not None])
    effect = significance.student(known)
    return None if effect is None else (effect.low, effect.high)


Reach = tuple[float, float] | None


def _front(axis: Any, points: list[tuple[float, float, Reach]]) -> list[Any]:
    """Steps from point to point of a front, dashed between two whose intervals overlap."""
    lines = []
    for (x, y, one), (x2, y2, two) in itertools.pairwise(points):
        decided = one is not None and two is not None and one[1] < two[0]
        look = {"color": "#444444", "linewidth": 0.8, "linestyle": "-" if decided else (0, (3, 2))}
        lines += axis.step([x, x2], [y, y2], where="post", zorder=1, **look)
    return lines


def _bars(
    first: Any, bars: list[tuple[Any, dict[str, tuple[float, Reach]]]], palette: Palette
) -> None:
    """Intervals of the rows on a front; they do not widen the axis, an arrow shows a cut."""
    low, high = first.get_ylim()
    for axis, best in bars:
        for label, (x, reach) in best.items():
            if reach is None:
                continue
            look = {"color": palette.look(method_of(label))["color"], "alpha": 0.6, "zorder": 1}
            ends = [max(low, reach[0]), min(high, reach[1])]
            axis.plot([x, x], ends, linewidth=0.7, **look)
            arrow = {"linestyle": "none", "markersize": 3, "clip_on": False} | look
            if reach[0] < low:
                axis.plot([x], [low], "v", **arrow)
            if reach[1] > high:
                axis.plot([x], [high], "^", **arrow)
    first.set_ylim(low, high)


def _mark(axis: Any, point: tuple[float, float], look: dict[str, Any], best: bool) -> None:
    size = (
        {"markersize": 5, "zorder": 3} if best else {"markersize": 3.2, "alpha": 0.5, "zorder": 2}
    )
    axis.plot([point[1]], [point[0]], **look | {"linestyle": "none", "markeredgewidth": 0} | size)


def _scale(axis: Any, paid: list[float]) -> None:
    """Logarithmic over a decade; else with ticks that can be read."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.margins(0.08, 0.13)
    if min(paid) > 0 and max(paid) > 10 * min(paid):
        drawing.decades(axis.xaxis)
    else:
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.6g}"))
