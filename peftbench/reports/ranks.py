"""Which rows of the score table come first over tasks and seeds: mean ranks, Friedman, Nemenyi."""

from collections.abc import Iterable, Sequence

from peftbench.analysis import convention, failures, grouping, mean_ranks
from peftbench.analysis.failures import Diverged
from peftbench.analysis.mean_ranks import MeanRanks
from peftbench.core.run import Record
from peftbench.reports.base import Report
from peftbench.reports.tables.markdown import Table

REPORT = Report(
    name="ranks",
    question="which rows come first over tasks and seeds?",
    order=12,
    tables=lambda inputs: ranks_tables(inputs.records, inputs.diverged),
    page=("differences", 1),
)


def ranks_tables(records: list[Record], diverged: Diverged | None = None) -> list[Table]:
    """Mean ranks over task, size and seed: a table for the rows of each budget and precision."""
    found = mean_ranks.rank_rows(records, diverged)
    gone = failures.diverged_told([r.run for r in records], diverged or Diverged())
    by_row, split = grouping.of_records(records)
    known = {row for one in found for row in (*one.rows, *one.lacking, *one.diverged)}
    labels = grouping.labels(by_row, split)
    alone = [labels[row] for row in by_row if row not in known]
    tables = []
    for one in found:
        notes = [_note(one), *_left_out(one, labels)]
        if one is found[-1] and alone:
            notes.append(
                "Not ranked, as fewer than three rows of their budget and precision share two "
                f"blocks: {'; '.join(alone)}."
            )
        notes += [convention.NOTE, *gone]
        lines = [
            [
                *row,
                f"{mean:.2f}",
                "yes" if mean <= one.found.mean.min() + one.found.critical else "",
            ]
            for mean, row in sorted(zip(one.found.mean.tolist(), one.rows, strict=True))
        ]
        columns = ["method", *split, "mean rank", "not told from the first"]
        tables.append(Table(_title(one, found), columns, lines, 1 + len(split), notes))
    return tables


def _title(one: MeanRanks, among: Sequence[MeanRanks]) -> str:
    """With the settings that all rows of a table share and that others do not have."""
    told = []
    for place, name in enumerate(one.split, 1):
        values = [{row[place] for row in other.rows} for other in among]
        mine = {row[place] for row in one.rows}
        if len(mine) == 1 and mine != {str(None)} and any(value != mine for value in values):
            told.append(grouping.word(name, *mine))
    return ": ".join(["Ranks", *filter(None, [", ".join(told)])])


def _note(one: MeanRanks) -> str:
    found = one.found
    sizes = sorted({name[:2] for name in one.blocks})
    p = f"p = {found.p:.3f}" if found.p >= 0.001 else "p < 0.001"
    return (
        f"1 is the best. Over {len(one.blocks)} blocks, each a task, size and seed in which all "
        "of these have a defined score, of one budget and precision "
        f"({', '.join(f'{t} {s:,}' for t, s in sizes)}). Friedman's "
        f"test that all are alike: {p}; mean ranks that differ by more than {found.critical:.2f} "
        "are significantly different (Nemenyi, 5 %). Seeds of one task are no independent data "
        "sets, so both are too ready to see differences."
    )


def _left_out(one: MeanRanks, labels: dict[grouping.Row, str]) -> Iterable[str]:
    for rows, why in (
        (one.lacking, "without a score in some of these"),
        (one.diverged, "seeds diverged"),
    ):
        if rows:
            yield f"Not ranked, {why}: {'; '.join(labels[row] for row in rows)}."
