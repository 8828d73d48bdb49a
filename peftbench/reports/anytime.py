"""What is the score after so many training seconds, during a training and when trained so long?"""

import statistics
from collections.abc import Callable

from peftbench import costs, curves, rows
from peftbench.figure import Picture
from peftbench.lines import Panel, Series, draw
from peftbench.palette import Palette
from peftbench.run import Json, Record, canonical

#: What it takes.
NEEDS = "runs with several evaluations (train.evaluations), or of several budgets"

_CAPTION = (
    "Score by training seconds; tokenising, warm-up passes and evaluation are not counted. {kinds}"
    "Lines: means over seeds; seeds are faint. Undefined scores, of runs that predict one class "
    "throughout, are left out. A panel holds one device with one number of threads{one}."
)
_DURING = (
    "During training: a run's own evaluations{where}, on straight lines in between, the mean where "
    "all its seeds have any; the learning rate is still that of the whole budget. "
)
_BUDGET = "By budget: runs that were trained for no longer, scored at their end. "


def plot(records: list[Record], palette: Palette) -> list[Picture]:
    """Panels of a task, size and machine: evaluations during training, and ends of budgets."""
    machines = sorted({costs.machine(record) for record in records})
    panels: list[Panel] = []
    order: dict[str, None] = {}
    kinds = []
    sized = [one for one, _ in rows.alike(records)]
    for kind, find, told in (
        ("during training", _during, _DURING),
        ("by budget", _budgets, _BUDGET),
    ):
        by_row, split = find(records)
        labels = rows.labels(by_row, split)
        found = []
        for one, members in rows.alike(records):
            for machine in machines:
                here = {r.run.key for r in members if costs.machine(r) == machine}
                shown = {
                    labels[row]: series
                    for row, every in by_row.items()
                    if (series := _SERIES[kind]([r for r in every if r.run.key in here]))
                }
                if not shown:
                    continue
                metric = members[0].run.task["metrics"][0]
                title = rows.title(one, sized)
                title += f", {kind}"
                if len(machines) > 1:
                    title += f"\n{costs.called(machine)}"
                base = [100 * t for r in members if (t := r.trivial[metric]) is not None]
                level = [(0.0, statistics.fmean(base))] if base else []
                found.append(
                    Panel(title, "training seconds", f"{metric} (%)", shown, level, None, True)
                )
                order |= dict.fromkeys(label for label in labels.values() if label in shown)
        if found:
            kinds.append(told.format(where=_where(records)))
        panels += found
    one = "" if len(machines) > 1 else f" ({costs.called(machines[0])})"
    return draw(panels, palette, list(order), _CAPTION.format(kinds="".join(kinds), one=one))


Grouped = tuple[dict[rows.Row, list[Record]], list[str]]


def _during(records: list[Record]) -> Grouped:
    return rows.of_records(records)


def _budgets(records: list[Record]) -> Grouped:
    """Rows whose members may differ in their budgets."""
    found, split = rows.grouped(
        records,
        lambda r: r.run,
        lambda r: (*rows.sized(r), canonical(r.run.budget)),
        lambda r: r.parameters["trained"],
    )
    return found, split


def _curves(records: list[Record]) -> Series | None:
    """Of seeds that were evaluated several times."""
    metric = records[0].run.task["metrics"][0] if records else ""
    seeds = [curves.within(r.curve, "seconds", metric, 100) for r in records if len(r.curve) > 1]
    seeds = [points for points in seeds if points]
    return Series(curves.mean(seeds), seeds) if seeds else None


def _ends(records: list[Record]) -> Series | None:
    """Of runs of several budgets: mean seconds and mean score of each; a line for each seed."""
    budgets: dict[str, list[Record]] = {}
    for record in records:
        if record.score is not None:
            budgets.setdefault(canonical(record.run.budget), []).append(record)
    if len(budgets) < 2:
        return None
    seeds: dict[int, curves.Points] = {}
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


_SERIES: dict[str, Callable[[list[Record]], Series | None]] = {
    "during training": _curves,
    "by budget": _ends,
}


def _where(records: list[Record]) -> str:
    """Said of evaluations that were not on the reporting split."""
    selects: list[Json] = [record.run.select for record in records]
    held = sum(bool(select.get("fraction")) for select in selects)
    if not held:
        return ""
    return " (on the selection split" + (" where a run has one)" if held < len(selects) else ")")
