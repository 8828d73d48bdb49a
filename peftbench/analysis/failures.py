"""Failed runs: how often a method fails, as far as some seeds can say, and how a run failed.

A run that predicts one class throughout may be dead, its outputs the same whatever the text is; or
its outputs order the examples, and the budget ended before the first of them crossed the threshold.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from peftbench.analysis.proportions import clopper_pearson
from peftbench.analysis.significance import ALPHA
from peftbench.core.arrays import Array, Floats
from peftbench.core.run import Record, Run
from peftbench.core.text import one_line
from peftbench.metrics import task_metrics

#: Outputs with a smaller standard deviation over examples than this are the same for every text:
#: dead runs of the reference records have at most 0.006, others at least 0.068.
DEAD = 0.02


def bound(failed: int, seeds: int) -> str:
    """How many seeds collapsed, and the rates that this leaves possible."""
    low, high = (100 * end for end in clopper_pearson(failed, seeds))
    rates = f"at most {high:.0f} %" if not failed else f"{low:.0f} to {high:.0f} %"
    return f"{failed} of {seeds}: {rates}"


def bounds_note(counts: set[tuple[int, int]]) -> str:
    """Below a table that marks collapsed seeds: what each of the counts says of the rate."""
    told = "; ".join(
        bound(failed, seeds).replace(":", " seeds:", 1) for failed, seeds in sorted(counts)
    )
    return (
        "†n: n seeds collapsed, that is, predict one class or value for every example. 95 % "
        f"interval of the collapse rate (Clopper-Pearson): {told}."
    )


@dataclass(frozen=True)
class Collapse:
    """How a run that predicts one class or value throughout came to it.

    Attributes:
        spread: standard deviation over examples of the log odds of the predicted class, or of the
            values in units of the labels' own.
        auc: probability that an example of the predicted class has higher log odds of it than
            another one; None for values, and where the spread is none.
        p: one-sided, that it is a half (Mann and Whitney 1947).
    """

    spread: float
    auc: float | None
    p: float | None

    @property
    def kind(self) -> str:
        """In words."""
        if self.spread < DEAD:
            return "dead"
        if self.auc is not None and self.p is not None and self.p < ALPHA and self.auc > 0.5:
            return "below the threshold"
        return "no signal"


def collapse(scores: Array, label: Array) -> Collapse:
    """Tell how a run collapsed from its `(examples, classes)` outputs, or `(examples, 1)` values.

    Args:
        scores: outputs of which all predict one class.
        label: (examples,) classes or values.
    """
    from scipy.special import logsumexp
    from scipy.stats import mannwhitneyu

    if scores.shape[1] == 1:
        spread = float(np.std(scores[:, 0].astype(np.float64)))
        own = float(np.std(label.astype(np.float64)))
        return Collapse(spread / own if own else spread, None, None)
    place = int(task_metrics.decide(scores)[0])
    whole = scores.astype(np.float64)
    odds: Floats = whole[:, place] - logsumexp(np.delete(whole, place, axis=1), axis=1)
    spread, of_class = float(np.std(odds)), label == place
    if not spread or of_class.all() or not of_class.any():
        return Collapse(spread, None, None)
    test = mannwhitneyu(odds[of_class], odds[~of_class], alternative="greater")
    return Collapse(
        spread, float(test.statistic / (of_class.sum() * (~of_class).sum())), float(test.pvalue)
    )


def failed(records: list[Record]) -> int:
    """How many of the runs collapsed."""
    return sum(record.collapsed for record in records)


@dataclass(frozen=True)
class Diverged:
    """Runs without a record whose training diverged.

    A mean over the seeds that have a record is better than what the method gives a person who
    trains once, and no record tells it.

    Attributes:
        runs: by `Run.cell_key`.
    """

    runs: dict[str, list[Run]] = field(default_factory=dict)

    @classmethod
    def from_runs(cls, runs: Iterable[Run]) -> "Diverged":
        """Those of one cell together."""
        found: dict[str, list[Run]] = {}
        for run in runs:
            found.setdefault(run.cell_key, []).append(run)
        return cls(found)

    def of_cells(self, cells: Iterable[str]) -> list[Run]:
        """Those of some cells."""
        return [run for cell in cells for run in self.runs.get(cell, [])]

    def beside(self, runs: Iterable[Run]) -> list[Run]:
        """Those that differ from one of these runs in nothing but their seed."""
        return self.of_cells(dict.fromkeys(run.cell_key for run in runs)) if self.runs else []

    def count(self, records: Iterable[Record]) -> int:
        """How many seeds diverged beside those of these records."""
        return len(self.beside(record.run for record in records))

    def alone(self, runs: Iterable[Run]) -> list[list[Run]]:
        """Those of whose cell no seed is among these runs, by cell."""
        cells = {run.cell_key for run in runs} if self.runs else set()
        return [gone for cell, gone in self.runs.items() if cell not in cells]


def diverged_mark(count: int) -> str:
    """Behind a score: so many more seeds diverged."""
    return f" {DIVERGED}{count}" if count else ""


#: Marks scores beside which seeds diverged.
DIVERGED = "×"


def diverged_notes(runs: Sequence[Run], diverged: Diverged) -> list[str]:
    """What a table of these runs says of those that diverged: what the mark is, what has no row."""
    return [*[DIVERGED_NOTE] * bool(diverged.beside(runs)), *_without_a_row(runs, diverged)]


def diverged_told(runs: Sequence[Run], diverged: Diverged) -> list[str]:
    """What a figure of these runs, or a table without marks, says of those that diverged."""
    beside = diverged.beside(runs)
    told = [f"Seeds that diverged have no score and are not shown: {diverged_listed(beside)}."]
    return [*told * bool(beside), *_without_a_row(runs, diverged)]


def diverged_listed(runs: Iterable[Run]) -> str:
    """How many of each method and task."""
    counts = Counter((run.row, run.task.name) for run in runs)
    return ", ".join(f"{row} on {task} ({count})" for (row, task), count in sorted(counts.items()))


def _without_a_row(runs: Sequence[Run], diverged: Diverged) -> list[str]:
    told = []
    if gone := diverged.alone(runs):
        cells = [_cell_title(cell) for cell in gone[:_NAMED]]
        more = [f"{len(gone) - _NAMED} more"] * (len(gone) > _NAMED)
        told.append(f"Diverged in every seed, so without a row: {'; '.join([*cells, *more])}.")
    return told


def _cell_title(runs: Sequence[Run]) -> str:
    one = runs[0]
    seeds = ", ".join(str(seed) for seed in sorted(run.seed for run in runs))
    return one_line(
        f"{one.row} · {one.task.name} · {one.model.title} · size {one.size}"
        f" · lr {one.train.lr:g} · seed {seeds}"
    )


#: Cells in which every seed diverged that a note names; more are counted.
_NAMED = 3


#: What the mark means, below a table.
DIVERGED_NOTE = (
    f"{DIVERGED}n: n more seeds diverged (loss or predictions not finite) and have no score. The "
    "mean is over the other seeds, so it is better than what the method gives."
)
