"""All that the page shows, as plain data: rounded figures, text, and nothing that is markup."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from peftbench.analysis import convention, costs, grouping, mean_ranks, selection
from peftbench.analysis.comparison import MARGIN, PairedComparison
from peftbench.core.errors import ConfigError, no_records
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Json
from peftbench.reports import glossary, registry
from peftbench.reports.base import Inputs, gather
from peftbench.reports.html import leaderboard, run_list, summary
from peftbench.reports.html.cells import ScoreCell, cells
from peftbench.reports.plotting.palette import Palette
from peftbench.reports.tables.markdown import Table
from peftbench.results.store import ResultsFolder

#: Runs whose records the page carries; of more than these it tells means, and some of each cell.
MOST = 2_000


def contents(
    results: ResultsFolder,
    against: str | None = None,
    most: int = MOST,
    margin: float = MARGIN,
    where: str = "",
    texts: Sequence[Table] = (),
) -> Json:
    """Everything that the page of a results folder shows.

    Args:
        results: where records, predictions and evaluations are.
        against: the row that others are compared with; by default what trains most.
        most: runs to carry.
        margin: a loss of so much is not worse.
        where: conditions of `analysis.fields` on the runs that are shown.
        texts: tables of texts that runs wrote.

    Raises:
        ConfigError: if there is no record, or no row is called like `against`.
    """
    read = _read(results, against, most, margin, where)
    inputs = read.inputs
    records, evaluated, pairs = inputs.records, inputs.evaluated, inputs.pairs
    by_row, split = grouping.of_records(records)
    labels = grouping.labels(by_row, split)
    shown = {row: glossary.row(label) for row, label in labels.items()}
    place = {row: number for number, row in enumerate(by_row)}
    names = grouping.methods((r.run.method.name, r.parameters["trained"]) for r in records)
    palette = Palette.for_methods(names)
    found = cells(by_row, inputs.tuned, inputs.diverged)
    sized = sorted({cell.sized for cell in found})
    alike = sorted({grouping.conditions(cell.records[0]) for cell in found})
    conditions = {name: number for number, name in enumerate(alike)}
    carried = run_list.carried(found, most)
    ranks = mean_ranks.mean_rank(records, inputs.diverged)
    best = {one: place[row] for one, row in leaderboard.best(inputs, by_row, labels).items()}
    tables = [*_tables(inputs, read.whole), *(("texts", None, table) for table in texts)]
    return run_list.rounded(
        {
            "folder": results.folder.name,
            "version": metadata.version("peftbench"),
            "answer": leaderboard.answer(pairs, found, shown),
            "tiles": leaderboard.tiles(records, found),
            "names": {
                "methods": glossary.explained("methods", names),
                "tasks": glossary.explained("tasks", sorted({task for task, _ in sized})),
                "metrics": glossary.explained("metrics", sorted(glossary.entries()["metrics"])),
                "terms": glossary.entries()["terms"],
            },
            "summary": summary.summary(inputs, found, labels),
            "notes": [*_notes(read, len(carried)), *read.unpredicted],
            "warning": inputs.warning,
            "tuned": inputs.tuned.notes(record.run.key for record in records),
            "methods": names,
            "looks": [palette.look(name) for name in names],
            "rows": [
                {"label": shown[row], "id": labels[row], "method": row[0], "rank": ranks.get(row)}
                for row in by_row
            ],
            "sections": [_section(one, sized, found, best.get(one)) for one in sized],
            "cells": [_cell(cell, place, sized, carried, conditions) for cell in found],
            "pairs": [_pair(pair, place) for pair in pairs],
            "margin": margin,
            **run_list.runs([r for r in records if r.run.key in carried], evaluated),
            "curves": _curves(inputs),
            "tables": [_table(*table, {task for task, _ in sized}) for table in tables],
            "environments": run_list.environments(records, evaluated),
            "settings": run_list.settings(by_row, shown),
        }
    )


@dataclass(frozen=True)
class _Read:
    """What was read of a results folder.

    Attributes:
        whole: whether predictions were read; without them rows are not compared.
        unreadable: by key, why it could not be read.
        alone: evaluations of runs that have no record here.
        unpredicted: a line for each record whose predictions cannot be read.
    """

    inputs: Inputs
    whole: bool
    unreadable: dict[str, str]
    alone: list[Evaluated]
    unpredicted: list[str]


def _read(
    results: ResultsFolder, against: str | None, most: int, margin: float, where: str
) -> _Read:
    records, bad = results.scan()
    evaluated, odd = results.scan_evaluated()
    if not records:
        raise no_records(results.folder, bad)
    records, evaluated = selection.of_records(results, records, evaluated, where)
    whole = len(records) <= most
    if not whole and against is not None:
        raise ConfigError(
            f"--against {against}: of more than {most:,} records no page compares rows, since that "
            "reads every prediction; `peftbench report --against ROW` does"
        )
    keys = {record.run.key for record in records}
    alone = [e for e in evaluated if e.evaluation.run.key not in keys]
    evaluated = [e for e in evaluated if e.evaluation.run.key in keys]
    inputs, unpredicted = gather(
        results,
        records,
        evaluated,
        against=against,
        margin=margin,
        predictions=whole,
        selected=bool(where),
    )
    return _Read(inputs, whole, bad | odd, alone, unpredicted)


def _section(
    one: grouping.Sized, sized: Sequence[grouping.Sized], found: list[ScoreCell], best: int | None
) -> Json:
    """One task and size: its names, its best row, its metric, the constant prediction's score."""
    title = grouping.title(one, sized)
    here = [cell for cell in found if cell.sized == one]
    metric = here[0].metric
    every = [record for cell in here for record in cell.records]
    return {
        "title": glossary.section(title),
        "id": title,
        "task": one[0],
        "size": one[1],
        "best": best,
        "metric": metric,
        "trivial": convention.baseline(every, metric),
    }


