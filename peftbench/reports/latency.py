"""How fast each trained model answers: milliseconds and throughput, unmerged and merged."""

from peftbench.analysis import costs, grouping
from peftbench.core.evaluation import Evaluated
from peftbench.reports.base import SuiteReport
from peftbench.reports.tables.markdown import Table

REPORT = SuiteReport(
    suite="Latency",
    tables=lambda found, trained: tables(found, trained),
    figures=None,
    page_plots=lambda found, trained: [],
)

#: Heads of columns, and the figures of the headline that they show.
_COLUMNS = {
    "ms p50": "unmerged_ms_p50",
    "p95": "unmerged_ms_p95",
    "merged ms p50": "merged_ms_p50",
    "merged p95": "merged_ms_p95",
    "texts/s p50": "unmerged_per_second_p50",
    "texts/s p95": "unmerged_per_second_p95",
    "merged texts/s p50": "merged_per_second_p50",
    "merged texts/s p95": "merged_per_second_p95",
}

_NOTE = (
    "Mean ± standard deviation over seeds (number of seeds). ms: of one text, from tokens to "
    "logits. texts/s: of batches of {batch}. p50, p95: percentiles over {repeats} passes; of "
    "texts/s p95 is that of the slow passes. Merged: with what was learnt folded into the model's "
    "own weights, where the method can be; – (0 of n) where it could be in none of n evaluations."
)


def tables(found: list[Evaluated], trained: dict[str, int]) -> list[Table]:
    """A table for each task, size, machine and precision, none of which are pooled.

    Args:
        found: evaluations by the suite.
        trained: trained parameters of each run, by key.
    """
    machines = sorted({costs.machine(e) for e in found})
    made = []
    for place in sorted({_place(e) for e in found}):
        here = [e for e in found if _place(e) == place]
        machine, precision, batch, repeats = place
        note = _NOTE.format(batch=batch, repeats=repeats)
        for section in grouping.sections(here, trained):
            lines = [
                [
                    *row,
                    *(
                        grouping.spread([e.headline[figure] for e in members], 1, 2)
                        for figure in _COLUMNS.values()
                    ),
                ]
                for row, members in section.rows.items()
            ]
            title = f"Latency: {section.title}, {costs.called(machine, machines)}, {precision}"
            heads = ["method", *section.split, *_COLUMNS]
            why = {e.findings["merging"].get("not_merged") for e in section.found} - {None}
            notes = [note, *(f"Not merged: {reason}." for reason in sorted(why))]
            made.append(Table(title, heads, lines, 1 + len(section.split), notes))
    return made


def _place(e: Evaluated) -> tuple[costs.Machine, str, int, int]:
    """What must be equal for seconds to compare."""
    told = e.findings
    return costs.machine(e), e.environment["precision"], told["batch_size"], told["repeats"]
