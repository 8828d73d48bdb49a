"""Which published claims hold here: verdicts, the settings behind them, theirs beside ours.

What no paper claims, our conjectures, stands in tables of its own.
"""

from collections import Counter
from dataclasses import replace

from peftbench.analysis import grouping
from peftbench.analysis.significance import ALPHA
from peftbench.claims.evidence import SEEDS, ClaimEvidence, label
from peftbench.claims.matching import picked
from peftbench.claims.quantities import QUANTITIES
from peftbench.claims.schema import CONJECTURE, Figures, Paper, parse_conditions
from peftbench.claims.verdicts import Verdict
from peftbench.core.run import Record
from peftbench.reports.base import Inputs, Report
from peftbench.reports.tables.markdown import Table

REPORT = Report(
    name="claims",
    question="which published claims hold here?",
    order=14,
    tables=lambda inputs: _reported(inputs, narrow=False),
    terminal=lambda inputs: _reported(inputs, narrow=True),
    page=None,
)


def _reported(inputs: Inputs, narrow: bool) -> list[Table]:
    """Tables of the claims that have a cell; the others are named."""
    shown = [one for one in inputs.judged if one.cells]
    if not shown:
        return []
    first, *more = tables(shown, inputs.records, narrow)
    named: dict[str, list[str]] = {}
    for one in inputs.judged:
        if not one.cells:
            named.setdefault(one.paper.name, []).append(one.claim.name)
    others = "; ".join(f"{paper}: {', '.join(names)}" for paper, names in named.items())
    told = f"Without runs here, or not testable (peftbench report claims says which): {others}."
    return [replace(first, notes=[*first.notes, *([told] if others else [])]), *more]


def tables(tested: list[Verdict], records: list[Record], narrow: bool = False) -> list[Table]:
    """Verdicts, cells where there are any, and figures of papers that have a run here.

    Args:
        tested: claims.
        records: to be shown beside what papers print.
        narrow: for a terminal: the cells of each claim and pair of rows are a table of their own,
            which says the less in each line.
    """
    made: list[Table] = []
    for title, part in (
        ("Claims", [one for one in tested if one.claim.tag != CONJECTURE]),
        ("Our conjectures", [one for one in tested if one.claim.tag == CONJECTURE]),
    ):
        if part:
            made.append(_summed(title, part) if narrow else _verdicts(title, part))
        if any(one.cells for one in part):
            made += _parted(part) if narrow else [_cells(title, part)]
        if part:
            made.append(_sources(title, part, narrow))
    papers = {one.paper.name: one.paper for one in tested}
    made += [
        table
        for paper in papers.values()
        for figures in paper.figures
        if (table := _figures(paper, figures, records))
    ]
    return made


def _verdicts(title: str, tested: list[Verdict]) -> Table:
    lines = []
    for one in tested:
        counts = [sum(cell.verdict == kind for cell in one.cells) for kind in _KINDS]
        lines.append(
            [
                one.paper.name,
                one.claim.name,
                one.verdict,
                " · ".join(map(str, counts)) if one.cells else "–",
                _deciding(one),
                one.claim.says,
                _decides(one),
            ]
        )
    columns = ["paper", "claim", "verdict", "settings", "deciding setting", "in words"]
    return Table(title, [*columns, "would decide it"], lines, 3, [_VERDICTS], prose=2)


def _summed(title: str, tested: list[Verdict]) -> Table:
    """The same for a terminal: what is a sentence stands in one column."""
    lines = []
    for one in tested:
        told = [one.claim.says]
        if one.deciding is not None:
            told.append(f"Deciding setting: {_deciding(one)}.")
        if decides := _decides(one):
            told.append(f"Would decide it: {decides}.")
        counts = [sum(cell.verdict == kind for cell in one.cells) for kind in _KINDS]
        cells = " · ".join(map(str, counts)) if one.cells else "–"
        lines.append(["\n".join(_names(one)), one.verdict, cells, " ".join(told)])
    columns = ["claim", "verdict", "settings", "in words"]
    return Table(title, columns, lines, 1, [_VERDICTS], prose=1)


def _names(one: Verdict) -> list[str]:
    return [one.paper.name, one.claim.name]


def _sources(title: str, tested: list[Verdict], narrow: bool) -> Table:
    lines = [
        [
            *(["\n".join(_names(one))] if narrow else _names(one)),
            f"{claim.source} ({claim.tag})",
            claim.published,
            claim.reading,
        ]
        for one in tested
        for claim in [one.claim]
    ]
    papers = {one.paper.name: one.paper for one in tested}.values()
    told = "; ".join(f"{paper.name}: {paper.title}, {paper.identifier}" for paper in papers)
    columns = [*([] if narrow else ["paper"]), "claim", "where it is said", "published"]
    note = (
        f"{told}. Published numbers are theirs, with their caveats; none enters a verdict. "
        "Inferred: the test takes the sentence to mean more than it says."
    )
    columns.append("what the test takes it to mean")
    return Table(f"{title}, their sources", columns, lines, len(columns) - 3, [note], prose=3)


