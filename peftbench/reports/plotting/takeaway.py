"""What comparisons come to, in one sentence: the title of a picture, the head of the page."""

from collections.abc import Iterable, Mapping, Sequence

from peftbench.analysis import grouping
from peftbench.analysis.comparison import PairedComparison
from peftbench.core.text import listed_names
from peftbench.reports import glossary

#: Verdicts that follow from a test of two methods.
_TESTED = ("better", "worse", "not worse", "undecided")


def sentence(pairs: Iterable[PairedComparison]) -> str:
    """Which methods differ significantly from the baseline; empty if no methods were compared."""
    tested = [pair for pair in pairs if pair.kind in _TESTED]
    if not tested:
        return ""
    against = " or ".join(sorted({glossary.row(pair.against) for pair in tested}))
    parts = []
    sizes: dict[str, set[grouping.Sized]] = {}
    for pair in tested:
        sizes.setdefault(pair.sized[0], set()).add(pair.sized)
    told = [pair for pair in tested if not pair.overstated]
    if not any(pair.kind == "better" for pair in told):
        parts.append(f"no method is significantly better than {against}")
    for kind in ("better", "worse"):
        if named := _named([pair for pair in told if pair.kind == kind], sizes):
            than = "" if parts else f" than {against}"
            parts.append(f"significantly {kind}{than}: {listed_names(named, 4)}")
    for kind in ("better", "worse"):
        over = [pair for pair in tested if pair.kind == kind and pair.overstated]
        if named := _named(over, sizes):
            parts.append(f"{kind} without the seeds that diverged: {listed_names(named, 4)}")
    undecided = sum(pair.kind == "undecided" for pair in tested)
    parts.append(f"undecided: {undecided} of {len(tested):,} comparison" + "s" * (len(tested) != 1))
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _named(
    pairs: Sequence[PairedComparison], sizes: Mapping[str, set[grouping.Sized]]
) -> list[str]:
    """Rows with their tasks in brackets, with the size where a task has several."""
    where: dict[str, dict[str, None]] = {}
    for pair in pairs:
        task = glossary.name("tasks", pair.sized[0])
        if len(sizes[pair.sized[0]]) > 1:
            task += f" {pair.sized[1]:,}"
        where.setdefault(glossary.row(pair.label), {})[task] = None
    return [f"{row} ({', '.join(tasks)})" for row, tasks in where.items()]
