"""Whether claims hold in a user's records: supported, contradicted or undecided, from their cells.

What must hold in all cells is supported when each of them supports it (an intersection-union test,
Berger 1982, needs no correction) and contradicted when one does after Holm's correction; what must
hold in some, the other way round; what must hold in most is decided by more than half of them, all
corrected. A verdict that takes more than one cell takes all that the claim speaks of, as its
`least` has it. The family is all cells of the claim: one that cannot be tested counts as p = 1, so
that the correction does not get easier where runs fail.

A cell says nothing of a method at a learning rate that was not chosen for the task, see `tuning`.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from peftbench.analysis import convention, selection, significance
from peftbench.analysis.comparison import Resamples
from peftbench.analysis.failures import Diverged
from peftbench.analysis.significance import ALPHA
from peftbench.claims import evidence, matching, quantities, schema, tuning
from peftbench.claims.evidence import ClaimEvidence
from peftbench.claims.matching import Found
from peftbench.claims.schema import Claim, Paper
from peftbench.claims.tuning import TunedRates
from peftbench.config import catalog
from peftbench.core.errors import ConfigError, no_records
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Record, canonical
from peftbench.results.choices import scan
from peftbench.results.predictions import readable
from peftbench.results.store import ResultsFolder
from peftbench.results.tuned import Tuned


@dataclass(frozen=True)
class Verdict:
    """A claim and what became of it."""

    paper: Paper
    claim: Claim
    verdict: str
    cells: list[ClaimEvidence] = field(default_factory=list)
    why: str = ""

    @property
    def deciding(self) -> ClaimEvidence | None:
        """The cell on which the verdict hangs: that which bears the claim out least, or best."""
        known = [cell for cell in self.cells if cell.p is not None]
        least = self.claim.needs == "all"
        return (
            min(known, key=lambda c: (_support(c), c.title), default=None)
            if least
            else max(known, key=_support, default=None)
        )


def _support(cell: ClaimEvidence) -> float:
    """How far the evidence is for the claim: 1 - p, or p - 1 where it is against it."""
    return (1.0 - (cell.p or 0.0)) * (1 if cell.toward else -1)


def test(
    papers: list[Paper],
    records: list[Record],
    evaluated: list[Evaluated],
    resamples: Resamples,
    choices: TunedRates | None,
    load: evidence.LoadEvaluated | None,
    diverged: Diverged,
) -> list[Verdict]:
    """Test every claim on records, and on evaluations whose run is among them.

    Args:
        papers: with their claims.
        records, evaluated: of a folder.
        resamples: of the records' predictions.
        choices: learning rates that were chosen; None is what these records tell.
        load: predictions of an evaluation; without them only seeds count.
        diverged: runs without a record; a cell of which seeds diverged decides nothing.

    Raises:
        RecordError: if paired runs predicted on other examples.
    """
    choices = TunedRates.from_records(records) if choices is None else choices
    runs, asked = matching.items(records, evaluated)
    claims = [(paper, claim) for paper in papers for claim in paper.claims]
    found = []
    for _, claim in claims:
        items = runs
        if claim.measure != "score":
            items = asked.get(quantities.QUANTITIES[claim.measure].suite, {})
        found.append(matching.places(claim, items))
    scored: dict[tuple[str, int, str], dict[str, Record]] = {}
    for (_, claim), here in zip(claims, found, strict=True):
        for one in here if claim.measure == "score" else ():
            for side in one.sides:
                for item in side.items.values():
                    scored.setdefault(one.place[:3], {})[item.run.key] = item.record
    tested = []
    for (paper, claim), here in zip(claims, found, strict=True):
        made: list[tuple[ClaimEvidence, Found]] = []
        for one in here:
            if claim.measure == "score":
                same = list(scored[one.place[:3]].values())
                told = resamples.for_records(same, claim.metric.get(one.place[0]))
                made.append((evidence.scored(claim, one, told), one))
            else:
                made += [(cell, one) for cell in evidence.measured(claim, one, load)]
        tested.append(_judged(paper, claim, made, choices, diverged))
    return tested


def _judged(
    paper: Paper,
    claim: Claim,
    found: list[tuple[ClaimEvidence, Found]],
    choices: TunedRates,
    diverged: Diverged,
) -> Verdict:
    """The claim's verdict, from those of its cells."""
    if claim.kind == "untestable":
        return Verdict(paper, claim, "not testable", why=claim.why)
    if not found:
        return Verdict(paper, claim, "no runs")
    lacking = _lacking(claim, found)
    adjusted = significance.holm([1.0 if cell.p is None else cell.p for cell, _ in found])
    judged = [
        _verdict(claim, cell, one, corrected, choices, diverged)
        if cell.p is not None
        else _undefined(claim, cell, one, choices)
        for (cell, one), corrected in zip(found, adjusted, strict=True)
    ]
    said = [cell.verdict for cell in judged]
    for_it, against_it = said.count("supported"), said.count("contradicted")
    whole, most = len(said), len(said) // 2 + 1
    enough = {"all": (whole, 1), "some": (1, whole), "most": (most, most)}[claim.needs]
    # what one cell decides stands, whatever else was not run
    alone = {"all": "contradicted", "some": "supported", "most": ""}[claim.needs]
    for verdict, count, least in (
        ("contradicted", against_it, enough[1]),
        ("supported", for_it, enough[0]),
    ):
        if count >= least and (verdict == alone or not lacking):
            return Verdict(paper, claim, verdict, judged)
    return Verdict(paper, claim, "undecided", judged, lacking)