def _deciding(one: Verdict) -> str:
    cell = one.deciding
    if cell is None:
        return "–"
    if cell.effect is None:
        return f"{cell.title}: {cell.why}"
    value, low, high, _ = _effect(one, cell)[:4]
    return f"{cell.title}: {value} ({low} to {high}), n = {_count(cell)}"


_KINDS = ("supported", "contradicted", "undecided")

_VERDICTS = (
    "Supported and contradicted are said of these records: this model, these tasks, sizes and "
    "budgets. Settings: supported · contradicted · undecided. What must hold everywhere is "
    "supported if every setting supports it, each at the 5 % level (an intersection-union test, "
    "Berger 1982), and all that the claim speaks of was tested; it is contradicted if one setting "
    "contradicts it after Holm's correction. What must hold somewhere, the other way round; what "
    "must hold in most, by more than half of the settings, all corrected, and again all that the "
    "claim speaks of was tested. The correction is over "
    "all settings of the claim: one that cannot be tested counts as one with p = 1, so a claim "
    "with one testable setting of three is still corrected for three. A learning rate that was not"
    " chosen on the setting's task (among three or more, on a selection split, in this folder or "
    "the folder `tuning` beside it; at any size) decides nothing about a method: rate not chosen "
    "here. Claims about one published rate, or one rate on both sides, say so in their reading. "
    "A better rate can only raise a score, so the method that is behind has to have a chosen"
    " one. One seed decides nothing. Deciding setting: that which supports the claim least (where "
    "one setting is enough, most): effect in points, 95 % interval, seeds × examples. Every claim "
    "is a family of its own: of many true ones, one in twenty may be called contradicted."
)


def _decides(one: Verdict) -> str:
    if one.verdict in ("supported", "contradicted"):
        return ""
    if one.verdict == "not testable":
        return one.why
    if one.verdict == "no runs":
        return "the runs of --plan"
    left = [cell for cell in one.cells if cell.verdict == "undecided"]
    known = sorted(cell.needed for cell in left if cell.needed is not None)
    told = []
    if known:
        few, many = known[0], known[-1]
        told.append(f"{few} seeds" if few == many else f"{few} to {many} seeds")
    tuned = [cell for cell in left if not (cell.untuned or cell.awaits)]
    if beyond := sum(cell.needed is None and cell.effect is not None for cell in tuned):
        told.append(f"in {_of(beyond, one)} more than 100 seeds, or more examples")
    if lost := sum(cell.needed is None and cell.effect is None for cell in tuned):
        told.append(f"{_of(lost, one)} undefined, seeds do not help")
    if untuned := sum(cell.untuned for cell in left):
        told.append(f"in {_of(untuned, one)} rates that are chosen on the task")
    lacking = Counter(cell.awaits for cell in left if cell.awaits and not cell.untuned)
    told += [f"in {_of(n, one)} a rate at which {awaits}" for awaits, n in sorted(lacking.items())]
    if one.why:
        told.append(f"there are {one.why}")
    return "; ".join(told)


def _of(some: int, one: Verdict) -> str:
    return f"{some} of {len(one.cells)} settings"


def _cells(title: str, tested: list[Verdict]) -> Table:
    lines = []
    for one in tested:
        for cell in one.cells:
            names = [one.paper.name, one.claim.name, cell.title, cell.ours, cell.against or ""]
            of = [cell.of, _count(cell)]
            lines.append([*names, *of, *_effect(one, cell), _verdict(cell), _seeds(cell)])
    heads = ["paper", "claim", "setting", "row", "against", "of", "seeds × examples", "effect"]
    columns = [*heads, "95 % from", "to", "threshold", "p", "p, Holm", "verdict", "seeds needed"]
    return Table(f"{title}, setting by setting", columns, lines, 5, [_NOTE])


