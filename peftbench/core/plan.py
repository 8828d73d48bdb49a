"""What overrides expand to: distinct runs, and evaluations of them."""

from dataclasses import dataclass, field

from peftbench.core.evaluation import Evaluation
from peftbench.core.run import Run


@dataclass(frozen=True)
class Plan:
    """What the words mean.

    Attributes:
        runs: distinct, in the order of the words.
        cells: how many cells the grid has; more than runs where two cells are one run.
        repeats: for each cell that is an earlier one again, the words of both.
        axes: keys, such as train.lr, in which cells differ.
        data_root: folders of data sets in the hub's layout, or None for the hub.
        evaluations: of these runs, by the suites that the words name.
    """

    runs: list[Run]
    cells: int
    repeats: list[tuple[str, str]]
    axes: list[str]
    data_root: str | None
    evaluations: list[Evaluation] = field(default_factory=list)
