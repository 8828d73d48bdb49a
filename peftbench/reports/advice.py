"""Advice as a person reads it: a sentence, a table, and the same for scripts."""

import math

from peftbench.analysis import convention, failures, grouping
from peftbench.analysis.advice import Advice, Option
from peftbench.analysis.comparison import DRAWS
from peftbench.core.run import Json
from peftbench.reports.tables.markdown import Table


def sentence(advice: Advice) -> str:
    """The answer in one sentence."""
    known = [one for one in advice.options if one.chance is not None]
    if advice.doubts:
        return f"The records cannot tell: {'; '.join(advice.doubts)}."
    first = known[0]
    assert first.chance is not None
    if first.chance >= 0.5:
        rest = "almost surely" if first.chance >= 0.95 else "more likely than not"
        return f"{first.label}: {rest} the best here ({_percent(first.chance)})."
    few, held = [], 0.0
    for one in known:
        few.append(one.label)
        held += one.chance or 0.0
        if held >= 0.8:
            break
    return f"No single one: {_percent(held)} of the chance lies with {', '.join(few)}."


def advice_table(advice: Advice) -> Table:
    """Every option; the chance to be the best only where the records can tell."""
    doubted = bool(advice.doubts)
    options = advice.options
    if doubted:
        options = sorted(options, key=lambda one: math.inf if one.score is None else -one.score)
    lines = [
        [
            one.label,
            *([] if doubted else ["–" if one.chance is None else _percent(one.chance)]),
            grouping.spread([*one.scores, *[None] * (one.seeds - len(one.scores))]),
            f"{one.seconds:,.0f}",
            "–" if one.peak_bytes is None else f"{one.peak_bytes / 2**20:,.0f}",
            ", ".join(_told(one)),
        ]
        for one in options
    ]
    best = [] if doubted else ["best"]
    heads = ["method", *best, advice.metric, "train s", "peak MiB", "note"]
    chance = (
        f"Best: chance that the expected score is the highest, {DRAWS:,} draws over "
        f"{advice.over}, with a rate of failures from the seeds that collapsed. "
    )
    score = "Score: percent, mean ± standard deviation over seeds (number)."
    note = score if doubted else chance + score
    title = f"{'Nearest records' if doubted else 'Advice'}: {advice.source}"
    return Table(title, heads, lines, 1, [note, convention.NOTE, *advice.warnings], prose=1)


def as_json(advice: Advice) -> Json:
    """For scripts."""
    return {
        "answer": sentence(advice),
        "doubts": advice.doubts,
        "warnings": advice.warnings,
        "distance": advice.distance,
        "metric": advice.metric,
        "chance_over": advice.over,
        "options": [vars(one) | {"score": one.score} for one in advice.options],
    }


def _percent(chance: float) -> str:
    return f"{100 * chance:.0f} %"


def _told(one: Option) -> list[str]:
    told = [one.why] if one.why else []
    if one.collapsed:
        told.append(f"collapsed {failures.bound(one.collapsed, one.seeds)}")
    if one.early:
        told.append("read before its end, its schedule was longer")
    return told