def _parted(tested: list[Verdict]) -> list[Table]:
    """The same for a terminal."""
    parts: dict[str, list[list[str]]] = {}
    for one in tested:
        null = next((cell.null for cell in one.cells if cell.null), 0)  # one for all of a claim
        for cell in one.cells:
            value, low, high, _, _, adjusted = _effect(one, cell)
            shown = value if cell.effect is None else f"{value} ({low} to {high})"
            held = f"{cell.ours} against {cell.against}" if cell.against else cell.ours
            title = f"{', '.join(_names(one))}: {held}, {cell.of}"
            if null:
                title += f", threshold {_points(null, '')}"
            line = [cell.title, _count(cell), shown, adjusted, _seeds(cell), _verdict(cell)]
            parts.setdefault(title, []).append(line)
    columns = ["setting", "n", "effect (95 %)", "p, Holm", "seeds needed", "verdict"]
    made = [Table(title, columns, lines, prose=1, narrow=True) for title, lines in parts.items()]
    return [*made[:-1], replace(made[-1], notes=[_NOTE])]


def _count(cell: ClaimEvidence) -> str:
    """Seeds and, where they count, examples."""
    return f"{cell.seeds}" if cell.examples is None else f"{cell.seeds} × {cell.examples:,}"


def _verdict(cell: ClaimEvidence) -> str:
    return cell.verdict + (f" ({cell.why})" if cell.why else "")


def _seeds(cell: ClaimEvidence) -> str:
    if cell.verdict != "undecided" or cell.untuned or cell.awaits:
        return ""
    if cell.needed is None and cell.effect is None:
        return ""
    return "> 100" if cell.needed is None else str(cell.needed)


def _effect(one: Verdict, cell: ClaimEvidence) -> list[str]:
    if cell.effect is None:
        shown = ["–"] * 4
    else:
        sign = "" if one.claim.kind == "stable_from" else "+"
        values = (cell.effect.value, cell.effect.low, cell.effect.high, cell.null)
        shown = [_points(value, sign) for value in values]
    return [*shown, *(_p(p) for p in (cell.p, cell.adjusted))]


def _points(value: float, sign: str) -> str:
    text = f"{100 * value:{sign}.1f}"
    return text.lstrip("+-") if float(text) == 0 else text


def _p(p: float | None) -> str:
    if p is None:
        return "–"
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


_NOTE = (
    "Points (hundredths), row less against, turned so that more is better for the row. Scores: the "
    "metric that is named, intervals over seeds and examples as in the paired comparisons, scores "
    "on other sets too. What else suites found (an ECE too): over seeds alone, three at the least, "
    "Student's t; the examples are held fixed, so nothing is said of others, and an ECE has a "
    "floor that this does not take off; "
    + "; ".join(f"{name}: {one.about}" for name, one in QUANTITIES.items())
    + ". Deviation: mean absolute deviation of seeds from their median, against less row, "
    f"Brown and Forsythe's test, from {SEEDS['steadier']} seeds on; standard deviation: interval "
    f"by chi-square, as if seeds were normal, from {SEEDS['stable_from']} seeds on. In spreads an "
    "undefined score, of a constant prediction, is that of the trivial one; a row of which "
    "half of the runs collapsed, or more, is not called steady. Threshold: the claim says more "
    f"than that (a standard deviation: less). Decided by p below {100 * ALPHA:g} % on either side. "
    "Seeds needed: how many would find such an effect four times in five, before correction, if it "
    "is as it was found; rough, since where 8 are right, three seeds say anything from 3 to over "
    "100."
)


def _figures(paper: Paper, figures: Figures, records: list[Record]) -> Table | None:
    """What the paper prints beside ours, where we have runs of the row, task and size."""
    lines, without = [], 0
    for row, by_task in figures.scores.items():
        mine = picked(records, parse_conditions(row))
        for task, by_size in by_task.items():
            name, metric = task.split()
            for size, text in by_size.items():
                here = [r for r in mine if r.run.task.name == name and _sized(r, size)]
                by_row, split = grouping.of_records(here)
                without += not by_row
                for one, members in by_row.items():
                    told = [f"{k}={v}" for k, v in zip(split, one[1:], strict=True)]
                    model = members[0].run.model.name
                    spread = grouping.spread([r.metrics.get(metric) for r in members])
                    at = size if isinstance(size, str) else f"{size:,}"
                    line = [
                        name,
                        metric,
                        at,
                        label(parse_conditions(row)),
                        ", ".join([model, *told]),
                    ]
                    lines.append([*line, spread, text])
    if not lines:
        return None
    caveat = (
        f"Published: {paper.title}, {figures.source} ({figures.tag}), {figures.model}; "
        f"{figures.caveat}. Ours: percent, mean ± standard deviation over seeds (number), at the "
        f"end of the budget. {without} more figures of theirs have no run here."
    )
    columns = ["task", "metric", "examples", "row", "our model", "ours", f"{figures.model}, theirs"]
    return Table(f"Published beside ours: {paper.name}", columns, lines, 5, [caveat])


def _sized(record: Record, size: int | str) -> bool:
    total = record.run.task.examples.get("train")
    return record.work["train_size"] == (total if isinstance(size, str) else size)
