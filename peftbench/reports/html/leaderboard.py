"""The first screen beside its means: the answer, ranks, intervals, significantly best rows."""

import statistics

import numpy as np

from peftbench.analysis import best_in_column, grouping, significance
from peftbench.analysis.comparison import PairedComparison, family
from peftbench.analysis.failures import diverged_mark
from peftbench.core.run import Json, Record
from peftbench.core.text import count_of, listed_names
from peftbench.reports import glossary
from peftbench.reports.base import Inputs
from peftbench.reports.html.cells import ScoreCell
from peftbench.reports.plotting import takeaway


def tiles(records: list[Record], found: list[ScoreCell]) -> list[Json]:
    """The four figures of the first screen: runs, methods, seeds, collapsed runs."""
    methods = {record.run.method.name for record in records}
    tasks = {record.run.task.name for record in records}
    seeds = sorted({len(cell.records) for cell in found})
    collapsed = sum(record.collapsed for record in records)
    hours = sum(sum(record.seconds.values()) for record in records) / 3600
    span = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]}–{seeds[-1]}"
    models = listed_names(sorted({record.run.model.name for record in records}), 2)
    return [
        {"value": f"{len(records):,}", "name": "runs", "more": f"{hours:,.1f} hours, {models}"},
        {
            "value": f"{len(methods)}",
            "name": "methods",
            "more": f"on {count_of(len(tasks), 'task')}",
        },
        {"value": span, "name": "seeds", "more": "of each method, task and size"},
        {
            "value": f"{100 * collapsed / len(records):.0f} %",
            "name": "collapsed",
            "more": f"{collapsed:,} of {count_of(len(records), 'run')}",
        },
    ]


def answer(
    pairs: list[PairedComparison], found: list[ScoreCell], labels: dict[grouping.Row, str]
) -> str:
    """One sentence: which methods differ from the baseline; without seeds, which scores highest.

    Args:
        pairs: the comparisons of the folder.
        found: cells of the score table.
        labels: what each row is called.
    """
    return takeaway.sentence(pairs) or _highest(found, labels)


def _highest(found: list[ScoreCell], labels: dict[grouping.Row, str]) -> str:
    """Which row has the highest mean, task by task; nothing here is tested."""
    told = []
    sized = sorted({cell.sized for cell in found})
    for one in sized:
        here = [cell for cell in found if cell.sized == one and cell.score is not None]
        if here:
            top = max(here, key=lambda cell: cell.score or 0.0)
            mark = diverged_mark(top.diverged)
            told.append(
                f"{labels[top.row]}{mark} on {glossary.section(grouping.title(one, sized))}"
            )
    if not told:
        return "No run has a defined score."
    return f"Highest mean: {listed_names(told, 4)}; no difference between methods was tested."


def interval(cell: ScoreCell) -> tuple[float, float] | None:
    """95 % interval of the mean over seeds; None with fewer than two, or equal, scores."""
    effect = significance.student(np.array(cell.defined))
    return None if effect is None else (effect.low, effect.high)


def best(
    inputs: Inputs, by_row: dict[grouping.Row, list[Record]], labels: dict[grouping.Row, str]
) -> dict[grouping.Sized, grouping.Row]:
    """The row of each task and size that is significantly best, see `best_in_column`.

    Only where all predictions can be read, all rows answered the same questions with one budget and
    precision, and each has a score for at least two seeds; never a row of which seeds diverged.
    """
    row_of = {record.run.key: row for row, members in by_row.items() for record in members}
    counted = [grouping.sized(record) for record in inputs.records]
    made: dict[grouping.Sized, grouping.Row] = {}
    for one, members in grouping.alike(inputs.tested):
        rows: dict[grouping.Row, dict[int, Record]] = {}
        for record in members:
            rows.setdefault(row_of[record.run.key], {})[record.run.seed] = record
        whole = len(members) == counted.count(one) <= best_in_column.MOST
        scored = all(record.score is not None for record in members)
        alike = not grouping.have_several_conditions(members)
        if not (whole and scored and alike and len(rows) > 1 and min(map(len, rows.values())) > 1):
            continue
        top = max(rows, key=lambda row: statistics.fmean(r.score or 0 for r in rows[row].values()))
        if inputs.diverged.count(rows[top].values()):
            continue  # the seeds that are left overstate it
        metric = members[0].run.task.metrics[0]
        pairs = family(rows, top, labels, inputs.load, metric, inputs.resamples)
        if best_in_column.below_top(pairs):
            made[one] = top
    return made
