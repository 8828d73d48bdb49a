"""A claim at one place: the effect, what it is told from, how sure that is, what would make it so.

Seeds are paired, and of scores examples too. Effects are in the claim's direction.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from peftbench.analysis import significance
from peftbench.analysis.comparison import Resampled, difference, paired_effect, resampled_scores
from peftbench.analysis.convention import CONSTANT
from peftbench.analysis.significance import Effect
from peftbench.claims import quantities
from peftbench.claims.matching import Found, Item
from peftbench.claims.quantities import Quantity
from peftbench.claims.schema import Claim, Conditions
from peftbench.core.arrays import Array, Arrays, Floats
from peftbench.core.errors import RecordError
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import UNTRAINED, Record, canonical
from peftbench.metrics.base import CONSTANT_AUC
from peftbench.suites import shift

#: Fewer seeds decide nothing: spreads need more of them than means. With 5 a difference of spreads
#: is found in 8 % where one is three times the other, with 10 in 63 %.
SEEDS = {"steadier": 10, "stable_from": 5}
_FEWEST = 2

#: Where examples are not resampled two seeds may agree by luck.
_MEASURED = 3

#: What would have to be so, at another rate, for a cell to be decided that seeds do not decide.
NONE_DIVERGES = "no seed diverges"
MOST_TRAIN = "fewer than half of the runs collapse"

#: Scores that differ by less are one in all tables.
_SAME = 5e-4

#: Reads the predictions of an evaluation, as `scores/SET`.
LoadEvaluated = Callable[[Evaluated], Arrays]


@dataclass(frozen=True)
class ClaimEvidence:
    """A claim at one place.

    Attributes:
        title: task, size and what else tells it from the claim's other cells.
        task, size, budget: of it; a size of 0 is all sizes.
        of: what is compared: a metric, a spread, or what a suite found.
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
        untuned: whether p would decide it, if the learning rates had been chosen here.
        awaits: `NONE_DIVERGES` or `MOST_TRAIN`, where that is what leaves it open.
    """

    title: str
    task: str
    size: int
    budget: str
    of: str
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
    untuned: bool = False
    awaits: str = ""


def scored(claim: Claim, one: Found, told: Resampled) -> ClaimEvidence:
    """A cell of scores; differences of means are resampled over examples too."""
    common = _common(one)
    runs = [[side.items[seed].record for seed in common] for side in one.sides]
    sides = [told.places(side) for side in runs]
    means = claim.kind in ("not_worse", "better")
    of = {"steadier": "deviation of ", "stable_from": "standard deviation of "}
    cell = _cell(claim, one, common, told.examples if means else None)
    cell = replace(cell, of=of.get(claim.kind, "") + told.metric)
    if why := cell.why or _not_learned(claim, runs):
        return replace(cell, why=why)
    if means and all(record.collapsed for side in runs for record in side):
        return replace(cell, why="undefined: all runs collapsed, on both sides")
    if not means:
        spreads = [_defined(told, side) for side in runs]
        if claim.kind == "stable_from":
            cell = _stable(cell, spreads[0], claim.bound)
            steady = runs[0] if cell.toward else []
        else:
            apart = sum(float(np.var(np.abs(side - np.median(side)))) for side in spreads)
            cell = _decided(claim, cell, significance.steadier(*spreads), 0.0, apart)
            steady = runs[0] if cell.toward else runs[1]
        if cell.p is not None and steady and 2 * _collapsed(steady) >= len(steady):
            why = f"{_collapsed(steady)} of {len(steady)} runs collapsed, which is not steadiness"
            return replace(cell, p=None, needed=None, why=f"undefined: {why}", awaits=MOST_TRAIN)
        return cell
    scores = [told.whole[side] for side in sides]
    if bad := sum(int(np.sum(~np.isfinite(side))) for side in scores):
        return replace(cell, why=f"undefined: {bad} of {2 * len(common)} runs have no score")
    cell = replace(cell, null=_null(claim))
    effect = difference(told, sides[0], sides[1], cell.null)
    if effect is None:
        return replace(cell, why="undefined on many resamples of the examples")
    gaps, drawn = scores[0] - scores[1], told.drawn[:, sides[0]] - told.drawn[:, sides[1]]
    return _decided(claim, cell, effect, _over_examples(gaps, drawn), _variance(gaps))


def _collapsed(records: list[Record]) -> int:
    return sum(record.collapsed for record in records)


def _defined(told: Resampled, records: list[Record]) -> significance.Floats:
    """Scores in which an undefined one, of a constant prediction, is that of the trivial one."""
    scores = told.whole[told.places(records)]
    trivial = np.array([record.trivial.get(told.metric) or 0.0 for record in records])
    return np.where(np.isfinite(scores), scores, trivial)


def measured(claim: Claim, one: Found, load: LoadEvaluated | None = None) -> list[ClaimEvidence]:
    """Cells of what evaluations found, one for each target.

    Scores on other sets are resampled over examples too; of other figures only seeds count.
    """
    quantity, common = quantities.QUANTITIES[claim.measure], _common(one)
    by_seed = [
        {
            seed: quantities.value(quantity, item.findings, claim.metric)
            for seed, item in side.items.items()
        }
        for side in one.sides
    ]
    every = [values for side in by_seed for values in side.values()]
    if any(values is None for values in every):
        return []  # not of this kind of task
    names = dict.fromkeys(name for values in every for name in values or ())
    asked = [name for name in names if not claim.targets or name in claim.targets]
    if not common:  # cells that cannot be tested, which stay in the family
        return [_cell(claim, one, common, None, name) for name in asked]
    told = [[side[seed] for seed in common] for side in by_seed]
    runs = [[side.items[seed] for seed in common] for side in one.sides]
    records = [[item.record for item in side] for side in runs]
    failed = [record.collapsed for side in records for record in side]
    idle = _not_learned(claim, records)
    lost = any(failed) if quantity.degenerate else all(failed)
    cells = []
    for name in asked:
        cell = replace(_cell(claim, one, common, None, name), null=_null(claim))
        columns = [[(values or {}).get(name) for values in side] for side in told]
        if lost and not cell.why:
            collapsed = f"{sum(failed)} of {len(failed)} runs collapsed"
            best = ", for which this figure is at its best" if quantity.degenerate else ""
            cell = replace(cell, why=f"undefined: {collapsed}{best}")
        cell = replace(cell, why=cell.why or idle or _no_room(claim, name, runs[0]))
        if cell.why or any(number is None for column in columns for number in column):
            cells.append(replace(cell, why=cell.why or _undefined(quantity, columns)))
            continue
        sides = [np.array(column, dtype=np.float64) for column in columns]
        gap = sides[0] - sides[1] if len(sides) > 1 else sides[0]
        drawn = None if load is None else _resampled(claim, quantity, runs, name, load)
        if drawn is None:
            effect = significance.student(gap, cell.null)
            cells.append(_decided(claim, cell, effect, 0.0, _variance(gap)))
            continue
        whole, scores, examples = drawn
        cell = replace(cell, examples=examples)
        effect = paired_effect(whole, scores, cell.null)
        if effect is None:
            cells.append(replace(cell, why="undefined on many resamples of the examples"))
            continue
        items = _over_examples(whole, scores)
        cells.append(_decided(claim, cell, effect, items, _variance(whole)))
    return cells


def _not_learned(claim: Claim, sides: list[list[Record]]) -> str:
    """That the runs of a side do not score as far above the constant prediction as is asked, if so.

    On average over seeds: one that fails does not undo what the others show, and with the rule that
    each must pass, more seeds could only lose a verdict.
    """
    if claim.learned is None:
        return ""
    for side in sides if claim.learned_by == "both" else sides[:1]:
        over = float(np.mean([_over_constant(record) for record in side]))
        if over < claim.learned - 1e-9:
            points = f"{100 * over:.2f} points above the constant prediction on their own task"
            return (
                f"undefined: {len(side)} runs of {side[0].run.row} are on average {points}, "
                f"less than {100 * claim.learned:g}"
            )
    return ""


def _over_constant(record: Record) -> float:
    """Its score less that of the constant prediction; nothing where it has none."""
    metric = record.run.task.metrics[0]
    score = record.metrics.get(metric)
    return 0.0 if score is None else score - (record.trivial.get(metric) or 0.0)


def _undefined(quantity: Quantity, columns: list[list[float | None]]) -> str:
    values = [value for column in columns for value in column]
    gone = f"undefined for {sum(value is None for value in values)} of {len(values)} runs"
    return f"{gone}: {quantity.undefined}" if quantity.undefined else gone


def _no_room(claim: Claim, name: str, items: list[Item]) -> str:
    """That the model before training knows too little of a set for a loss to show, if so."""
    if claim.room is None:
        return ""
    told = [item.findings["targets"][name] for item in items]
    metric = claim.metric.get(name, told[0]["metric"])
    before = [one["untrained"].get(metric) for one in told]
    constant = [CONSTANT_AUC if metric == "auc" else one["trivial"] for one in told]
    if any(value is None for value in (*before, *constant)):
        return f"undefined: {metric} of the model before training, or of a constant, is not known"
    over = float(np.mean(before)) - float(np.mean(constant))
    if over >= claim.room - 1e-9:
        return ""
    return (
        f"undefined: before training the model is {100 * over:.1f} points above a constant "
        f"prediction on this set, less than {100 * claim.room:g}"
    )


def _resampled(
    claim: Claim, quantity: Quantity, runs: list[list[Item]], name: str, load: LoadEvaluated
) -> tuple[Floats, Floats, int] | None:
    """Differences on a set, (seeds,) on all examples and (resamples, seeds), and its examples.

    None of what is no difference of scores on one set, or whose predictions do not have the scores
    of the findings.
    """
    if quantity.reference is None:
        return None
    metric, label = "", None
    outputs: list[Array] = []
    found: list[float] = []  # their scores
    for item in (item for side in runs for item in side):
        assert item.evaluated is not None
        target = item.findings["targets"][name]
        try:
            arrays = load(item.evaluated)
        except RecordError:  # a folder may hold findings alone; then seeds count alone
            return None
        metric = claim.metric.get(name, target["metric"])
        here = arrays[f"label/{name}"]
        if label is not None and not np.array_equal(here, label):
            return None
        label = here
        ours = arrays[f"scores/{name}"]
        if quantity.reference == UNTRAINED:
            theirs = arrays[f"scores/untrained/{name}"]
            scores = [target["scores"][metric], target["untrained"][metric]]
        elif metric == "accuracy":
            majority = np.arange(ours.shape[1]) == np.bincount(here).argmax()
            theirs = np.tile(majority, (len(here), 1))
            scores = [target["scores"][metric], target["trivial"]]
        else:
            return None
        outputs += [
            _comparable(metric, *pair, here) for pair in zip((ours, theirs), scores, strict=True)
        ]
        found += scores
    assert label is not None
    whole, drawn = resampled_scores(metric, np.stack(outputs).astype(np.float64), label)
    if not np.allclose(whole, found, rtol=0, atol=_SAME):
        return None
    seeds, sign = len(runs[0]), -1 if quantity.less else 1
    gaps = [sign * (one[..., ::2] - one[..., 1::2]) for one in (whole, drawn)]
    if len(runs) > 1:
        gaps = [gap[..., :seeds] - gap[..., seeds:] for gap in gaps]
    return gaps[0], gaps[1], len(label)


def _comparable(metric: str, outputs: Array, score: float, label: Array) -> Array:
    """Outputs whose metric on a set is the score that the suite found there.

    Whether values are one value is decided in the unit of the run's own labels, that of this score.
    """
    if metric not in shift.CORRELATIONS:
        return outputs
    flat = math.inf if score == CONSTANT else 0.0
    return shift.comparable(outputs, label, flat)[:, None]


def _over_examples(gaps: Floats, drawn: Floats) -> float:
    """Variance over examples of the mean gap, as the test has it: without what seeds differ by.

    Args:
        gaps: (seeds,) on all examples.
        drawn: (resamples, seeds).
    """
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    items = drawn.mean(axis=1)
    if len(gaps) > 1:
        items = significance.items_once(items, drawn, _variance(gaps) / len(gaps))
    return float(items.var())


def _variance(gap: significance.Floats) -> float:
    """Between seeds; not a number with one."""
    return float(np.var(gap, ddof=1)) if len(gap) > 1 else float("nan")


def _decided(
    claim: Claim, cell: ClaimEvidence, effect: Effect | None, items: float, between: float
) -> ClaimEvidence:
    """The cell with its effect and p, and how many seeds would decide it.

    Args:
        claim: of the cell.
        cell: of which nothing was known.
        effect: in the claim's direction.
        items, between: variance of the difference over examples, and between seeds.
    """
    fewest = SEEDS.get(claim.kind, _MEASURED if cell.examples is None else _FEWEST)
    if effect is None:
        why = f"{cell.seeds} seeds are too few" if cell.seeds < fewest else "all seeds are alike"
        return replace(cell, why=why, needed=fewest if cell.seeds < fewest else None)
    enough = significance.seeds_to_tell(items, between, abs(effect.value - cell.null))
    needed = fewest + 1 if between != between else enough
    needed = None if needed is None else max(needed, fewest, cell.seeds + 1)
    toward = effect.value > cell.null
    if cell.seeds < fewest:
        few = "one seed decides nothing" if cell.seeds == 1 else f"fewer than {fewest} seeds"
        return replace(cell, effect=effect, toward=toward, needed=needed, why=few)
    return replace(cell, effect=effect, toward=toward, needed=needed, p=effect.p)


def _stable(cell: ClaimEvidence, scores: significance.Floats, bound: float) -> ClaimEvidence:
    """Of stable_from: the standard deviation over seeds against the bound."""
    effect, fewest = significance.spread(scores, bound), SEEDS["stable_from"]
    cell = replace(cell, null=bound, effect=effect, toward=bool(effect and effect.value < bound))
    if effect is None or cell.seeds < fewest:
        return replace(cell, why=f"fewer than {fewest} seeds", needed=fewest)
    enough = significance.seeds_to_bound(effect.value, bound)
    return replace(cell, p=effect.p, needed=None if enough is None else max(enough, cell.seeds + 1))


def _null(claim: Claim) -> float:
    return -claim.margin if claim.kind == "not_worse" else claim.margin


def _common(one: Found) -> list[int]:
    return sorted(set.intersection(*(set(side.items) for side in one.sides)))


def _cell(
    claim: Claim, one: Found, common: list[int], examples: int | None, target: str = ""
) -> ClaimEvidence:
    """A cell of which nothing is known yet but who is in it."""
    first = next(iter(one.ours.items.values()))
    why = ""
    if any(side.tied for side in one.sides):
        why = "several rows fit, none has most seeds: say which by words"
    elif not common:
        why = "no seed in common"
    return ClaimEvidence(
        title=f"{one.title} → {target}" if target else one.title,
        task=one.place[0],
        size=one.place[1],
        budget=canonical(first.run.budget),
        of=claim.measure,
        ours=label(one.ours.conditions),
        against=None if one.against is None else label(one.against.conditions),
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


def label(conditions: Conditions) -> str:
    """A row as a person names it: its method, and what else picks it."""
    rest = [
        f"{key.rpartition('.')[2]}={value}" for key, value in conditions.items() if key != "method"
    ]
    return ", ".join([str(conditions.get("method")), *rest])
