"""Any field of the records, by any others: a summary over seeds, n, and what is missing."""

import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from peftbench.analysis import (
    best_in_column,
    convention,
    costs,
    failures,
    pivot,
    suite_columns,
)
from peftbench.analysis.best_in_column import Best
from peftbench.analysis.fields import shown
from peftbench.analysis.pivot import PivotCell, PivotGrid, Row
from peftbench.analysis.significance import DETECTED
from peftbench.core.errors import ConfigError, no_records
from peftbench.core.text import did_you_mean
from peftbench.metrics import task_metrics
from peftbench.reports import glossary
from peftbench.reports.tables import latex
from peftbench.reports.tables.markdown import Table
from peftbench.results.frame import load_frame
from peftbench.results.store import ResultsFolder
from peftbench.results.tuned import FIGURES
from peftbench.system import io

#: Values of these fields say what they are without its name.
_BARE = (
    "method",
    "task",
    "model",
    "size",
    "prompt",
    "augmentation",
    "base_method",
    "metric",
    "device",
)

#: Unit, factor and digits of a field, by how its path begins or ends.
_UNITS: tuple[tuple[Callable[[str], bool], str, float, int], ...] = (
    (
        lambda f: (
            f.startswith(("metrics.", "trivial.")) and task_metrics.factor(f.partition(".")[2]) == 1
        ),
        "In the unit of the labels",
        1,
        3,
    ),
    (lambda f: f == "score" or f.startswith(("metrics.", "trivial")), "Percent", 100, 1),
    (lambda f: f.startswith("memory.") or f.endswith("_bytes"), "MiB", 2**-20, 0),
    (lambda f: f.startswith("seconds.") or f.endswith("_seconds"), "Seconds", 1, 1),
    (lambda f: suite_columns.suite_of(f) is not None and "ms_p" in f, "Milliseconds", 1, 2),
    (lambda f: suite_columns.suite_of(f) is not None and "per_second_p" in f, "Texts/s", 1, 1),
    (lambda f: f == "energy_joules", "Joules", 1, 0),
    (lambda f: f.startswith(("parameters.", "work.")), "Counts", 1, 0),
)


#: Cells that a terminal names in a note; more are counted.
_FEW = 6


def to_table(
    grid: PivotGrid, best: Best, warning: str | None = None, most: float = math.inf
) -> Table:
    """The grid as text, the constant prediction first, with what it hides told below.

    Args:
        grid, best: the cells, and which are best.
        warning: of costs, below the table.
        most: cells that a note names; more are counted.
    """
    bold = {
        (grid.rows.index(row) + grid.scores, len(grid.row_names) + grid.columns.index(column))
        for column, row in best.found.items()
    }
    lines = [
        [*map(_text, row), *(_shown(grid, row, column) for column in grid.columns)]
        for row in grid.rows
    ]
    if grid.scores:
        levels = [_trivial(grid, column) for column in grid.columns]
        base = ["–" if level is None else _number(grid, level) for level in levels]
        if best.resolution:
            told = [best.resolution.get(column) for column in grid.columns]
            reach = ["–" if one is None else _number(grid, one) for one in told]
            lines.append([convention.DETECTABLE, *[""] * (len(grid.row_names) - 1), *reach])
        lines.insert(0, [convention.BASELINE, *[""] * (len(grid.row_names) - 1), *base])
    titles = _titles(grid)
    columns = [*grid.row_names, *titles.values()]
    spec = grid.spec
    title = f"{spec.cell[0].upper() + spec.cell[1:]} by {', '.join(grid.row_names)}"
    title += f" and {', '.join(spec.columns)}" if spec.columns else ""
    return Table(
        title,
        columns,
        lines,
        len(grid.row_names),
        [*_notes(grid, best, titles, most), *([warning] if warning else [])],
        frozenset(bold),
    )


