"""Which runs collapsed, how often that may happen, and whether they have learnt anything."""

from collections import Counter

from peftbench.analysis import failures, grouping
from peftbench.core.run import Record
from peftbench.reports.base import Report, listed
from peftbench.reports.tables.markdown import Table
from peftbench.results.predictions import Load

REPORT = Report(
    name="collapses",
    question="which runs predict one class throughout, and have they learnt anything?",
    order=16,
    tables=lambda inputs: listed(collapses_table(inputs.records, inputs.tested, inputs.load)),
    page=("scores", 4),
)

#: Columns that count kinds of `failures.Collapse`, by kind.
_KINDS = {
    "dead": "constant output",
    "no signal": "AUC at chance",
    "below the threshold": "AUC above chance",
}


def collapses_table(records: list[Record], tested: list[Record], load: Load) -> Table | None:
    """Each row, task and size with a collapsed run; None where there is none.

    Args:
        records: of any tasks.
        tested: those whose predictions can be read.
        load: predictions of a record.
    """
    by_row, split = grouping.of_records(records)
    sized = sorted({grouping.sized(record) for record in records})
    readable = {record.run.key for record in tested}
    lines = []
    for one in sized:
        for row, members in by_row.items():
            here = [record for record in members if grouping.sized(record) == one]
            gone = [record for record in here if record.collapsed]
            if not gone:
                continue
            known = [
                failures.collapse(found["scores"], found["label"])
                for record in gone
                if record.run.key in readable and not record.run.task.generation
                for found in [load(record)]
            ]
            kinds = Counter(one.kind for one in known)
            aucs = [one.auc for one in known if one.auc is not None]
            lines.append(
                [
                    grouping.title(one, sized),
                    *row,
                    failures.bound(len(gone), len(here)),
                    *(str(kinds[kind] or "") if known else "–" for kind in _KINDS),
                    _span([one.spread for one in known], 3),
                    _span(aucs, 3),
                ]
            )
    columns = ["task", "method", *split, "collapsed: rate", *_KINDS.values(), "spread", "AUC"]
    return Table("Collapsed runs", columns, lines, 2 + len(split), [_NOTE]) if lines else None


def _span(values: list[float], digits: int) -> str:
    if not values:
        return "–"
    low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return low if low == high else f"{low} to {high}"


_NOTE = (
    "Seeds that predict one class or value throughout, of all seeds, and the rates of failure that "
    "this leaves possible (95 %, Clopper-Pearson). Spread: standard deviation over examples of the "
    "log odds of the predicted class, or of values over that of the labels. AUC: how well the log "
    "odds order the examples, 0.5 by chance. Counts of collapsed "
    f"seeds. Constant output: the spread is below {failures.DEAD:g}, the output is the same for "
    "every text. AUC at chance: it is not above 0.5 (Mann-Whitney, one-sided, 5 %). AUC above "
    "chance: the run has learnt something and no example has crossed the threshold yet. Where "
    "predictions cannot be read, or are texts, the kind is not known (–)."
)
