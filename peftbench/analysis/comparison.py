"""Which differences are there, which are not, and which nobody can tell: each row against one.

The runs of a row and those of the baseline with the same seeds saw the same examples in the same
order and answer the same questions, so seeds and questions are paired; see `analysis.statistics`.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from peftbench.analysis import bootstrap, grouping, significance
from peftbench.analysis.significance import ALPHA, Effect
from peftbench.core.errors import ConfigError
from peftbench.core.run import Record
from peftbench.core.text import did_you_mean
from peftbench.results.predictions import Load, stacked

#: Resamples of the examples.
DRAWS = 10_000

#: A loss of so much is not worse for practical purposes.
MARGIN = 0.01

#: Scores on resamples that are kept: 256 MB.
_KEPT = 2**25

#: A comparison is left undecided where the metric is undefined on more than this part of resamples.
_UNDEFINED = 0.05


@dataclass(frozen=True)
class PairedComparison:
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
    row: grouping.Row
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


@dataclass(frozen=True)
class Resampled:
    """Runs on one reporting split, all on the same resamples of it.

    Attributes:
        metric: of the scores.
        place: of each run by its key, in the last axis of what follows.
        whole: (runs,) scores on all examples; not a number where undefined.
        drawn: (resamples, runs) scores.
        examples: of the split.
        right: (runs, examples) which answers are right, where the metric is the accuracy.
    """

    metric: str
    place: dict[str, int]
    whole: significance.Floats
    drawn: significance.Floats
    examples: int
    right: NDArray[np.bool_] | None

    def places(self, records: list[Record]) -> list[int]:
        """Of these records."""
        return [self.place[record.run.key] for record in records]


class Resamples:
    """Resamples of whatever runs they are asked for; the last ones are kept for those who ask next.

    Args:
        load: predictions of a record.
    """

    def __init__(self, load: Load):
        self._load = load
        self._made: list[Resampled] = []

    def of(self, records: list[Record], metric: str | None = None) -> Resampled:
        """Resamples of runs on one task and size, scored by its first metric or another one.

        Raises:
            RecordError: if they predicted on other examples.
        """
        keys = {record.run.key for record in records}
        metric = metric or records[0].run.task.metrics[0]
        for made in self._made:
            if made.metric == metric and keys <= made.place.keys():
                return made
        made = self._make(records, metric)
        self._made.append(made)
        while len(self._made) > 1 and sum(one.drawn.size for one in self._made) > _KEPT:
            self._made.pop(0)
        return made

    def _make(self, records: list[Record], metric: str) -> Resampled:
        answers = stacked(records, self._load)
        once = np.ones((1, len(answers.label)))
        (whole,) = bootstrap.score(metric, answers.scores, answers.label, once)
        counts = bootstrap.draws(len(answers.label), DRAWS, np.random.default_rng(0))
        return Resampled(
            metric=metric,
            place={record.run.key: number for number, record in enumerate(records)},
            whole=whole,
            drawn=np.concatenate(
                [bootstrap.score(metric, answers.scores, answers.label, some) for some in counts]
            ),
            examples=len(answers.label),
            right=answers.scores.argmax(axis=2) == answers.label if metric == "accuracy" else None,
        )


def compare(
    records: list[Record],
    load: Load,
    against: str | None = None,
    resamples: Resamples | None = None,
) -> tuple[list[PairedComparison], list[str]]:
    """Hold each row of the score table against a baseline, task by task and size by size.

    Args:
        records: of any tasks.
        load: predictions of a record.
        against: method, or method and settings as figures name a row; tasks and sizes without it
            are left out. By default of each what trains most.
        resamples: shared with others who compare these records.

    Returns:
        All pairs, and the names of the settings that tell rows of one method apart.

    Raises:
        ConfigError: if no row, or several of a task, are called so.
        RecordError: if paired runs predicted on other examples.
    """
    resamples = resamples or Resamples(load)
    by_row, split = grouping.of_records(records)
    row_of = {record.run.key: row for row, members in by_row.items() for record in members}
    labels = grouping.labels(by_row, split)
    known = {row[0] for row in by_row} | set(labels.values())
    if against is not None and against not in known:
        raise ConfigError(
            f"--against {against}: no such row; {did_you_mean(against, sorted(known))}"
        )
    pairs: list[PairedComparison] = []
    parts = grouping.alike(records)
    for one, members in parts:
        found: dict[grouping.Row, dict[int, Record]] = {}
        for record in members:
            found.setdefault(row_of[record.run.key], {})[record.run.seed] = record
        here = {row: found[row] for row in by_row if row in found}
        base = _baseline({row: labels[row] for row in here}, against)
        if base is not None:
            task, metric = grouping.title(one, dict(parts)), members[0].run.task.metrics[0]
            pairs += _corrected(_pairs(task, here, base, labels, resamples, metric))
    return pairs, split


def family(
    here: dict[grouping.Row, dict[int, Record]],
    base: grouping.Row,
    labels: dict[grouping.Row, str],
    load: Load,
    metric: str,
) -> list[PairedComparison]:
    """Hold rows against one of them, all of one task, and correct over these comparisons.

    Args:
        here: records by row and seed.
        base: the row that the others are compared with.
        labels: what each row is called.
        load: predictions of a record.
        metric: one of `metrics.METRICS`.

    Raises:
        RecordError: if runs predicted on other examples.
    """
    return _corrected(_pairs("", here, base, labels, Resamples(load), metric))


def _corrected(pairs: list[PairedComparison]) -> list[PairedComparison]:
    """With p after Holm's correction over these, the family."""
    adjusted = iter(significance.holm([pair.effect.p for pair in pairs if pair.effect]))
    return [replace(pair, adjusted=next(adjusted) if pair.effect else None) for pair in pairs]