def to_figures(grid: PivotGrid, best: Best) -> Table:
    """Every cell as plain numbers in the field's own unit, one line each, for programs."""
    names = {"mean": ["mean", "sd"], "median": ["median", "q1", "q3"]}
    heads = names.get(grid.spec.summary, ["mean", "low", "high"])
    lines = []
    tuned = any(key in grid.tuned.choices for key in grid.keys)
    diverged = any(cell.diverged for cell in grid.cells.values())
    for row in grid.rows:
        for column in grid.columns:
            cell = grid.cells.get((row, column), _NONE)
            found = _summary(grid.spec.summary, _defined(cell))
            numbers = ["" if value is None else f"{value:.10g}" for value in found]
            level = _trivial(grid, column)
            lines.append(
                [
                    *("" if value is None else shown(value) for value in (*row, *column)),
                    *(str(len(cell.keys)), str(len(_defined(cell)))),
                    *numbers,
                    *(
                        "" if level is None else f"{level:.10g}",
                        str(sum(cell.collapsed)),
                        " ".join(map(str, sorted(cell.seeds))),
                    ),
                    str(best.found.get(column) == row).lower(),
                    *([str(len(cell.diverged))] if diverged else []),
                    *(grid.tuned.figures(cell.keys) if tuned else []),
                ]
            )
    columns = [*grid.row_names, *grid.spec.columns, "n", "defined"]
    columns += [*heads, "trivial", "collapsed", "seeds", "best"]
    more = [*["diverged"] * diverged, *(FIGURES if tuned else ())]
    return Table(grid.spec.cell, [*columns, *more], lines, len(columns) - 6)


_NONE = PivotCell([], [], [], [], set(), set())


def _defined(cell: PivotCell) -> list[float]:
    return [value for value in cell.values if value is not None]


def _summary(kind: str, values: list[float]) -> list[float | None]:
    """The centre and what is around it; None where the values are too few."""
    several = len(values) > 1
    if kind == "median":
        if not values:
            return [None, None, None]
        middle = [float(q) for q in np.quantile(values, (0.5, 0.25, 0.75))]
        return [middle[0], *(middle[1:] if several else (None, None))]
    centre = statistics.fmean(values) if values else None
    spread = _deviation(values) if several else None
    if kind == "mean":
        return [centre, spread]
    if centre is None or spread is None:
        return [centre, None, None]
    from scipy.special import stdtrit

    reach = float(stdtrit(len(values) - 1, 0.975)) * spread / len(values) ** 0.5
    return [centre, centre - reach, centre + reach]


def _deviation(values: list[float]) -> float:
    """The standard deviation; `statistics.stdev` counts in fractions, which takes far longer."""
    moved = [value - values[0] for value in values]  # so that equal values deviate by exactly 0
    mean = statistics.fmean(moved)
    return math.sqrt(math.fsum((one - mean) ** 2 for one in moved) / (len(values) - 1))


@cache
def _unit(field: str) -> tuple[str, float, int | None]:
    return next(
        ((unit, factor, digits) for is_, unit, factor, digits in _UNITS if is_(field)),
        ("", 1, None),
    )


def _number(grid: PivotGrid, value: float) -> str:
    _, factor, digits = _unit(grid.field)
    return f"{factor * value:.4g}" if digits is None else f"{factor * value:,.{digits}f}"


def _shown(grid: PivotGrid, row: Row, column: Row) -> str:
    cell = grid.cells.get((row, column))
    if cell is None:
        return ""
    values = _defined(cell)
    centre, *around = _summary(grid.spec.summary, values)
    text = "–" if centre is None else _number(grid, centre)
    told = [_number(grid, one) for one in around if one is not None]
    if told and not (len(set(values)) == 1 and isinstance(values[0], int)):  # a count that is fixed
        text += f" ± {told[0]}" if grid.spec.summary == "mean" else f" [{', '.join(told)}]"
    some = f"{len(values)} of " * (len(values) < len(cell.values))
    collapsed = sum(cell.collapsed) if grid.scores else 0
    text += f" ({some}{len(cell.values)})" + (f" †{collapsed}" if collapsed else "")
    text += failures.diverged_mark(len(cell.diverged)) if grid.scores else ""
    return text + grid.tuned.mark(cell.keys)


def _trivial(grid: PivotGrid, column: Row) -> float | None:
    """The constant prediction's score of a column, the mean over its seeds."""
    here = [grid.cells[row, column] for row in grid.rows if (row, column) in grid.cells]
    return convention.baseline_mean(pair for cell in here for pair in cell.trivial)


