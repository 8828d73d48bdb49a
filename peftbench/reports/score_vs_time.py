"""What is the score after so many training seconds, during a training and when trained so long?"""

import statistics
from collections.abc import Callable
from dataclasses import replace

from peftbench.analysis import convention, costs, grouping
from peftbench.core.run import Record, canonical
from peftbench.reports.base import Report
from peftbench.reports.plotting.line_plots import (
    LEAST_POINTS,
    Panel,
    Points,
    Series,
    curve_points,
    draw_line_plots,
    mean_curve,
)
from peftbench.reports.plotting.palette import Palette
from peftbench.reports.plotting.style import Figure

REPORT = Report(
    name="anytime",
    question="what is the score after so many training seconds?",
    order=5,
    figures=lambda inputs: plot_score_vs_time(inputs.records, inputs.palette, inputs.warning),
    needs=f"runs with at least {LEAST_POINTS} evaluations (train.num_evals), or of several budgets",
)

_CAPTION = (
    "Score by training seconds; tokenising, warm-up passes and evaluation are not counted. {what} "
    "Lines: means over seeds; seeds are faint. A panel holds one device with one number of "
    f"threads{{one}}. {convention.NOTE}"
)
_DURING = (
    "A run's own evaluations{where}, on straight lines in between, the mean where all seeds of a "
    "row have any; the learning rate is still that of the whole budget."
)
_BUDGETS = "Every point is a training of its own, for a budget, scored at its end."

Grouped = tuple[dict[grouping.Row, list[Record]], list[str]]


def plot_score_vs_time(records: list[Record], palette: Palette, warning: str = "") -> list[Figure]:
    """Panels of a task, size and machine: evaluations during training, and ends of budgets."""
    machines = sorted({costs.machine(record) for record in records})
    one = "" if len(machines) > 1 else f" ({costs.called(machines[0])})"
    made = []
    for name, told, grouped, series in (
        ("", _DURING, grouping.of_curves(records), _curves),
        ("budgets", _BUDGETS, _budgets(records), _ends),
    ):
        panels = _panels(records, machines, grouped, series)
        order = list(grouping.labels(*grouped).values())
        caption = _CAPTION.format(what=told.format(where=_where(records)), one=one)
        caption = " ".join(filter(None, [caption, warning]))
        for picture in draw_line_plots(panels, palette, order, caption):
            part = "_".join(filter(None, (name, picture.part)))
            made.append(replace(picture, part=part))
    return made


def _panels(
    records: list[Record],
    machines: list[costs.Machine],
    grouped: Grouped,
    series: Callable[[list[Record]], Series | None],
) -> list[Panel]:
    by_row, split = grouped
    labels = grouping.labels(by_row, split)
    parts = grouping.alike(records)
    made = []
    for one, members in parts:
        metric = members[0].run.task.metrics[0]
        base = convention.baseline(members, metric)
        for machine in machines:
            here = {r.run.key for r in members if costs.machine(r) == machine}
            rows_here = {
                row: [r for r in every if r.run.key in here] for row, every in by_row.items()
            }
            shown = {labels[row]: found for row, r in rows_here.items() if (found := series(r))}
            title = grouping.title(one, dict(parts))
            if len(machines) > 1:
                title += f"\n{costs.called(machine, machines)}"
            if shown:
                level = [] if base is None else [(0.0, 100 * base)]
                made.append(
                    Panel(title, "training seconds", f"{metric} (%)", shown, level, joined=True)
                )
    return made


def _budgets(records: list[Record]) -> Grouped:
    """Rows whose members may differ in their budgets."""
    found, split = grouping.grouped(
        records,
        lambda r: r.run,
        lambda r: (*grouping.sized(r), canonical(r.run.budget)),
        lambda r: r.parameters["trained"],
    )
    return found, split


def _curves(records: list[Record]) -> Series | None:
    """Of seeds that were evaluated several times."""
    metric = records[0].run.task.metrics[0] if records else ""
    seeds = [
        curve_points(r.curve, "seconds", metric, 100)
        for r in records
        if len(r.curve) >= LEAST_POINTS
    ]
    seeds = [points for points in seeds if points]
    return Series(mean_curve(seeds), seeds) if seeds else None


def _ends(records: list[Record]) -> Series | None:
    """Of runs of several budgets: mean seconds and mean score of each; a line for each seed."""
    budgets: dict[str, list[Record]] = {}
    for record in records:
        if record.score is not None:
            budgets.setdefault(canonical(record.run.budget), []).append(record)
    if len(budgets) < 2:
        return None
    seeds: dict[int, Points] = {}
    for record in sorted(records, key=lambda r: r.seconds["train"]):
        if record.score is not None:
            point = record.seconds["train"], 100 * record.score
            seeds.setdefault(record.run.seed, []).append(point)
    mean = sorted(
        (
            statistics.fmean(r.seconds["train"] for r in here),
            statistics.fmean(100 * score for r in here if (score := r.score) is not None),
        )
        for here in budgets.values()
    )
    return Series(mean, list(seeds.values()))


def _where(records: list[Record]) -> str:
    """Said of evaluations that were not on the reporting split."""
    selections = [record.run.checkpoint_selection for record in records]
    held = sum(bool(one.fraction) for one in selections)
    if not held:
        return ""
    return " (on the selection split" + (" where a run has one)" if held < len(selections) else ")")