def _baseline(labels: dict[grouping.Row, str], against: str | None) -> grouping.Row | None:
    if against is None:
        return next(iter(labels))  # rows with most trained parameters come first
    named = [row for row, label in labels.items() if label == against]  # may be the method alone
    found = named or [row for row in labels if row[0] == against]
    if len(found) > 1:
        names = ", ".join(repr(labels[row]) for row in found)
        raise ConfigError(f"--against {against} means {len(found)} rows; say which: {names}")
    return found[0] if found else None


def _pairs(
    task: str,
    here: dict[grouping.Row, dict[int, Record]],
    base: grouping.Row,
    labels: dict[grouping.Row, str],
    resamples: Resamples,
    metric: str,
) -> list[PairedComparison]:
    """Of one task and size; all runs on the same resamples."""
    every = [record for seeds in here.values() for record in seeds.values()]
    told = resamples.of(every, metric)
    made = []
    for row, seeds in here.items():
        if row == base:
            continue
        common = sorted(seeds.keys() & here[base].keys())
        ours, theirs = (
            told.places([runs[seed] for seed in common]) for runs in (seeds, here[base])
        )
        effect = difference(told, ours, theirs)
        if effect is not None and told.right is not None and len(common) == 1:
            exact = significance.mcnemar(told.right[ours[0]], told.right[theirs[0]])
            effect = replace(effect, p=exact)
        made.append(
            PairedComparison(
                task=task,
                metric=told.metric,
                row=row,
                label=labels[row],
                against=labels[base],
                seeds=len(common),
                examples=told.examples,
                effect=effect,
                superior=significance.superiority(told.whole[ours], told.whole[theirs])
                if effect
                else None,
            )
        )
    return made


def difference(
    told: Resampled, ours: list[int], theirs: list[int], null: float = 0.0
) -> Effect | None:
    """The mean difference between paired runs; None where it is undefined, or on many resamples.

    Args:
        told: of both.
        ours, theirs: places of the runs, seed by seed.
        null: the difference that p is about.
    """
    found, drawn = (scores[..., ours] - scores[..., theirs] for scores in (told.whole, told.drawn))
    defined = np.isfinite(drawn).all(axis=1)
    if not len(found) or not np.isfinite(found).all() or np.mean(~defined) > _UNDEFINED:
        return None
    return significance.effect(found, drawn[defined], np.random.default_rng(1), null)