@lru_cache(typed=True)  # or 1 and 1.0 and True were one
def _text(value: object) -> str:
    """A value among the names of a row."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = shown(value)
    return text.replace('"', "") if text.startswith("[") else text


def _titles(grid: PivotGrid) -> dict[Row, str]:
    """What each column is called; a score with its metric where all are of one."""
    metrics: dict[Row, set[str]] = {}
    for (_, column), cell in grid.cells.items():
        metrics.setdefault(column, set()).update(cell.metrics)
    titles = {}
    for column in grid.columns:
        told = _words(grid, column)
        if grid.field == "score" and len(metrics[column]) == 1:
            told += metrics[column]
        titles[column] = " ".join(told) or grid.spec.cell
    return titles


def _words(grid: PivotGrid, column: Row) -> list[str]:
    """The values of a column's fields, with the field's name where they do not say it."""
    ends = [name.rpartition(".")[2] for name in grid.spec.columns]
    short = ends if len(set(ends)) == len(ends) else grid.spec.columns
    named = zip(grid.spec.columns, short, column, strict=True)
    return [_text(v) if name in _BARE else f"{end}={_text(v)}" for name, end, v in named]


def _notes(grid: PivotGrid, best: Best, titles: dict[Row, str], most: float) -> list[str]:
    """What the numbers are, what was tested, what is not there."""
    spec = grid.spec
    notes = ["; ".join([f"{_measured(grid)} (number of seeds)", *_more(grid)]) + "."]
    if spec.where:
        notes.append(f"Records with {shown(spec.where)} only.")
    if added := grid.row_names[len(spec.rows) :]:
        notes.append(
            f"Rows are told apart by {', '.join(added)} too, in which records of one cell, or of "
            "one column beside the method's own settings, differ."
        )
    if spec.mix:
        notes.append(f"Pooled where records differ in it, as asked: {', '.join(spec.mix)}.")
    if any(len(_defined(cell)) == 1 for cell in grid.cells.values()):
        kind = {"mean": "standard deviation", "median": "quartiles"}.get(spec.summary, "interval")
        notes.append(f"One defined seed has no {kind}: such cells show its value alone.")
    notes += [*grid.tuned.notes(grid.keys), *_untuned_seconds(grid), *_tested(grid, best, titles)]
    if grid.scores:
        notes.append(convention.NOTE)
    if grid.scores and any(any(cell.collapsed) for cell in grid.cells.values()):
        counts = {
            (sum(cell.collapsed), len(cell.collapsed))
            for cell in grid.cells.values()
            if any(cell.collapsed)
        }
        notes.append(failures.bounds_note(counts))
        gone = sum(any(cell.collapsed) for cell in grid.cells.values())
        runs = sum(sum(cell.collapsed) for cell in grid.cells.values())
        told = _listed(grid, titles, _collapsed)
        notes.append(f"Collapsed: {told if gone <= most else f'{runs} runs in {gone} cells'}.")
    if grid.scores and any(cell.diverged for cell in grid.cells.values()):
        notes.append(failures.DIVERGED_NOTE)
        gone = sum(bool(cell.diverged) for cell in grid.cells.values())
        runs = sum(len(cell.diverged) for cell in grid.cells.values())
        told = _listed(grid, titles, _diverged)
        notes.append(f"Diverged: {told if gone <= most else f'{runs} runs in {gone} cells'}.")
    if absent := _listed(grid, titles, lambda cell: "" if cell is None else None):
        empty = len(grid.rows) * len(grid.columns) - len(grid.cells)
        notes.append(f"No record: {absent if empty <= most else f'{empty} cells'}.")
    if grid.unreadable:
        notes.append(
            f"Left out, unreadable: {len(grid.unreadable)} records, {', '.join(grid.unreadable)}."
        )
    return notes


def _untuned_seconds(grid: PivotGrid) -> list[str]:
    """What seconds of tuned runs leave out."""
    chosen = {choice.key: choice for key in grid.keys if (choice := grid.tuned.choices.get(key))}
    if _unit(grid.field)[0] != "Seconds" or not chosen:
        return []
    spent = [f"{one:,.0f}" for one in sorted(choice.seconds for choice in chosen.values())]
    told = " to ".join(dict.fromkeys((spent[0], spent[-1])))
    return [
        f"Of the runs alone: the trials of each tuned rate took {told} seconds more; "
        "`peftbench report tuning` has those of each."
    ]


def _measured(grid: PivotGrid) -> str:
    """The unit, and what a cell holds of its seeds."""
    around = {"mean": "mean ± standard deviation", "median": "median [quartiles]"}
    what = around.get(grid.spec.summary, "mean [95 % interval of the mean by Student's t]")
    unit = _unit(grid.field)[0]
    text = ", ".join([*[unit] * bool(unit), f"{what} over seeds"])
    return text[0].upper() + text[1:]


def _more(grid: PivotGrid) -> list[str]:
    if not grid.scores:
        return []
    return [
        "on the reporting split at the end of the budget",
        f"the {convention.BASELINE} is the majority class of the training labels, or their mean",
    ]


def _collapsed(cell: PivotCell | None) -> str | None:
    if cell is None or not any(cell.collapsed):
        return None
    seeds = [str(s) for s, gone in zip(cell.seeds, cell.collapsed, strict=True) if gone]
    return f" (seed {', '.join(sorted(seeds, key=int))})"


def _diverged(cell: PivotCell | None) -> str | None:
    if cell is None or not cell.diverged:
        return None
    return f" (seed {', '.join(map(str, sorted(cell.diverged)))})"


def _listed(
    grid: PivotGrid, titles: dict[Row, str], pick: Callable[[PivotCell | None], str | None]
) -> str:
    """Cells for which there is something to say, row by row."""
    told = []
    for row in grid.rows:
        here = [
            titles[column] + text
            for column in grid.columns
            if (text := pick(grid.cells.get((row, column)))) is not None
        ]
        if here:
            told.append(f"{' '.join(map(_text, row))}: {', '.join(here)}")
    return "; ".join(told)


def _tested(grid: PivotGrid, best: Best, titles: dict[Row, str]) -> list[str]:
    """How the best of a column was found, and where there is none."""
    if not grid.scores:
        return []
    notes = []
    if best.found:
        from peftbench.analysis.comparison import DRAWS

        notes.append(
            "Bold: significantly the best of its column. Its mean is above that of every other row,"
            " each difference tested over paired seeds and examples (two-level bootstrap, "
            f"{DRAWS:,} resamples; Student's t over seeds), p below 0.05; as all of them must be, "
            "none is corrected (intersection-union)."
        )
    if best.resolution:
        notes.append(
            f"Minimum detectable difference from the highest mean: found {DETECTED} with these "
            "seeds and examples (median over rows); – where a row has fewer than three seeds."
        )
    if best.unreadable:
        notes.append(
            f"Left out of tests, predictions unreadable: {len(best.unreadable)} runs, "
            f"{', '.join(sorted(best.unreadable))}; their scores are shown."
        )
    if best.undecided:
        told = ", ".join(titles[column] for column in best.undecided)
        notes.append(f"No row is significantly best: {told}.")
    for reason, columns in best.untested.items():
        told = ", ".join(titles[column] for column in columns)
        notes.append(f"Which row is best was not tested, {reason}: {told}.")
    for column, rows in best.left_out.items():
        told = ", ".join(" ".join(map(_text, row)) for row in rows)
        notes.append(
            f"Not compared with the best of {titles[column]}, undefined for a seed: {told}."
        )
    return notes


#: The format of a file, by its suffix.
SUFFIXES = {
    ".md": "markdown",
    ".csv": "csv",
    ".json": "json",
    ".tex": "latex",
    ".html": "html",
    ".txt": "terminal",
}


@dataclass(frozen=True)
class RenderedTable:
    """A table, its text (None for the terminal), and what is said aside."""

    table: Table
    text: str | None
    warnings: list[str]


def build_pivot_table(
    results: ResultsFolder, words: Sequence[str], form: str | None, output: Path | None
) -> RenderedTable:
    """Build the table that overrides describe from a results folder.

    Args:
        form: a format of `SUFFIXES`; None goes by the suffix of the output.
        output: the file that it is for.

    Raises:
        ConfigError: if there are no records, or they do not give such a table.
    """
    spec, form = pivot.parse_spec(words), form or _form(output)
    found = load_frame(results)
    warnings = [f"left out, unreadable: {reason}" for reason in found.unreadable.values()]
    if warnings:
        total = len(found) + len(warnings)
        warnings.append(f"{len(warnings)} of {total:,} records are unreadable and left out")
    warnings += [f"left out, unreadable: {reason}" for reason in found.unreadable_choices]
    if found.not_cached:
        warnings.append(f"every record is read again next time; cannot write {found.not_cached}")
    if not len(found):
        raise no_records(results.folder, found.unreadable)
    asked = [*spec.rows, *spec.columns, *spec.mix, spec.cell, *re.findall(r"[\w.]+", spec.where)]
    if suites := [name for field in asked if (name := suite_columns.suite_of(field))]:
        found, left_out = suite_columns.with_suites(found, results, suites)
        warnings += left_out
    crossing = pivot.cross(found, spec)
    tops = best_in_column.find_best(crossing, results)
    for key, reason in tops.unreadable.items():
        warnings.append(f"left out of tests, predictions of {key} are unreadable: {reason}")
    if tops.unreadable:
        warnings.append(f"{len(tops.unreadable)} runs have unreadable predictions: in no test")
    warning = costs.read_warning(results.folder)
    most = _FEW if form == "terminal" else math.inf
    table = to_table(crossing, tops, warning if crossing.costs else None, most)
    if form in ("csv", "json"):
        figures = to_figures(crossing, tops)
        text = figures.csv() if form == "csv" else json.dumps(figures.numbers(), indent=1) + "\n"
        return RenderedTable(table, text, warnings)
    texts = {
        "markdown": lambda: _github(table).markdown() + "\n",
        "latex": lambda: _latex(crossing, table),
    }
    texts["html"] = lambda: latex.page(table)
    return RenderedTable(table, texts[form]() if form in texts else None, warnings)


#: Columns of figures from which counts would make Markdown wider than GitHub's page.
_WIDE = 5

#: The count of seeds in a cell.
_COUNT = re.compile(r" \((\d+)\)(?= [†§¶‡]|$)")


def _github(table: Table) -> Table:
    """A wide table without the count of seeds in cells with the usual one, to fit GitHub's page."""
    found = Counter(
        match[1] for row in table.rows for cell in row for match in _COUNT.finditer(cell)
    )
    if not found or len(table.columns) - table.labels < _WIDE:
        return table
    usual = found.most_common(1)[0][0]
    rows = [
        [_COUNT.sub(lambda m: "" if m[1] == usual else m[0], cell) for cell in row]
        for row in table.rows
    ]
    rest = f"n = {usual}" + " where no other number is in brackets" * (len(found) > 1)
    first, *notes = table.notes
    notes = [first.replace("(number of seeds)", f"({rest})"), *notes]
    return replace(table, rows=rows, notes=notes)


