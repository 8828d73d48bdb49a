"""Mean ranks of the rows of the score table over tasks, sizes and seeds."""

import itertools
from dataclasses import dataclass

import numpy as np

from peftbench.analysis import grouping, significance
from peftbench.analysis.failures import Diverged
from peftbench.core.run import Record

Block = tuple[str, int, str, str, int]  # task, training examples, what is asked, conditions, seed
Blocks = dict[Block, dict[grouping.Row, float]]


@dataclass(frozen=True)
class MeanRanks:
    """Rows of equal conditions that have a score in each of some blocks.

    Attributes:
        rows: in the order of the score table.
        split: names of the settings in a row, see `grouping.grouped`.
        blocks: in which all of the rows have a defined score.
        found: mean ranks in the order of the rows.
        lacking: rows of these conditions without a score in some of the blocks.
        diverged: rows of which seeds diverged, so that those that are left overstate them.
    """

    rows: list[grouping.Row]
    split: list[str]
    blocks: list[Block]
    found: significance.Ranks
    lacking: list[grouping.Row]
    diverged: list[grouping.Row]


def rank_rows(records: list[Record], diverged: Diverged | None = None) -> list[MeanRanks]:
    """Rank rows over task, size and seed.

    Returns:
        A table for the rows of each budget and precision; none where no three of them share two
        blocks.
    """
    by_row, split = grouping.of_records(records)
    gone = {row for row, members in by_row.items() if (diverged or Diverged()).count(members)}
    blocks: Blocks = {}
    for row, members in by_row.items():
        for record in members:
            if record.score is not None:
                blocks.setdefault(_block(record), {})[row] = record.score
    place = {row: number for number, row in enumerate(by_row)}
    parts = sorted(_parts(blocks), key=lambda part: min(place[r] for b in part.values() for r in b))
    made = []
    for part in parts:
        here = [row for row in by_row if any(row in block for block in part.values())]
        ranked, shared = _whole(
            {
                name: {row: score for row, score in block.items() if row not in gone}
                for name, block in part.items()
            }
        )
        if not ranked:
            continue
        rows = [row for row in here if row in ranked]
        scores = np.array([[part[name][row] for row in rows] for name in shared])
        made.append(
            MeanRanks(
                rows,
                split,
                shared,
                significance.ranks(scores),
                lacking=[row for row in here if row not in ranked | gone],
                diverged=[row for row in here if row in gone],
            )
        )
    return made


def mean_rank(records: list[Record], diverged: Diverged | None = None) -> dict[grouping.Row, float]:
    """The mean rank of each row that is ranked; none where several tables do not compare."""
    tables = rank_rows(records, diverged)
    if len(tables) != 1:
        return {}
    return dict(zip(tables[0].rows, tables[0].found.mean.tolist(), strict=True))


def _block(record: Record) -> Block:
    task, size = grouping.sized(record)
    asked, conditions = grouping.asked(record.run), grouping.conditions(record)
    return task, size, asked, conditions, record.run.seed


def _parts(blocks: Blocks) -> list[Blocks]:
    """Blocks parted so that no row is in two parts: rows of several budgets share no block."""
    parts: list[tuple[set[grouping.Row], Blocks]] = []
    for name in sorted(blocks):
        rows, names = set(blocks[name]), {name: blocks[name]}
        apart = []
        for part in parts:
            if part[0] & rows:
                rows, names = rows | part[0], part[1] | names
            else:
                apart.append(part)
        parts = [*apart, (rows, names)]
    return [part for _, part in parts]


def _whole(blocks: Blocks) -> tuple[frozenset[grouping.Row], list[Block]]:
    """The largest table without gaps, of rows that one block has or that two blocks share."""
    alone = {frozenset(block) for block in blocks.values()}
    kinds = alone | {one & other for one, other in itertools.combinations(alone, 2)}
    found = [
        (kind, sorted(name for name, block in blocks.items() if kind <= block.keys()))
        for kind in kinds
        if len(kind) > 2
    ]
    fit = [(kind, shared) for kind, shared in found if len(shared) > 1]
    return max(
        fit,
        key=lambda one: (len(one[0]) * len(one[1]), len(one[0]), sorted(one[0])),
        default=(frozenset(), []),
    )
