"""Which rows of the score table come first over tasks and seeds: mean ranks, Friedman, Nemenyi."""

import numpy as np

from peftbench.analysis import convention, grouping, significance
from peftbench.core.run import Record
from peftbench.reports.base import Report, listed
from peftbench.reports.tables.markdown import Table

Block = tuple[str, int, int]  # task, training examples, seed

REPORT = Report(
    name="ranks",
    question="which rows come first over tasks and seeds?",
    order=12,
    tables=lambda inputs: listed(ranks_table(inputs.records)),
    page=("differences", 1),
)


def ranks_table(records: list[Record]) -> Table | None:
    """Mean ranks over task, size and seed; None where no three rows share two of these."""
    by_row, split = grouping.of_records(records)
    blocks: dict[Block, dict[grouping.Row, float]] = {}
    for row, members in by_row.items():
        for record in members:
            if record.score is not None:
                block = blocks.setdefault((*grouping.sized(record), record.run.seed), {})
                block[row] = record.score
    ranked, shared = _whole(blocks)
    if len(ranked) < 3 or len(shared) < 2:
        return None
    order = [row for row in by_row if row in ranked]
    found = significance.ranks(np.array([[blocks[name][row] for row in order] for name in shared]))
    first = found.mean.min()
    lines = [
        [*row, f"{mean:.2f}", "yes" if mean <= first + found.critical else ""]
        for mean, row in sorted(zip(found.mean.tolist(), order, strict=True))
    ]
    sizes = sorted({name[:2] for name in shared})
    p = f"p = {found.p:.3f}" if found.p >= 0.001 else "p < 0.001"
    note = (
        f"1 is the best. Over {len(shared)} blocks, each a task, size and seed in which all of "
        f"these have a defined score ({', '.join(f'{t} {s:,}' for t, s in sizes)}). Friedman's "
        f"test that all are alike: {p}; mean ranks that differ by more than {found.critical:.2f} "
        "are told apart (Nemenyi, 5 %). Seeds of one task are no independent data sets, so both "
        "are too ready to see differences."
    )
    columns = ["method", *split, "mean rank", "not told from the first"]
    return Table("Ranks", columns, lines, 1 + len(split), [note, convention.NOTE])


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
