"""Which method scores what: method × task, mean ± standard deviation over seeds, n in each cell."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from peftbench.analysis import convention, failures, grouping
from peftbench.analysis.comparison import PairedComparison
from peftbench.analysis.costs import (
    MIXED,
    machine,
    mean_peak,
    mean_with_tuning,
    tuning_note,
    tuning_text,
)
from peftbench.analysis.failures import Diverged
from peftbench.analysis.significance import DETECTED
from peftbench.core import revisions
from peftbench.core.run import Record
from peftbench.metrics import task_metrics
from peftbench.reports.base import Report, listed
from peftbench.reports.tables.markdown import Table
from peftbench.results.tuned import FIGURES as TUNED_FIGURES
from peftbench.results.tuned import Tuned

Column = tuple[str, str, int]  # task, metric, training examples

SCORES = Report(
    name="scores",
    question="which method scores what?",
    order=1,
    tables=lambda inputs: [scores(inputs.records, inputs.pairs, inputs.tuned, inputs.diverged)],
    csv=lambda inputs: figures(inputs.records, inputs.tuned, inputs.diverged),
    after_run=True,
    page=("scores", 1),
)

OTHER_METRICS = Report(
    name="metrics",
    question="what are the metrics that are not primary?",
    order=2,
    tables=lambda inputs: listed(other_metrics(inputs.records, inputs.tuned, inputs.diverged)),
    after_run=True,
    page=("scores", 2),
)

COSTS = Report(
    name="costs",
    question="what does training take?",
    order=3,
    tables=lambda inputs: [costs(inputs.records, inputs.warning, inputs.tuned)],
    after_run=True,
    page=("costs", 2),
)


#: Where no learning rate was chosen; where no run diverged.
_UNTUNED, _NONE_DIVERGED = Tuned(), Diverged()


def scores(
    records: list[Record],
    pairs: Sequence[PairedComparison] = (),
    tuned: Tuned = _UNTUNED,
    diverged: Diverged = _NONE_DIVERGED,
) -> Table:
    """The primary metric of every task; the constant prediction first, collapsed runs marked.

    Args:
        records: of any tasks.
        pairs: comparisons, from which the last line has the detectable difference of each column.
        tuned: those with a learning rate that was chosen, which are marked.
        diverged: runs without a record, which are counted.
    """
    table = _table("Scores", records, _primary, tuned, diverged)
    if not pairs:
        return table
    reach: dict[Column, list[float]] = {}
    for pair in pairs:
        if pair.effect is not None and pair.effect.detectable == pair.effect.detectable:
            task, size = pair.sized
            column = (task, pair.metric, int(size))
            reach.setdefault(column, []).append(100 * pair.effect.detectable)
    cells = [
        f"{statistics.median(reach[one]):.1f}" if one in reach else "–"
        for one in _columns(records, _primary)
    ]
    line = [convention.DETECTABLE, *[""] * (table.labels - 1), *cells]
    against = " or ".join(sorted({pair.against for pair in pairs}))
    note = (
        f"Minimum detectable difference from {against}: found {DETECTED} with these seeds and "
        "examples, corrected over the rows (median over rows); – below three seeds."
    )
    return replace(table, rows=[*table.rows, line], notes=[*table.notes, note])


def other_metrics(
    records: list[Record], tuned: Tuned = _UNTUNED, diverged: Diverged = _NONE_DIVERGED
) -> Table | None:
    """The metrics that are not primary, if any task has one."""
    if all(len(record.metrics) == 1 for record in records):
        return None
    return _table("Other metrics", records, lambda names: names[1:], tuned, diverged)


def figures(
    records: list[Record], tuned: Tuned = _UNTUNED, diverged: Diverged = _NONE_DIVERGED
) -> Table:
    """Every metric of every cell as plain numbers, one line each, for programs."""
    grouped, split = grouping.of_records(records)
    lines = []
    for row, members in grouped.items():
        cells = sorted({(*grouping.sized(r), metric) for r in members for metric in r.metrics})
        for name, size, metric in cells:
            here = [r for r in members if _is(r, (name, metric, size))]
            defined = [value for r in here if (value := r.metrics[metric]) is not None]
            seconds = _mean(r.seconds["train"] for r in here)
            base = _baseline(records, (name, metric, size))
            lines.append(
                [
                    *row,
                    name,
                    str(size),
                    metric,
                    str(len(here)),
                    str(len(defined)),
                    f"{_mean(defined):.6f}" if defined else "",
                    f"{statistics.stdev(defined):.6f}" if len(defined) > 1 else "",
                    "" if base is None else f"{base:.6f}",
                    str(sum(r.collapsed for r in here)),
                    f"{seconds:.2f}",
                    *([str(diverged.count(here))] if diverged.runs else []),
                    *(tuned.figures(r.run.key for r in here) if tuned.choices else []),
                ]
            )
    columns = ["method", *split, "task", "train_size", "metric", "seeds", "defined"]
    columns += ["mean", "sd", "trivial", "collapsed", "train_seconds"]
    columns += ["diverged"] if diverged.runs else []
    columns += TUNED_FIGURES if tuned.choices else []
    return Table("Figures", columns, lines, 4 + len(split))


def costs(records: list[Record], warning: str = "", tuned: Tuned = _UNTUNED) -> Table:
    """What each method trains and spends: means over seeds, for each task; a warning below.

    Seconds compare only on one device with one number of threads, and measured ones not with those
    of a calibration; where records differ in these, the cell says mixed.
    """
    grouped, split = grouping.of_records(records)
    tasks = sorted({grouping.sized(record) for record in records})
    lines = []
    for row, members in grouped.items():
        for task in tasks:
            here = [record for record in members if grouping.sized(record) == task]
            if not here:
                continue
            mixed = len({machine(record) for record in here}) > 1
            trained = sorted({record.parameters["trained"] for record in here})
            lines.append(
                [
                    *row,
                    grouping.title(task, tasks),
                    " / ".join(f"{count:,}" for count in trained),
                    *(MIXED if mixed else pick(here) for pick in _UNITS.values()),
                    *(_tuning(here, tuned) if tuned.choices else []),
                ]
            )
    columns = ["method", *split, "task", "trained", *_UNITS]
    notes = [warning] if warning else []
    if tuned.choices:
        columns += ["tuning", "total"]
        notes.append(f"{tuning_note(records, tuned)} Total: with the seconds of training.")
        notes += tuned.notes(record.run.key for record in records)
    if any(record.environment.get("packed") for record in records):
        notes.append(
            "Runs that were trained in a pack have no costs of their own: theirs are those of a "
            "short measurement alone, for as many tokens."
        )
    return Table("Costs (training)", columns, lines, 2 + len(split), notes)


def _tuning(here: list[Record], tuned: Tuned) -> list[str]:
    """Seconds of the trials, and with those of training."""
    several = len({machine(record) for record in here}) > 1
    total = None if several else mean_with_tuning(here, tuned)
    return [tuning_text(here, tuned), MIXED if total is None else f"{total:,.0f}"]


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def _speed(values: Iterable[float | None]) -> str:
    defined = [value for value in values if value is not None]
    return f"{_mean(defined):,.0f}" if defined else "–"


def _mebibytes(count: float | None) -> str:
    return "–" if count is None else f"{count / 2**20:,.0f}"


_UNITS: dict[str, Callable[[list[Record]], str]] = {
    "seconds": lambda records: f"{_mean(r.seconds['train'] for r in records):,.0f}",
    "examples/s": lambda records: _speed(r.speed["examples_per_second"] for r in records),
    "peak MiB": lambda records: _mebibytes(mean_peak(records)),
}


def _primary(names: list[str]) -> list[str]:
    return names[:1]


def _columns(records: list[Record], pick: Callable[[list[str]], list[str]]) -> list[Column]:
    """Task, metric and size of the columns that records have, each for some of its metrics."""
    found = {
        (record.run.task.name, metric, record.work["train_size"])
        for record in records
        for metric in pick(list(record.metrics))
    }
    return sorted(found, key=lambda column: (column[0], column[2], column[1]))


def _table(
    title: str,
    records: list[Record],
    pick: Callable[[list[str]], list[str]],
    tuned: Tuned,
    diverged: Diverged,
) -> Table:
    grouped, split = grouping.of_records(records)
    columns = _columns(records, pick)
    sized = sorted({grouping.sized(record) for record in records})
    heads = [f"{grouping.title((name, size), sized)} {metric}" for name, metric, size in columns]
    baseline = [convention.BASELINE, *[""] * len(split)]
    for column in columns:
        level, factor = _baseline(records, column), task_metrics.factor(column[1])
        digits = 1 if factor == 100 else 3
        baseline.append("–" if level is None else f"{factor * level:.{digits}f}")
    lines = [baseline]
    for row, members in grouped.items():
        lines.append(
            [*row, *(_marked_cell(members, column, tuned, diverged) for column in columns)]
        )
    kinds = {record.run.task.kind for record in records}
    notes = [
        "Percent, mean ± standard deviation over seeds (number of seeds), on the reporting split "
        f"at the end of the budget. {convention.baseline_note(kinds)}",
        convention.note(kinds),
    ]
    if any(task_metrics.factor(metric) == 1 for _, metric, _ in columns):
        notes.append("Errors (mae, rmse) are in the unit of the labels; less is better.")
    counts = {
        (gone, len(here))
        for members in grouped.values()
        for column in columns
        if (gone := failures.failed(here := [r for r in members if _is(r, column)]))
    }
    if counts:
        notes.append(failures.bounds_note(counts))
    notes += failures.diverged_notes([record.run for record in records], diverged)
    if any(record.work.get("out_of_range") for record in records):
        notes.append(_range_note(records))
    if corrected := {what for record in records for what in revisions.outdated(record.run)}:
        notes.append(
            f"{OUTDATED} of an older revision, never pooled with newer records; corrected since: "
            f"{'; '.join(sorted(corrected))}. The same command trains them again."
        )
    noted = {record.run.model.name: record.run.model.weights_note for record in records}
    notes += [f"{name}: {said}." for name, said in sorted(noted.items()) if said]
    notes += tuned.notes(record.run.key for record in records)
    return Table(title, ["method", *split, *heads], lines, 1 + len(split), notes)


def _range_note(records: list[Record]) -> str:
    """Which regressions predict values that no label is near to."""
    far = [record for record in records if record.work.get("out_of_range")]
    told = [f"{r.run.title} ({r.work['out_of_range']:,} predictions)" for r in far[:3]]
    more = f" and {len(far) - 3} more runs" if len(far) > 3 else ""
    return (
        "Predictions far out of the range of the labels, further outside than it is wide: "
        f"{'; '.join(told)}{more}. A correlation does not show that; try a lower train.lr, and "
        "look at mae or rmse."
    )


#: Marks scores from before a correction of what they are made by.
OUTDATED = "‡"


def _marked_cell(members: list[Record], column: Column, tuned: Tuned, diverged: Diverged) -> str:
    here = [record for record in members if _is(record, column)]
    gone = failures.diverged_mark(diverged.count(here))
    outdated = f" {OUTDATED}" if any(revisions.outdated(record.run) for record in here) else ""
    return _cell(here, column) + gone + tuned.mark(record.run.key for record in here) + outdated


def _baseline(records: list[Record], column: Column) -> float | None:
    return convention.baseline((r for r in records if _is(r, column)), column[1])


def _cell(here: list[Record], column: Column) -> str:
    if not here:
        return ""
    collapsed = failures.failed(here)
    factor = task_metrics.factor(column[1])
    values = [record.metrics[column[1]] for record in here]
    text = grouping.spread(values, factor, 1 if factor == 100 else 3)
    return text + (f" †{collapsed}" if collapsed else "")


def _is(record: Record, column: Column) -> bool:
    name, metric, size = column
    return grouping.sized(record) == (name, size) and metric in record.metrics
