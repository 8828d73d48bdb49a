"""Which differences are there, which are not, and which nobody can tell: each row against one.

The runs of a row and those of the baseline with the same seeds saw the same examples in the same
order and answer the same questions, so seeds and questions are paired; see peftbench/inference.py.
"""

from dataclasses import dataclass, replace

import numpy as np

from peftbench import inference, resampling, rows
from peftbench.catalog import nearest
from peftbench.inference import ALPHA, Effect
from peftbench.run import ConfigError, Record
from peftbench.stacked import Load, stacked

#: Resamples of the examples.
DRAWS = 10_000

#: A loss of so much is not worse for practical purposes.
MARGIN = 0.01

#: A comparison is left undecided where the metric is undefined on more than this part of resamples.
_UNDEFINED = 0.05


@dataclass(frozen=True)
class Pair:
    """A row against the baseline of its task and size.

    Attributes:
        task: with the size, where there are several.
        metric: the task's first.
        row, label: of the table, and what a figure calls it.
        against: label of the baseline.
        seeds: that both have.
        examples: of the reporting split.
        effect: None where no seed is in common, or the metric is undefined for a run or on too
            many resamples.
        superior: probability that a run of the row scores above one of the baseline.
        adjusted: p after Holm's correction over the pairs of this task and size.
    """

    task: str
    metric: str
    row: rows.Row
    label: str
    against: str
    seeds: int
    examples: int
    effect: Effect | None
    superior: float | None
    adjusted: float | None = None

    @property
    def verdict(self) -> str:
        """In words, from the numbers alone."""
        if self.effect is None:
            return "undefined" if self.seeds else "no seed in common"
        alone = ", of this seed" if self.seeds == 1 else ""
        if self.adjusted is not None and self.adjusted < ALPHA:
            return ("better" if self.effect.value > 0 else "worse") + alone
        if self.effect.low > -MARGIN:
            return f"not worse within {100 * MARGIN:g} point{alone}"
        return f"undecided at n = {self.seeds}"


def compare(
    records: list[Record], load: Load, against: str | None = None
) -> tuple[list[Pair], list[str]]:
    """Hold each row of the score table against a baseline, task by task and size by size.

    Args:
        records: of any tasks.
        load: predictions of a record.
        against: method, or method and settings as figures name a row; tasks and sizes without it
            are left out. By default of each what trains most.

    Returns:
        All pairs, and the names of the settings that tell rows of one method apart.

    Raises:
        ConfigError: if no row, or several of a task, are called so.
        RecordError: if paired runs predicted on other examples.
    """
    by_row, split = rows.of_records(records)
    row_of = {record.run.key: row for row, members in by_row.items() for record in members}
    labels = rows.labels(by_row, split)
    known = {row[0] for row in by_row} | set(labels.values())
    if against is not None and against not in known:
        raise ConfigError(f"--against {against}: no such row; {nearest(against, sorted(known))}")
    pairs: list[Pair] = []
    parts = rows.alike(records)
    for one, members in parts:
        found: dict[rows.Row, dict[int, Record]] = {}
        for record in members:
            found.setdefault(row_of[record.run.key], {})[record.run.seed] = record
        here = {row: found[row] for row in by_row if row in found}
        base = _baseline({row: labels[row] for row in here}, against)
        if base is not None:
            task, metric = rows.title(one, dict(parts)), members[0].run.task["metrics"][0]
            pairs += _corrected(_pairs(task, here, base, labels, load, metric))
    return pairs, split


def family(
    here: dict[rows.Row, dict[int, Record]],
    base: rows.Row,
    labels: dict[rows.Row, str],
    load: Load,
    metric: str,
) -> list[Pair]:
    """Hold rows against one of them, all of one task, and correct over these comparisons.

    Args:
        here: records by row and seed.
        base: the row that the others are held against.
        labels: what each row is called.
        load: predictions of a record.
        metric: one of `metrics.METRICS`.

    Raises:
        RecordError: if runs predicted on other examples.
    """
    return _corrected(_pairs("", here, base, labels, load, metric))


def _corrected(pairs: list[Pair]) -> list[Pair]:
    """With p after Holm's correction over these, the family."""
    adjusted = iter(inference.holm([pair.effect.p for pair in pairs if pair.effect]))
    return [replace(pair, adjusted=next(adjusted) if pair.effect else None) for pair in pairs]


def _baseline(labels: dict[rows.Row, str], against: str | None) -> rows.Row | None:
    if against is None:
        return next(iter(labels))  # rows with most trained parameters come first
    found = [row for row, label in labels.items() if against in (row[0], label)]
    if len(found) > 1:
        names = ", ".join(repr(labels[row]) for row in found)
        raise ConfigError(f"--against {against} means {len(found)} rows; say which: {names}")
    return found[0] if found else None


def _pairs(
    task: str,
    here: dict[rows.Row, dict[int, Record]],
    base: rows.Row,
    labels: dict[rows.Row, str],
    load: Load,
    metric: str,
) -> list[Pair]:
    """Of one task and size; all runs on the same resamples."""
    every = [record for seeds in here.values() for record in seeds.values()]
    place = {record.run.key: number for number, record in enumerate(every)}
    answers = stacked(every, load)
    once = np.ones((1, len(answers.label)))
    (whole,) = resampling.score(metric, answers.scores, answers.label, once)
    drawn = np.concatenate(
        [
            resampling.score(metric, answers.scores, answers.label, counts)
            for counts in resampling.draws(len(answers.label), DRAWS, np.random.default_rng(0))
        ]
    )
    made = []
    for row, seeds in here.items():
        if row == base:
            continue
        common = sorted(seeds.keys() & here[base].keys())
        ours = [place[seeds[seed].run.key] for seed in common]
        theirs = [place[here[base][seed].run.key] for seed in common]
        effect = _effect(whole[ours] - whole[theirs], drawn[:, ours] - drawn[:, theirs])
        if effect is not None and metric == "accuracy" and len(common) == 1:
            right = answers.scores.argmax(axis=2) == answers.label
            effect = replace(effect, p=inference.mcnemar(right[ours[0]], right[theirs[0]]))
        made.append(
            Pair(
                task=task,
                metric=metric,
                row=row,
                label=labels[row],
                against=labels[base],
                seeds=len(common),
                examples=len(answers.label),
                effect=effect,
                superior=inference.superiority(whole[ours], whole[theirs]) if effect else None,
            )
        )
    return made


def _effect(found: np.ndarray, drawn: np.ndarray) -> Effect | None:
    defined = np.isfinite(drawn).all(axis=1)
    if not len(found) or not np.isfinite(found).all() or np.mean(~defined) > _UNDEFINED:
        return None
    return inference.effect(found, drawn[defined], np.random.default_rng(1))
