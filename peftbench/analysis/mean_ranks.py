"""Mean ranks of the rows of the score table over tasks, sizes and seeds."""

from dataclasses import dataclass

import numpy as np

from peftbench.analysis import grouping, significance
from peftbench.core.run import Record

Block = tuple[str, int, str, int]  # task, training examples, what is asked, seed


@dataclass(frozen=True)
class MeanRanks:
    """Rows that have a score in each of some blocks.

    Attributes:
        rows: in the order of the score table.
        split: names of the settings in a row, see `grouping.grouped`.
        blocks: in which all of the rows have a defined score.
        found: mean ranks in the order of the rows.
    """

    rows: list[grouping.Row]
    split: list[str]
    blocks: list[Block]
    found: significance.Ranks


def rank_rows(records: list[Record]) -> MeanRanks | None:
    """Rank rows over task, size and seed; None where no three rows share two of these."""
    by_row, split = grouping.of_records(records)
    blocks: dict[Block, dict[grouping.Row, float]] = {}
    for row, members in by_row.items():
        for record in members:
            if record.score is not None:
                name = (*grouping.sized(record), grouping.asked(record.run), record.run.seed)
                blocks.setdefault(name, {})[row] = record.score
    ranked, shared = _whole(blocks)
    if len(ranked) < 3 or len(shared) < 2:
        return None
    rows = [row for row in by_row if row in ranked]
    scores = np.array([[blocks[name][row] for row in rows] for name in shared])
    return MeanRanks(rows, split, shared, significance.ranks(scores))


def _whole(
    blocks: dict[Block, dict[grouping.Row, float]],
) -> tuple[frozenset[grouping.Row], list[Block]]:
    """The largest table without gaps among those whose rows are just the ones of some block."""
    found: list[tuple[frozenset[grouping.Row], list[Block]]] = [
        (kind, sorted(name for name, block in blocks.items() if kind <= block.keys()))
        for kind in {frozenset(block) for block in blocks.values() if len(block) > 2}
    ]
    fit = [(kind, shared) for kind, shared in found if len(shared) > 1]
    return max(
        fit, key=lambda one: (len(one[0]) * len(one[1]), sorted(one[0])), default=(frozenset(), [])
    )
