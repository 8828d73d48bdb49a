"""Which role of the seed do scores vary with? Variance components from seeds of single roles."""

from collections import Counter

import numpy as np

from peftbench.analysis import grouping
from peftbench.analysis.failures import Diverged
from peftbench.analysis.variance_components import REST, Component, FactorDesign
from peftbench.core.run import ROLES, Json, Record, Run, canonical, identity
from peftbench.reports.base import Report, listed
from peftbench.reports.tables.markdown import Table

REPORT = Report(
    name="variance",
    question="which role of the seed do scores vary with?",
    order=18,
    tables=lambda inputs: listed(variance_table(inputs.records, inputs.diverged)),
    page=("differences", 2),
)

_NOTE = (
    "Points of the task's first metric; a run whose score is undefined, of a constant prediction, "
    "has that of the trivial one. Roles: what a run draws at random, each from a seed of its own "
    "(`seed.order=3`); roles that always change together stand together. Variance: Henderson's "
    "method 3, unbiased and so below 0 at times; in an orthogonal array or a crossed set this is "
    "the analysis of variance. Intervals of 95 %: Ting et al. 1990, of the rest by chi-square, as "
    "if effects were normal. Share: of the sum, with negative ones as 0. The rest holds all "
    "interactions; in an orthogonal array of strength two those of two roles also reach the lines "
    "of others. p: an F test that the role brings nothing, uncorrected. All runs answer the same "
    "examples, so nothing here is for a choice of those."
)


def variance_table(records: list[Record], diverged: Diverged | None = None) -> Table | None:
    """A line for each role of each cell of runs with seeds of single roles; None without any.

    Args:
        records: of any runs.
        diverged: runs without a record, which a note counts.
    """
    cells: dict[str, list[Record]] = {}
    for record in records:
        cells.setdefault(_cell(record), []).append(record)
    crossed = [
        sorted(found, key=lambda record: record.run.key)
        for found in cells.values()
        if any(record.run.role_seeds for record in found)
    ]
    if not crossed:
        return None
    firsts = [found[0] for found in crossed]
    sized = [grouping.sized(first) for first in firsts]
    lines, untold, lost = [], [], []
    gone = Counter(_setting(run) for runs in (diverged or Diverged()).runs.values() for run in runs)
    named = [(_row(first, firsts), found) for first, found in zip(firsts, crossed, strict=True)]
    for row, found in sorted(named, key=lambda one: (one[1][0].run.task.name, one[0])):
        title = grouping.title(grouping.sized(found[0]), sized)
        if count := gone[_setting(found[0].run)]:
            lost.append(f"{row}, {title} ({count})")
        design = FactorDesign({role: [r.run.seed_of(role) for r in found] for role in ROLES})
        if design.left < 1:
            untold.append(f"{row}, {title}")
            continue
        components = design.estimate(np.array([100 * _score(record) for record in found]))
        total = sum(max(0.0, one.variance or 0.0) for one in components)
        lines += [[row, title, str(len(found)), *_line(one, total)] for one in components]
    notes = [_NOTE]
    if untold:
        notes.append(
            "Too few runs to tell roles apart, as each role takes its levels less one and the rest "
            f"at least one: {'; '.join(untold)}."
        )
    if lost:
        notes.append(
            "Runs that diverged are missing, so that these sets lack what failed: "
            f"{'; '.join(lost)}."
        )
    columns = ["row", "task", "runs", "role", "levels", "standard deviation", "variance"]
    columns += ["95 % from", "to", "share", "p"]
    return Table("Variance by role of the seed", columns, lines, 4, notes)


def _cell(record: Record) -> str:
    made = grouping.made_with(record)
    return canonical([_setting(record.run), record.work["train_size"], made])


def _setting(run: Run) -> str:
    node: Json = {k: v for k, v in run.to_json().items() if k not in ("seed", "role_seeds")}
    return canonical(identity(node))


def _row(record: Record, among: list[Record]) -> str:
    """The method, and settings in which cells of it on this task and size differ."""
    same = [
        grouping.settings(other.run) | grouping.made_with(other)
        for other in among
        if (other.run.method.name, *grouping.sized(other))
        == (record.run.method.name, *grouping.sized(record))
    ]
    mine = grouping.settings(record.run) | grouping.made_with(record)
    told = [
        f"{name.rpartition('.')[2]}={value:g}"
        if isinstance(value, float)
        else f"{name.rpartition('.')[2]}={value}"
        for name, value in mine.items()
        if not name.startswith("seed.") and any(other.get(name) != value for other in same)
    ]
    return ", ".join([record.run.method.name, *told])


def _score(record: Record) -> float:
    if record.score is not None:
        return record.score
    return record.trivial.get(record.run.task.metric) or 0.0


def _line(one: Component, total: float) -> list[str]:
    levels = "" if one.name == REST else str(one.levels)
    if one.variance is None or one.low is None or one.high is None:
        return [one.name, levels, "not told apart", *["–"] * 5]
    known = max(0.0, one.variance)
    share = f"{100 * known / total:.0f} %" if total else "–"
    figures = [f"{value:.2f}" for value in (known**0.5, one.variance, one.low, one.high)]
    return [one.name, levels, *figures, share, "" if one.p is None else f"{one.p:.3f}"]