def _cell(
    cell: ScoreCell,
    place: dict[grouping.Row, int],
    sized: list[Any],
    carried: set[str],
    conditions: dict[str, int],
) -> Json:
    return {
        "row": place[cell.row],
        "section": sized.index(cell.sized),
        "n": len(cell.records),
        "defined": len(cell.defined),
        "mean": cell.score,
        "sd": statistics.stdev(cell.defined) if len(cell.defined) > 1 else None,
        "texts": grouping.mean_and_deviation([record.score for record in cell.records]),
        "interval": leaderboard.interval(cell),
        "collapsed": cell.collapsed,
        "diverged": cell.diverged,
        "trained": cell.trained,
        "seconds": cell.seconds,
        "mixed": len(cell.machines) > 1,
        "peak": cell.peak,
        "front": cell.front,
        "conditions": conditions[grouping.conditions(cell.records[0])],
        "runs": [record.run.key for record in cell.records if record.run.key in carried],
    } | (_tuning(cell) if cell.tuned.choices else {})


def _tuning(cell: ScoreCell) -> Json:
    """How the rate of a cell was chosen, in a folder with choices."""
    keys = [record.run.key for record in cell.records]
    choice = cell.tuned.choice(keys)
    return {
        "mark": cell.tuned.mark(keys),
        "trials": None if choice is None else len(choice.trials),
        "tuning": None if choice is None else choice.seconds,
        "total": cell.total,
    }


def _pair(pair: PairedComparison, place: dict[grouping.Row, int]) -> Json:
    told: Json = {
        "row": place[pair.row],
        "task": glossary.section(pair.task),
        "against": glossary.row(pair.against),
        "seeds": pair.seeds,
        "examples": pair.examples,
        "verdict": pair.verdict,
        "kind": pair.kind,
        "p": pair.adjusted,
        "superior": pair.superior,
    }
    if pair.effect is not None:
        names = ("value", "low", "high", "detectable")
        numbers = {name: getattr(pair.effect, name) for name in names}
        told |= {name: None if value != value else value for name, value in numbers.items()}
    return told


#: Sections of the page that hold tables of reports.
_SECTIONS = ("scores", "differences", "costs")


