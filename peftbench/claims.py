"""Whether claims hold in a user's records: supported, contradicted or undecided, cell by cell.

A cell is one task, size and budget, one model and recipe: the same but for what the claim compares.
Seeds (and, of scores, examples) are paired. What must hold in all cells is supported when each of
them supports it (an intersection-union test, Berger 1982, needs no correction) and contradicted
when one does after Holm's correction over the cells; what must hold in some, the other way round.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from peftbench import inference, places, quantities
from peftbench.catalog import nearest
from peftbench.comparison import Resampled, Resamples, difference
from peftbench.evaluation import Evaluated
from peftbench.inference import ALPHA, Effect
from peftbench.papers import Claim, Paper, Words
from peftbench.places import Found, Item
from peftbench.run import ConfigError, Record, canonical

#: Fewer seeds decide nothing: spreads need more of them than means.
SEEDS = {"steadier": 5, "stable_from": 5}
_FEWEST = 2

#: A rate of collapses that is no instability yet.
_RARE = 0.05


@dataclass(frozen=True)
class Cell:
    """A claim at one place.

    Attributes:
        title: task, size and what else tells it from the claim's other cells.
        task, size, budget: of it.
        ours, against: rows in words; None where nothing is held against.
        seeds: that both have.
        examples: that were resampled; None where only seeds count.
        effect: None where it is undefined; `why` says how so.
        null: what the effect is told from.
        why: it is undefined, or decides nothing.
        p: two-sided, that the effect is `null`; None where nothing can be said.
        toward: whether the effect lies where the claim wants it.
        adjusted: after Holm's correction over the claim's cells.
        needed: seeds that would decide it if things are as they look; None where it is decided,
            or no such number is in sight.
        sides: a run of each row, to be done with other seeds.
    """

    title: str
    task: str
    size: int
    budget: str
    ours: str
    against: str | None
    seeds: int
    examples: int | None
    effect: Effect | None
    null: float
    why: str
    p: float | None
    toward: bool
    needed: int | None
    sides: list[Item]
    adjusted: float | None = None
    verdict: str = "undecided"


@dataclass(frozen=True)
class Tested:
    """A claim and what became of it."""

    paper: Paper
    claim: Claim
    verdict: str
    cells: list[Cell] = field(default_factory=list)
    why: str = ""

    @property
    def deciding(self) -> Cell | None:
        """The cell on which the verdict hangs: that which bears the claim out least, or best."""
        known = [cell for cell in self.cells if cell.p is not None]
        least = self.claim.needs == "all"
        return (
            min(known, key=lambda c: (_support(c), c.title), default=None)
            if least
            else max(known, key=_support, default=None)
        )


def _support(cell: Cell) -> float:
    """How far the evidence is for the claim: 1 - p, or p - 1 where it is against it."""
    return (1.0 - (cell.p or 0.0)) * (1 if cell.toward else -1)


def test(
    papers: list[Paper],
    records: list[Record],
    evaluated: list[Evaluated],
    resamples: Resamples,
) -> list[Tested]:
    """Test every claim on records, and on evaluations whose run is among them.

    Raises:
        ConfigError: if a claim speaks of a quantity that there is not.
        RecordError: if paired runs predicted on other examples.
    """
    runs, asked = places.items(records, evaluated)
    claims = [(paper, claim) for paper in papers for claim in paper.claims]
    found = []
    for paper, claim in claims:
        known = {"score", *quantities.QUANTITIES}
        if claim.measure not in known:
            raise ConfigError(
                f"paper={paper.name}: {claim.name}: measure {claim.measure}; "
                f"{nearest(claim.measure, known)}"
            )
        items = runs
        if claim.measure != "score":
            items = asked.get(quantities.QUANTITIES[claim.measure].suite, {})
        found.append(places.places(claim, items))
    scored: dict[tuple[str, int, str], dict[str, Record]] = {}
    for (_, claim), here in zip(claims, found, strict=True):
        for one in here if claim.measure == "score" else ():
            for side in one.sides:
                for item in side.items.values():
                    scored.setdefault(one.place[:3], {})[item.run.key] = item.record
    tested = []
    for (paper, claim), here in zip(claims, found, strict=True):
        cells = []
        for one in here:
            if claim.measure == "score":
                told = resamples.of(list(scored[one.place[:3]].values()))
                cells.append(_scored(claim, one, told))
            else:
                cells += _measured(claim, one)
        tested.append(_judged(paper, claim, cells))
    return tested


def _scored(claim: Claim, one: Found, told: Resampled) -> Cell:
    """A cell of scores; differences of means are resampled over examples too."""
    common = _common(one)
    sides = [told.places([side.items[seed].record for seed in common]) for side in one.sides]
    scores = [told.whole[side] for side in sides]
    means = claim.kind in ("not_worse", "better", "ranked")
    cell = _cell(claim, one, common, told.examples if means else None)
    collapsed = [side.items[seed].record.collapsed for side in one.sides for seed in common]
    if cell.why:
        return cell
    if claim.kind == "stable_from" and any(collapsed):
        return _collapses(cell, sum(collapsed))
    if all(collapsed):
        return replace(cell, why="undefined: all runs collapsed, on both sides")
    if bad := sum(int(np.sum(~np.isfinite(side))) for side in scores):
        return replace(cell, why=f"undefined: {bad} of {len(collapsed)} runs have no score")
    if claim.kind == "stable_from":
        return _stable(cell, scores[0], claim.bound)
    if claim.kind == "steadier":
        apart = sum(float(np.var(np.abs(side - np.median(side)))) for side in scores)
        return _decided(claim, cell, inference.steadier(*scores), 0.0, apart)
    cell = replace(cell, null=_null(claim))
    effect = difference(told, sides[0], sides[1], cell.null)
    if effect is None:
        return replace(cell, why="undefined on many resamples of the examples")
    drawn = (told.drawn[:, sides[0]] - told.drawn[:, sides[1]]).mean(axis=1)
    return _decided(claim, cell, effect, float(np.nanvar(drawn)), _variance(scores[0] - scores[1]))


def _measured(claim: Claim, one: Found) -> list[Cell]:
    """Cells of what evaluations found, one for each target; over seeds alone."""
    quantity, common = quantities.QUANTITIES[claim.measure], _common(one)
    told = [
        [quantities.value(quantity, side.items[seed].findings) for seed in common]
        for side in one.sides
    ]
    if any(values is None for side in told for values in side):
        return []  # not of this kind of task
    cells = []
    for name in dict.fromkeys(name for side in told for values in side for name in values or ()):
        cell = replace(_cell(claim, one, common, None, name), null=_null(claim))
        columns = [[(values or {}).get(name) for values in side] for side in told]
        if cell.why or any(number is None for column in columns for number in column):
            cells.append(replace(cell, why=cell.why or "undefined for some seed"))
            continue
        sides = [np.array(column, dtype=np.float64) for column in columns]
        gap = sides[0] - sides[1] if len(sides) > 1 else sides[0]
        effect = inference.student(gap, cell.null)
        cells.append(_decided(claim, cell, effect, 0.0, _variance(gap)))
    return cells


def _variance(gap: inference.Floats) -> float:
    """Between seeds; not a number with one."""
    return float(np.var(gap, ddof=1)) if len(gap) > 1 else float("nan")


def _decided(claim: Claim, cell: Cell, effect: Effect | None, items: float, between: float) -> Cell:
    """The cell with its effect and p, and how many seeds would decide it.

    Args:
        claim: of the cell.
        cell: of which nothing was known.
        effect: in the claim's direction.
        items, between: variance of the difference over examples, and between seeds.
    """
    fewest = SEEDS.get(claim.kind, _FEWEST)
    if effect is None:
        why = f"{cell.seeds} seeds are too few" if cell.seeds < fewest else "all seeds are alike"
        return replace(cell, why=why, needed=fewest if cell.seeds < fewest else None)
    enough = inference.seeds_to_tell(items, between, abs(effect.value - cell.null))
    needed = fewest + 1 if between != between else enough
    needed = None if needed is None else max(needed, fewest, cell.seeds + 1)
    toward = effect.value > cell.null
    if cell.seeds < fewest:
        few = "one seed decides nothing" if cell.seeds == 1 else f"fewer than {fewest} seeds"
        return replace(cell, effect=effect, toward=toward, needed=needed, why=few)
    return replace(cell, effect=effect, toward=toward, needed=needed, p=effect.p)


def _collapses(cell: Cell, collapsed: int) -> Cell:
    """Of stable_from: so many collapses that the rate is above `_RARE`, or one to look out for."""
    from scipy.stats import binomtest

    p = 2 * float(binomtest(collapsed, cell.seeds, _RARE, alternative="greater").pvalue)
    return replace(cell, p=min(1.0, p), why=f"{collapsed} of {cell.seeds} seeds collapsed")


def _stable(cell: Cell, scores: inference.Floats, bound: float) -> Cell:
    """Of stable_from: the standard deviation over seeds against the bound."""
    effect, fewest = inference.spread(scores, bound), SEEDS["stable_from"]
    cell = replace(cell, null=bound, effect=effect, toward=bool(effect and effect.value < bound))
    if effect is None or cell.seeds < fewest:
        return replace(cell, why=f"fewer than {fewest} seeds", needed=fewest)
    enough = inference.seeds_to_bound(effect.value, bound)
    return replace(cell, p=effect.p, needed=None if enough is None else max(enough, cell.seeds + 1))


def _null(claim: Claim) -> float:
    return -claim.margin if claim.kind == "not_worse" else claim.margin


def _common(one: Found) -> list[int]:
    return sorted(set.intersection(*(set(side.items) for side in one.sides)))


def _cell(
    claim: Claim, one: Found, common: list[int], examples: int | None, target: str = ""
) -> Cell:
    """A cell of which nothing is known yet but who is in it."""
    first = next(iter(one.ours.items.values()))
    why = ""
    if any(side.tied for side in one.sides):
        why = "several rows fit, none has most seeds: say which by words"
    elif not common:
        why = "no seed in common"
    return Cell(
        title=f"{one.title} → {target}" if target else one.title,
        task=one.place[0],
        size=one.place[1],
        budget=canonical(first.run.budget),
        ours=label(one.ours.words),
        against=None if one.against is None else label(one.against.words),
        seeds=len(common),
        examples=examples,
        effect=None,
        null=0.0,
        why=why,
        p=None,
        toward=False,
        needed=None,
        sides=[next(iter(side.items.values())) for side in one.sides],
    )


def label(words: Words) -> str:
    """A row as a person names it: its method, and what else picks it."""
    rest = [f"{key.rpartition('.')[2]}={value}" for key, value in words.items() if key != "method"]
    return ", ".join([str(words.get("method")), *rest])


def _judged(paper: Paper, claim: Claim, cells: list[Cell]) -> Tested:
    """The claim's verdict, from those of its cells."""
    adjusted = iter(inference.holm([cell.p for cell in cells if cell.p is not None]))
    judged = [
        _verdict(claim, cell, next(adjusted)) if cell.p is not None else cell for cell in cells
    ]
    said = [cell.verdict for cell in judged]
    lacking = _lacking(claim, judged)
    for_it, against_it = "supported" in said, "contradicted" in said
    if claim.needs == "all":
        held, refuted = set(said) == {"supported"}, against_it
    else:
        held, refuted = for_it, set(said) == {"contradicted"}
    if not cells:
        return Tested(paper, claim, "no runs", [], "")
    if refuted:
        return Tested(paper, claim, "contradicted", judged)
    if held and not lacking:
        return Tested(paper, claim, "supported", judged)
    return Tested(paper, claim, "undecided", judged, lacking)


def _verdict(claim: Claim, cell: Cell, adjusted: float) -> Cell:
    """Of one cell: what one cell alone decides needs the corrected p, what takes all does not."""
    raw = 1.0 if cell.p is None else cell.p
    for_it, against_it = (raw, adjusted) if claim.needs == "all" else (adjusted, raw)
    verdict = "undecided"
    if cell.toward and for_it < ALPHA:
        verdict = "supported"
    elif not cell.toward and against_it < ALPHA:
        verdict = "contradicted"
    return replace(cell, adjusted=adjusted, verdict=verdict)


def _lacking(claim: Claim, cells: list[Cell]) -> str:
    """What the claim speaks of and the records do not have."""
    there = {
        "tasks": len({cell.task for cell in cells}),
        "sizes": len({cell.size for cell in cells}),
        "budgets": len({cell.budget for cell in cells}),
    }
    short = [
        f"{there[key]} of {least} {key}" for key, least in claim.least.items() if there[key] < least
    ]
    return ", ".join(short)
