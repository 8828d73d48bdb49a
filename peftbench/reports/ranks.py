"""Which rows of the score table come first over tasks and seeds: mean ranks, Friedman, Nemenyi."""

from peftbench.analysis import convention, mean_ranks
from peftbench.core.run import Record
from peftbench.reports.base import Report, listed
from peftbench.reports.tables.markdown import Table

REPORT = Report(
    name="ranks",
    question="which rows come first over tasks and seeds?",
    order=12,
    tables=lambda inputs: listed(ranks_table(inputs.records)),
    page=("differences", 1),
)


def ranks_table(records: list[Record]) -> Table | None:
    """Mean ranks over task, size and seed; None where no three rows share two of these."""
    ranked = mean_ranks.rank_rows(records)
    if ranked is None:
        return None
    found = ranked.found
    first = found.mean.min()
    lines = [
        [*row, f"{mean:.2f}", "yes" if mean <= first + found.critical else ""]
        for mean, row in sorted(zip(found.mean.tolist(), ranked.rows, strict=True))
    ]
    sizes = sorted({name[:2] for name in ranked.blocks})
    p = f"p = {found.p:.3f}" if found.p >= 0.001 else "p < 0.001"
    note = (
        f"1 is the best. Over {len(ranked.blocks)} blocks, each a task, size and seed in which all "
        f"of these have a defined score ({', '.join(f'{t} {s:,}' for t, s in sizes)}). Friedman's "
        f"test that all are alike: {p}; mean ranks that differ by more than {found.critical:.2f} "
        "are significantly different (Nemenyi, 5 %). Seeds of one task are no independent data "
        "sets, so both are too ready to see differences."
    )
    columns = ["method", *ranked.split, "mean rank", "not told from the first"]
    return Table("Ranks", columns, lines, 1 + len(ranked.split), [note, convention.NOTE])