def _tables(inputs: Inputs, whole: bool) -> list[tuple[str, str | None, Table]]:
    """Tables of the reports: the section of the page, the task if it is of one, the table.

    Args:
        inputs: of all records.
        whole: whether predictions were read; without them only what a run prints is made.
    """
    placed = [
        (_SECTIONS.index(report.page[0]), report.page[1], report.name, report)
        for report in registry.reports()
        if report.page is not None and (whole or report.after_run)
    ]
    every = [
        (_SECTIONS[section], None, table)
        for section, _, _, report in sorted(placed, key=lambda one: one[:3])
        for table in (report.tables(inputs) if report.tables else [])
    ]
    trained, named = registry.of_suites(inputs)
    suites = [
        ("suites", task, table)
        for here in named.values()
        for task in sorted({e.evaluation.run.task.name for e in here})
        for table in registry.of_suite(here[0].evaluation.kind).tables(
            [e for e in here if e.evaluation.run.task.name == task], trained
        )
    ]
    return [*every, *suites]


def _curves(inputs: Inputs) -> list[Json]:
    """Figures of each suite's evaluations, but for empty ones."""
    trained, named = registry.of_suites(inputs)
    made = [
        plot | {"suite": name}
        for name, found in named.items()
        for plot in registry.of_suite(found[0].evaluation.kind).page_plots(found, trained)
    ]
    return [plot for plot in made if any(panel["lines"] for panel in plot["panels"])]


def _table(about: str, task: str | None, table: Table, tasks: set[str]) -> Json:
    return {
        "about": about,
        "task": task,
        "title": table.title,
        "columns": table.columns,
        "tasks": [
            _leads(name, tasks) if place >= table.labels and about == "scores" else None
            for place, name in enumerate(table.columns)
        ],
        "rows": table.rows,
        "labels": table.labels,
        "prose": table.prose,
        "notes": table.notes,
    }


def _leads(name: str, tasks: set[str]) -> str | None:
    """The task of a column of scores, from its name: task, size where there are several, metric."""
    return max((task for task in tasks if name.startswith(f"{task} ")), key=len, default=None)


def _notes(read: _Read, carried: int) -> list[str]:
    """What a reader must know before comparing: what is left out, what does not go together."""
    records, bad, alone = read.inputs.records, read.unreadable, read.alone
    notes = []
    if bad:
        notes.append(
            f"{len(bad)} unreadable: left out of everything here. "
            + " ".join(f"{key}: {reason}." for key, reason in list(bad.items())[:_NAMED])
            + (f" And {len(bad) - _NAMED} more." if len(bad) > _NAMED else "")
        )
    if alone:
        notes.append(f"{len(alone)} evaluations are left out: their runs have no record here.")
    places = {
        "protocols": {str(record.run.protocol) for record in records},
        "ways to take costs": {
            "by calibration" if costs.machine(record).packed else "measured" for record in records
        },
        "devices": {record.environment["device"] for record in records},
        "numbers of threads": {str(record.environment["threads"]) for record in records},
        "versions of libraries": {str(record.environment["libraries"]) for record in records},
    }
    told = {
        "protocols": "Scores of different protocols do not compare.",
        "ways to take costs": "Seconds and memory of runs in a pack are those of a calibration and "
        "do not compare with measured ones.",
        "devices": "Seconds and memory of different devices do not compare.",
        "numbers of threads": "Seconds of different numbers of threads do not compare.",
        "versions of libraries": "Scores may differ by it.",
    }
    notes += [
        f"{len(found)} {name} are mixed here"
        + (f" ({', '.join(sorted(found))})" if name != "versions of libraries" else "")
        + f". {told[name]}"
        for name, found in places.items()
        if len(found) > 1
    ]
    dirty = sum(record.environment["dirty"] for record in records)
    if dirty:
        notes.append(f"{dirty} runs were made from code with uncommitted changes.")
    if carried < len(records):
        notes.append(
            f"{len(records):,} runs are too many for one file: means are of all of them, single "
            f"runs and dots are {carried:,}, the first seeds of each row. `peftbench show KEY` "
            "tells of any other. What compares rows or reads predictions is left to "
            "`peftbench report`."
        )
    return notes


#: Unreadable files that are named; the others are counted.
_NAMED = 20
