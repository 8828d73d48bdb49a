"""What a score costs: seconds, operations, storage, money; what it takes to come near the best.

Money is counted from a file of prices that the user fills in; what has no price has no cost here.
"""

import math
import statistics

from peftbench.analysis import convention, costs, failures, grouping
from peftbench.analysis.costs import Prices, stored
from peftbench.analysis.failures import Diverged
from peftbench.analysis.pareto import pareto_front
from peftbench.core.run import Record
from peftbench.reports.base import Report
from peftbench.reports.tables.markdown import Table
from peftbench.results.tuned import Tuned

#: Parts of the reference's score that count as near.
NEAR = (0.95, 0.99)

REPORT = Report(
    name="spending",
    question="what does a score cost, and what does it take to come near the best?",
    order=9,
    tables=lambda inputs: [
        spending_table(inputs.records, inputs.prices, inputs.warning, inputs.tuned, inputs.diverged)
    ],
    page=("costs", 1),
)


def spending_table(
    records: list[Record],
    prices: Prices,
    warning: str = "",
    tuned: Tuned | None = None,
    diverged: Diverged | None = None,
) -> Table:
    """Method × task: score, spending, seconds to come near the reference, the Pareto front.

    The reference of a task is the run that trains everything, or what trains most, where none does.
    Runs of several machines have lines of their own, which are compared on one machine only. A
    warning stands below. Where learning rates were chosen, money and front count their trials. A
    row of which seeds diverged is on no front.
    """
    tuned, diverged = tuned or Tuned(), diverged or Diverged()
    machines = sorted({costs.machine(record) for record in records})
    by_row, split = grouping.of_records(records)
    lines = []
    for task, same in grouping.alike(records):
        keys = {record.run.key for record in same}
        every = {
            row: [record for record in members if record.run.key in keys]
            for row, members in by_row.items()
        }
        every = {row: here for row, here in every.items() if here}
        reference = _reference(next(iter(every.values())))  # rows that train most come first
        for machine in machines:
            cells = {
                row: [record for record in members if costs.machine(record) == machine]
                for row, members in every.items()
            }
            cells = {row: here for row, here in cells.items() if here}
            title = f"{task[0]} {task[1]:,}"
            if len(machines) > 1:
                title += f", {costs.called(machine, machines)}"
            lines += _lines(title, cells, reference, prices, tuned, diverged)
    paid = [prices.currency or ""] if prices.known() else []
    reach = [f"s to {100 * part:.0f} % of reference" for part in NEAR]
    columns = [
        "method",
        *split,
        "task",
        "score",
        "train s",
        *(["tuning"] if tuned.choices else []),
        "TFLOP",
        "saved MB",
        *paid,
        *reach,
        "Pareto front",
    ]
    return Table(
        "Spending",
        columns,
        lines,
        2 + len(split),
        [
            *[warning] * bool(warning),
            _NOTE,
            *([f"{costs.tuning_note(records, tuned)} {_TUNING}"] if tuned.choices else []),
            convention.note({record.run.task.kind for record in records}),
            *failures.diverged_notes([record.run for record in records], diverged),
            *tuned.notes(record.run.key for record in records),
        ],
    )


_NOTE = (
    "Train s: mean training seconds. Saved MB: trained weights and head in fp32. S to 95 % of "
    "reference: training seconds until the curve first reaches that part of the way from the "
    "constant prediction's score to that of the task's first row, median over all seeds; one that "
    "never does takes longer than the longest curve (> its seconds, where that is the median), and "
    "how many do is said where not all do (– where the reference is not above the constant "
    "prediction, or where curves are not of the whole reporting split). Pareto front: no other "
    "method of the task whose time is known, of whatever budget, scores higher in less training "
    "time; – where it is not known, or seeds diverged. Seconds compare on one device."
)

_TUNING = "Pareto front and money count them with the training of a run; s to 95 % does not."


def _lines(
    title: str,
    cells: dict[grouping.Row, list[Record]],
    reference: tuple[float, float] | None,
    prices: Prices,
    tuned: Tuned,
    diverged: Diverged,
) -> list[list[str]]:
    """Lines of one task on one machine."""
    lost = {row: diverged.count(here) for row, here in cells.items()}
    points = {
        row: (None if lost[row] else _score(here), costs.mean_with_tuning(here, tuned))
        for row, here in cells.items()
    }
    front = pareto_front(points)
    lines = []
    for row, here in cells.items():
        money = [value for record in here if (value := prices.money(record, tuned)) is not None]
        flops = [record.flops for record in here if record.flops is not None]
        paid = f"{statistics.fmean(money):.4f}" if len(money) == len(here) else "–"
        lines.append(
            [
                *row,
                title,
                grouping.spread([record.score for record in here])
                + failures.diverged_mark(lost[row]),
                f"{_seconds(here):,.0f}",
                *([costs.tuning_text(here, tuned)] if tuned.choices else []),
                f"{statistics.fmean(flops) / 1e12:,.1f}" if flops else "–",
                f"{stored(here[0]) / 1e6:,.2f}",
                *([paid] if prices.known() else []),
                *(_near(here, lost[row], reference, part) for part in NEAR),
                "–" if None in points[row] else "yes" if row in front else "",
            ]
        )
    return lines


def _score(records: list[Record]) -> float | None:
    defined = [record.score for record in records if record.score is not None]
    return statistics.fmean(defined) if defined else None


def _reference(records: list[Record]) -> tuple[float, float] | None:
    """Scores of the constant prediction and to come near; None where the latter is not higher."""
    score = _score(records)
    base = convention.baseline(records, records[0].run.task.metric) or 0.0
    return None if score is None or score <= base else (base, score)


def _seconds(records: list[Record]) -> float:
    return statistics.fmean(record.seconds["train"] for record in records)


def _near(
    records: list[Record], lost: int, reference: tuple[float, float] | None, part: float
) -> str:
    """The median over seeds, of which those that diverged, or never come near, take for ever."""
    if reference is None or records[0].run.untrained:
        return "–"
    base, score = reference
    goal = base + part * (score - base)
    taken, longest = [math.inf] * lost, 0.0
    for record in records:
        metric = record.run.task.metrics[0]
        held_out = record.run.checkpoint_selection.fraction or "curve_examples" in record.work
        points = [p for p in record.curve if not held_out and p.get(metric) is not None]
        if not points:
            return "–"
        longest = max(longest, points[-1]["seconds"])
        taken.append(next((p["seconds"] for p in points if p[metric] >= goal), math.inf))
    reached = sum(map(math.isfinite, taken))
    some = f" ({reached} of {len(taken)})" if reached < len(taken) else ""
    middle = statistics.median(taken)
    return (f"{middle:,.0f}" if math.isfinite(middle) else f"> {longest:,.0f}") + some
