"""Which row of a column is significantly best: above every other one, of paired seeds and examples.

The row with the highest mean is compared with each other row by `comparison.family`. It is best if
all of these differences are significant: an intersection-union test (Berger 1982), which needs no
correction over the rows, since all differences must be there for the claim to hold. A tie of the
two highest true means is called for one of them with probability at most ALPHA.
"""

import statistics
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from peftbench.analysis import grouping
from peftbench.analysis.pivot import PivotCell, PivotGrid, Row
from peftbench.analysis.significance import ALPHA
from peftbench.core.errors import RecordError
from peftbench.core.run import Record
from peftbench.results.store import ResultsFolder

if TYPE_CHECKING:
    import numpy as np

    from peftbench.analysis.comparison import PairedComparison

    Predictions = dict[str, np.ndarray]

#: Runs of a column beyond which nothing is tested: their predictions would not fit memory.
MOST = 500


@dataclass(frozen=True)
class Best:
    """Best rows of columns.

    Attributes:
        found: the best row, by column.
        undecided: columns that were tested and have none.
        untested: columns by the reason for which they could not be tested.
        left_out: rows by column that are undefined for some seed, so that none is held against
            them.
        unreadable: why the predictions of a run cannot be read, by its key; it is in its cell, but
            in no test.
        resolution: of tested columns, the median over rows of the true difference from the highest
            that is found with `significance.POWER`; none where seeds are fewer than three.
    """

    found: dict[Row, Row] = field(default_factory=dict)
    undecided: list[Row] = field(default_factory=list)
    untested: dict[str, list[Row]] = field(default_factory=dict)
    left_out: dict[Row, list[Row]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    resolution: dict[Row, float] = field(default_factory=dict)


def find_best(grid: PivotGrid, results: ResultsFolder) -> Best:
    """The best row of each column of scores; nothing of costs.

    Raises:
        RecordError: if paired runs predicted on other examples.
    """
    best = Best()
    for column in grid.columns if grid.scores else []:
        here = {row: grid.cells[row, column] for row in grid.rows if (row, column) in grid.cells}
        if len(here) < 2:
            continue
        whole = _whole(here)
        reason = _hinders(here, whole)
        if reason is None:
            if len(whole) < len(here):
                best.left_out[column] = [row for row in here if row not in whole]
            reason = _test(grid, results, column, here, best)
        if reason is not None:
            best.untested.setdefault(reason, []).append(column)
    return best


def _whole(here: dict[Row, PivotCell]) -> dict[Row, PivotCell]:
    """Rows that are defined for all their seeds."""
    return {row: cell for row, cell in here.items() if None not in cell.values}


def _highest(here: dict[Row, PivotCell]) -> Row:
    return max(whole := _whole(here), key=lambda row: _mean(whole[row]))


def _mean(cell: PivotCell) -> float:
    return statistics.fmean(value for value in cell.values if value is not None)


def _hinders(here: dict[Row, PivotCell], whole: dict[Row, PivotCell]) -> str | None:
    """Why a column cannot be tested, from its cells alone."""
    if sum(len(cell.keys) for cell in here.values()) > MOST:
        return f"more than {MOST} runs"
    if any(len(set(cell.seeds)) < len(cell.seeds) for cell in here.values()):
        return "cells pool more than seeds"
    if len(whole) < 2:
        return "fewer than two rows are defined for all their seeds"
    highest = max(_mean(cell) for cell in whole.values())
    partly = [cell for row, cell in here.items() if row not in whole]
    if any(_mean(cell) > highest for cell in partly if any(v is not None for v in cell.values)):
        return "the highest is undefined for some seeds"
    if max(whole.values(), key=_mean).diverged:
        return "seeds of the highest diverged"
    if any(len(cell.seeds) < 2 for cell in whole.values()):
        return "rows of one seed"
    return None


def _test(
    grid: PivotGrid, results: ResultsFolder, column: Row, here: dict[Row, PivotCell], best: Best
) -> str | None:
    """Test one column; why it cannot be, or None."""
    from peftbench.analysis.comparison import (
        family,  # with scikit-learn, for which no other table waits
    )

    if not any(_read(results, cell.keys[0], {}) for cell in _whole(here).values()):
        return "predictions are missing"  # said before all others are looked for in vain
    bad: dict[str, str] = {}
    read = {
        key: one
        for cell in _whole(here).values()
        for key in cell.keys
        if (one := _read(results, key, bad))
    }
    top = _highest(here)
    if bad:
        best.unreadable.update(bad)
        here = {row: _without(cell, bad) for row, cell in here.items()}
        if not all(cell.keys for cell in here.values()):
            return "no predictions of a row can be read"
        if reason := _hinders(here, _whole(here)):
            return f"{reason}, of those whose predictions can be read"
        if top != _highest(here):
            return "the highest is another one without runs whose predictions cannot be read"
    records = {
        row: {s: read[k][0] for s, k in zip(cell.seeds, cell.keys, strict=True)}
        for row, cell in _whole(here).items()
    }
    every = [record for seeds in records.values() for record in seeds.values()]
    if len({grouping.asked(record.run) for record in every}) > 1:
        return "rows answer different questions"
    if grouping.have_several_conditions(every):
        return "rows have several budgets or precisions"
    metric = grid.field.partition(".")[2] or every[0].run.task.metrics[0]
    if "/" in metric:
        return "only scores on the first reporting split are compared"
    labels = {row: " ".join(map(str, row)) for row in records}
    pairs = family(records, top, labels, lambda record: read[record.run.key][1], metric)
    won = below_top(pairs)
    reach = [pair.effect.detectable for pair in pairs if pair.effect is not None]
    if known := [value for value in reach if value == value]:
        best.resolution[column] = statistics.median(known)
    if won:
        best.found[column] = top
    else:
        best.undecided.append(column)
    return None


def below_top(pairs: "list[PairedComparison]") -> bool:
    """Whether every row that was compared with the highest is significantly below it."""
    return all(
        pair.effect is not None
        and pair.effect.value < 0
        and pair.seeds > 1
        and pair.effect.p < ALPHA
        for pair in pairs
    )


def _read(
    results: ResultsFolder, key: str, bad: dict[str, str]
) -> "tuple[Record, Predictions] | None":
    """A record with its predictions, or None and, by its key, what is wrong with them."""
    try:
        record = results.load(key)
        return record, results.predictions(record)
    except RecordError as error:
        bad[key] = str(error)
    except OSError as error:
        bad[key] = f"{error.filename}: {error.strerror}"
    return None


def _without(cell: PivotCell, bad: dict[str, str]) -> PivotCell:
    """The cell but for some of its runs."""
    stay = [number for number, key in enumerate(cell.keys) if key not in bad]
    return replace(
        cell,
        keys=[cell.keys[number] for number in stay],
        seeds=[cell.seeds[number] for number in stay],
        values=[cell.values[number] for number in stay],
        collapsed=[cell.collapsed[number] for number in stay],
    )