def _latex(grid: PivotGrid, table: Table) -> str:
    """The table with the names that a paper has; its columns by task."""
    groups = {"method": "methods", "task": "tasks"}
    kinds = [groups.get(name) for name in grid.row_names]
    kinds += [None] * len(grid.columns)
    rows = [
        [glossary.name(kind, cell) if kind else cell for kind, cell in zip(kinds, row, strict=True)]
        for row in table.rows
    ]
    heads = None
    if "task" in grid.spec.columns:
        task = grid.spec.columns.index("task")
        heads = []
        for column, title in _titles(grid).items():
            words = _words(grid, column)
            metric = title.removeprefix(" ".join(words)).strip()
            group, metric = glossary.name("tasks", words.pop(task)), glossary.short_metric(metric)
            if words and metric:
                group = f"{group} ({metric})"
            heads.append((group, " ".join(words) or metric))
    return latex.latex(replace(table, rows=rows), heads, _measured(grid))


def _form(output: Path | None) -> str:
    if output is None:
        return "terminal"
    if output.suffix not in SUFFIXES:
        raise ConfigError(
            f"--output {output}: {did_you_mean(output.suffix, SUFFIXES)}; or set --format"
        )
    return SUFFIXES[output.suffix]


def write_pivot_table(made: RenderedTable, output: Path) -> None:
    """Write the table, whole or not at all.

    Raises:
        ConfigError: if the file cannot be written.
    """
    try:
        io.write_whole(output, _body(made))
    except OSError as error:
        raise ConfigError(f"--output {output}: {error.strerror}") from error


def is_current(made: RenderedTable, output: Path) -> bool:
    """Whether the file is what the records give."""
    return output.is_file() and output.read_bytes() == _body(made)


def _body(made: RenderedTable) -> bytes:
    text = made.text if made.text is not None else made.table.plain()
    return text.encode()
