"""Whether claims hold in a user's records: supported, contradicted or undecided, from their cells.

What must hold in all cells is supported when each of them supports it (an intersection-union test,
Berger 1982, needs no correction) and contradicted when one does after Holm's correction over the
cells; what must hold in some, the other way round.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from peftbench.analysis import significance
from peftbench.analysis.comparison import Resamples
from peftbench.analysis.significance import ALPHA
from peftbench.claims import evidence, matching, quantities, schema
from peftbench.claims.evidence import ClaimEvidence
from peftbench.claims.schema import Claim, Paper
from peftbench.config import catalog
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Record
from peftbench.core.text import did_you_mean
from peftbench.results.predictions import readable
from peftbench.results.store import Results


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
) -> list[Verdict]:
    """Test every claim on records, and on evaluations whose run is among them.

    Raises:
        ConfigError: if a claim speaks of a quantity that there is not.
        RecordError: if paired runs predicted on other examples.
    """
    runs, asked = matching.items(records, evaluated)
    claims = [(paper, claim) for paper in papers for claim in paper.claims]
    found = []
    for paper, claim in claims:
        known = {"score", *quantities.QUANTITIES}
        if claim.measure not in known:
            raise ConfigError(
                f"paper={paper.name}: {claim.name}: measure {claim.measure}; "
                f"{did_you_mean(claim.measure, known)}"
            )
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
        made: list[ClaimEvidence] = []
        for one in here:
            if claim.measure == "score":
                told = resamples.of(list(scored[one.place[:3]].values()))
                made.append(evidence.scored(claim, one, told))
            else:
                made += evidence.measured(claim, one)
        tested.append(_judged(paper, claim, made))
    return tested


def _judged(paper: Paper, claim: Claim, found: list[ClaimEvidence]) -> Verdict:
    """The claim's verdict, from those of its cells."""
    if not found:
        return Verdict(paper, claim, "no runs")
    lacking = _lacking(claim, found)
    adjusted = iter(significance.holm([cell.p for cell in found if cell.p is not None]))
    judged = [
        _verdict(claim, cell, next(adjusted)) if cell.p is not None else cell for cell in found
    ]
    said = [cell.verdict for cell in judged]
    for_it, against_it = "supported" in said, "contradicted" in said
    if claim.needs == "all":
        held, refuted = set(said) == {"supported"}, against_it
    else:
        held, refuted = for_it, set(said) == {"contradicted"}
    if refuted:
        return Verdict(paper, claim, "contradicted", judged)
    if held and not lacking:
        return Verdict(paper, claim, "supported", judged)
    return Verdict(paper, claim, "undecided", judged, lacking)


def _verdict(claim: Claim, cell: ClaimEvidence, adjusted: float) -> ClaimEvidence:
    """Of one cell: what one cell alone decides needs the corrected p, what takes all does not."""
    raw = 1.0 if cell.p is None else cell.p
    for_it, against_it = (raw, adjusted) if claim.needs == "all" else (adjusted, raw)
    verdict = "undecided"
    if cell.toward and for_it < ALPHA:
        verdict = "supported"
    elif not cell.toward and against_it < ALPHA:
        verdict = "contradicted"
    return replace(cell, adjusted=adjusted, verdict=verdict)


def _lacking(claim: Claim, found: list[ClaimEvidence]) -> str:
    """What the claim speaks of and the records do not have; sizes and budgets of every task."""
    by_task: dict[str, list[ClaimEvidence]] = {}
    for cell in found:
        by_task.setdefault(cell.task, []).append(cell)
    there = {
        "tasks": len(by_task),
        "sizes": min(len({cell.size for cell in here}) for here in by_task.values()),
        "budgets": min(len({cell.budget for cell in here}) for here in by_task.values()),
    }
    short = [
        f"{there[key]} of {least} {key}" for key, least in claim.least.items() if there[key] < least
    ]
    return ", ".join(short)


def judge_folder(
    results: Results, conditions: tuple[str, ...], configs: Path | None
) -> tuple[list[Verdict], list[Record], list[str]]:
    """Test claims on the records of a folder.

    Args:
        results: the folder.
        conditions: paper=NAME, and fields of records such as task=NAME.
        configs: a folder searched for papers before the packaged one.

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
        raise ConfigError(
            f"{results.folder} holds no records; `peftbench run` makes them, "
            "--results results/reference has those of the repository"
        )
    records = matching.narrowed(records, asked)
    evaluated, odd = results.scan_evaluated()
    left = [f"left out, unreadable: {reason}" for reason in (bad | odd).values()]
    whole, gone = readable(records, results.predictions)
    tested = test(known, whole, evaluated, Resamples(results.predictions))
    return tested, records, [*left, *gone]