def _verdict(
    claim: Claim,
    cell: ClaimEvidence,
    one: Found,
    adjusted: float,
    choices: TunedRates,
    diverged: Diverged,
) -> ClaimEvidence:
    """Of one cell: what one cell alone decides needs the corrected p, what takes all does not.

    Most cells need the corrected p on both sides.
    """
    raw = 1.0 if cell.p is None else cell.p
    for_it, against_it = {
        "all": (raw, adjusted),
        "some": (adjusted, raw),
        "most": (adjusted, adjusted),
    }[claim.needs]
    cell = replace(cell, adjusted=adjusted)
    decided = (for_it if cell.toward else against_it) < ALPHA
    verdict = "supported" if cell.toward else "contradicted"
    if decided and (why := tuning.why_not(claim, one, choices, toward=cell.toward)):
        return replace(cell, untuned=True, why=f"{why}; at these rates {verdict}", needed=None)
    if gone := diverged.beside(item.run for side in one.sides for item in side.items.values()):
        rows = ", ".join(sorted({run.row for run in gone}))
        why = f"seeds of {rows} diverged ({len(gone)})" + f"; without them {verdict}" * decided
        return replace(cell, why=why, needed=None, awaits=evidence.NONE_DIVERGES)
    if not decided:
        return cell
    return replace(
        cell, verdict=verdict, why=tuning.at_edge(claim, one, choices, toward=cell.toward)
    )


def _undefined(claim: Claim, cell: ClaimEvidence, one: Found, choices: TunedRates) -> ClaimEvidence:
    """Of a cell without a score: whether that may be for its rates."""
    if not cell.why.startswith("undefined"):
        return cell
    why = tuning.why_not(claim, one, choices, toward=None)
    return replace(cell, untuned=bool(why), why="; ".join(filter(None, [cell.why, why])))


def _lacking(claim: Claim, found: list[tuple[ClaimEvidence, Found]]) -> str:
    """What the claim speaks of and the records do not have.

    Tasks of every pair of rows, sizes and budgets of every task.
    """
    by_pair: dict[str, dict[str, list[ClaimEvidence]]] = {}
    for cell, one in found:
        pair = canonical([side.conditions for side in one.sides])
        by_pair.setdefault(pair, {}).setdefault(cell.task, []).append(cell)
    places = [cells for by_task in by_pair.values() for cells in by_task.values()]
    there = {
        "tasks": min(len(by_task) for by_task in by_pair.values()),
        "sizes": min(len({cell.size for cell in cells}) for cells in places),
        "budgets": min(len({cell.budget for cell in cells}) for cells in places),
    }
    each = " of each pair of rows" * (len(by_pair) > 1)
    short = [
        f"{there[key]} of {least} {key}{each}"
        for key, least in claim.least.items()
        if there[key] < least
    ]
    if len(by_pair) < len(claim.pairs):
        short.append(f"{len(by_pair)} of {len(claim.pairs)} pairs of rows")
    return ", ".join(short)


def judge_folder(
    results: ResultsFolder, conditions: tuple[str, ...], configs: Path | None, where: str = ""
) -> tuple[list[Verdict], list[Record], list[str]]:
    """Test claims on the records of a folder.

    Args:
        results: the folder.
        conditions: paper=NAME, and fields of records such as task=NAME.
        configs: a folder searched for papers before the packaged one.
        where: conditions of `analysis.fields` on the runs that count.

    Returns:
        The claims, the records they were tested on, and a line for each file left out.

    Raises:
        ConfigError: for conditions that match no paper or no record.
    """
    asked: dict[str, list[str]] = {}
    for condition in conditions:
        key, equals, value = condition.partition("=")
        if not (key and equals and value):
            raise ConfigError(f"{condition}: write paper=NAME, task=NAME and the like")
        asked[key] = value.split(",")
    known = schema.read(asked.pop("paper", None), catalog.folders(configs))
    records, bad = results.scan()
    if not records:
        raise no_records(results.folder, bad)
    evaluated, odd = results.scan_evaluated()
    records, evaluated = selection.of_records(results, records, evaluated, where)
    chosen, torn = scan(results)
    tuned = Tuned.from_runs((record.run for record in records), chosen)
    records, evaluated, _ = tuned.without_untuned(records, evaluated)
    records = convention.counted_records(records)
    choices = tuning.beside(results, records)
    records = matching.narrowed(records, asked)
    evaluated = convention.counted_evaluations(evaluated)
    left = [f"left out, unreadable: {reason}" for reason in (bad | odd | torn).values()]
    whole, gone = readable(records, results.predictions)
    tested = test(
        known,
        whole,
        evaluated,
        Resamples(results.predictions),
        choices,
        results.evaluated_predictions,
        Diverged.from_runs(results.diverged()),
    )
    return tested, records, [*left, *gone]
