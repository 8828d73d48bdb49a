"""Cells of the score table with their runs: what each scores, costs, and whether it is beaten."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from peftbench.analysis import costs, grouping
from peftbench.analysis.failures import Diverged
from peftbench.analysis.pareto import fronts
from peftbench.core.run import Record
from peftbench.results.tuned import Tuned


@dataclass(frozen=True)
class ScoreCell:
    """Runs of one row, task and training size: they differ in the seed.

    Attributes:
        row: of the score table.
        sized: task and training examples.
        records: by seed.
        front: in which of `COSTS` no other cell of the same data and size scores as high for less;
            not in seconds where these are of several machines, and never where seeds diverged.
        tuned: runs with a learning rate that was chosen.
        diverged: how many more seeds have no record, as their training diverged.
    """

    row: grouping.Row
    sized: tuple[str, int]
    records: list[Record]
    front: list[str] = field(default_factory=list)
    tuned: Tuned = field(default_factory=Tuned)
    diverged: int = 0

    @property
    def metric(self) -> str:
        """The first of the task."""
        first: str = self.records[0].run.task.metrics[0]
        return first

    @property
    def defined(self) -> list[float]:
        """Scores, but for those of runs that have none."""
        return [record.score for record in self.records if record.score is not None]

    @property
    def score(self) -> float | None:
        """Their mean."""
        return statistics.fmean(self.defined) if self.defined else None

    @property
    def collapsed(self) -> int:
        """How many runs predict one class or value throughout."""
        return sum(record.collapsed for record in self.records)

    @property
    def seconds(self) -> float:
        """Mean seconds of training."""
        return statistics.fmean(record.seconds["train"] for record in self.records)

    @property
    def total(self) -> float | None:
        """The same with the trials that tuned it; None where these are of another machine."""
        return costs.mean_with_tuning(self.records, self.tuned)

    @property
    def trained(self) -> int:
        """Parameters that train beside the head, in the run that trains most."""
        return max(record.parameters["trained"] for record in self.records)

    @property
    def peak(self) -> float | None:
        """Mean peak of memory while training, in bytes: of the GPU where there is one."""
        return costs.mean_peak(self.records)

    @property
    def machines(self) -> set[costs.Machine]:
        """Where the runs were made: of several, seconds do not compare."""
        return {costs.machine(record) for record in self.records}


#: What a score may be held against.
COSTS: dict[str, Callable[[ScoreCell], float | None]] = {
    "seconds": lambda cell: cell.total or None,  # untrained: no cost to plot
    "trained": lambda cell: float(max(1, cell.trained)),
}

#: Of these, what a longer budget costs more of: cells of several budgets share a front.
_SPENT = ("seconds",)


def cells(
    by_row: dict[grouping.Row, list[Record]], tuned: Tuned, diverged: Diverged
) -> list[ScoreCell]:
    """Records by row, task and size; rows in the order of the tables."""
    parted: dict[tuple[grouping.Row, tuple[str, int]], list[Record]] = {}
    for row, members in by_row.items():
        for record in sorted(members, key=lambda r: (r.run.seed, r.run.key)):
            parted.setdefault((row, grouping.sized(record)), []).append(record)
    place = {row: number for number, row in enumerate(by_row)}
    order = sorted(parted, key=lambda one: (place[one[0]], one[1]))
    found = [
        ScoreCell(row, sized, here, tuned=tuned, diverged=diverged.count(here))
        for row, sized in order
        for here in [parted[row, sized]]
    ]
    together: dict[tuple[tuple[str, int], str], list[ScoreCell]] = {}
    for cell in found:
        data = grouping.asked(cell.records[0].run)  # one name may stand for two files
        together.setdefault((cell.sized, data), []).append(cell)
    for here in together.values():
        several = len({machine for cell in here for machine in cell.machines}) > 1
        for name, cost in COSTS.items():
            if several and name == "seconds":
                continue
            for cell in cheapest_front(here, cost, across=name in _SPENT):
                cell.front.append(name)
    return found


def cheapest_front(
    here: list[ScoreCell], cost: Callable[[ScoreCell], float | None], across: bool
) -> list[ScoreCell]:
    """Those of one data set and size that no other beats in score and cost at once (Pareto).

    The cheapest first.

    Args:
        here: the cells.
        cost: of one.
        across: whether cells of several budgets and precisions, and untrained ones, share a front.
    """
    points = {
        number: (cell.score, cost(cell))
        for number, cell in enumerate(here)
        if not cell.diverged and (across or not cell.records[0].run.untrained)
    }
    kinds = [across or grouping.conditions(cell.records[0]) for cell in here]
    return [here[number] for front in fronts(points, kinds.__getitem__) for number in front]
