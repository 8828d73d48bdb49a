"""Which differences are there, which are not, and which nobody can tell: each row against one.

The runs of a row and those of the baseline with the same seeds saw the same examples in the same
order and answer the same questions, so seeds and questions are paired; see `analysis.significance`.
Rows of one task, size and budget are a family: their intervals hold together with 95 %
(Bonferroni), and the words follow from the intervals.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from peftbench.analysis import bootstrap, failures, grouping, significance
from peftbench.analysis.failures import Diverged
from peftbench.analysis.significance import ALPHA, Effect
from peftbench.core.errors import ConfigError
from peftbench.core.run import Json, Record
from peftbench.core.text import did_you_mean
from peftbench.metrics import task_metrics
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
        adjusted: p after Bonferroni's correction over the pairs of the family.
        failed: how many of the seeds collapsed, of the row and of the baseline.
        lost: how many more seeds of either diverged, so that they have no score.
        sized: task and training examples.
        margin: a loss of so much is not worse.
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
    failed: tuple[int, int] = (0, 0)
    lost: tuple[int, int] = (0, 0)
    sized: grouping.Sized = ("", 0)
    margin: float = MARGIN

    @property
    def kind(self) -> str:
        """The verdict without what it depends on, one of `KINDS`."""
        if self.effect is None:
            return "undefined" if self.seeds else "no seed in common"
        if self.failed == (self.seeds, self.seeds):
            return "both collapsed"
        if self.seeds == 1:
            return "one seed"
        if self.effect.low > 0:
            return "better"
        if self.effect.high < 0:
            return "worse"
        return "not worse" if self.effect.low > -self.margin else "undecided"

    @property
    def verdict(self) -> str:
        """In words, from the numbers alone."""
        if self.kind == "one seed":
            return f"one seed: {self._models}{self.given}"
        if self.kind == "undecided":
            return f"undecided at n = {self.seeds}{self.given}"
        within = f" within {100 * self.margin:g} point" + "s" * (self.margin != 0.01)
        return self.kind + within * (self.kind == "not worse") + self.given

    @property
    def given(self) -> str:
        """Behind a verdict: what it does not count."""
        if any(self.lost):
            return f"; {self.lost[0]} / {self.lost[1]} more seeds diverged"
        decided = self.kind in ("better", "worse", "not worse")
        return ", given that it trains" * (decided and self.failed == (0, 0))

    @property
    def overstated(self) -> bool:
        """Whether the verdict favours a side of which seeds diverged and have no score."""
        return bool(self.lost[self.kind == "worse"]) and self.kind in (
            "better",
            "worse",
            "not worse",
        )

    def to_json(self) -> Json:
        """Plain data; scores as fractions, None for what is undefined."""
        effect = self.effect
        range_ = (None,) * 3 if effect is None else (effect.value, effect.low, effect.high)
        names = ("difference", "low", "high", "adjusted_p")
        numbers = dict(zip(names, (*range_, self.adjusted), strict=True))
        return {
            "task": self.task,
            "row": self.label,
            "against": self.against,
            "seeds": self.seeds,
            "examples": self.examples,
            "metric": self.metric,
            **{
                name: float(value) if value is not None and math.isfinite(value) else None
                for name, value in numbers.items()
            },
            "verdict": self.verdict,
        }

    @property
    def _models(self) -> str:
        """What one seed says: of two models, never of two methods."""
        if self.effect is None or self.adjusted is None or self.adjusted >= ALPHA:
            return "these two models are not told apart"
        return f"this model is {'better' if self.effect.value > 0 else 'worse'}"


#: What a comparison may come to.
KINDS = (
    *("better", "worse", "not worse", "undecided", "both collapsed", "one seed"),
    *("undefined", "no seed in common"),
)


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

    def for_records(self, records: list[Record], metric: str | None = None) -> Resampled:
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
        names = [record.run.key for record in records]
        return resample(metric, names, answers.scores, answers.label)


def resample(
    metric: str, names: Sequence[str], scores: significance.Floats, label: NDArray[np.generic]
) -> Resampled:
    """Score models on the same resamples of the examples, which are equal in all calls.

    Args:
        metric: one of `task_metrics.METRICS`.
        names: of the models.
        scores: (models, examples, classes) outputs, or (models, examples, 1) values.
        label: (examples,) classes or values.
    """
    whole, drawn = resampled_scores(metric, scores, label)
    return Resampled(
        metric=metric,
        place={name: number for number, name in enumerate(names)},
        whole=whole,
        drawn=drawn,
        examples=len(label),
        right=scores.argmax(axis=2) == label if metric == "accuracy" else None,
    )


def resampled_scores(
    metric: str, scores: significance.Floats, label: NDArray[np.generic]
) -> tuple[significance.Floats, significance.Floats]:
    """(models,) scores on all examples and (resamples, models), see `resample`."""
    (whole,) = bootstrap.score(metric, scores, label, np.ones((1, len(label))))
    counts = bootstrap.draws(len(label), DRAWS, np.random.default_rng(0))
    drawn = [bootstrap.score(metric, scores, label, some) for some in counts]
    return whole, np.concatenate(drawn)


def compare(
    records: list[Record],
    load: Load,
    against: str | None = None,
    resamples: Resamples | None = None,
    margin: float = MARGIN,
    diverged: Diverged | None = None,
) -> tuple[list[PairedComparison], list[str]]:
    """Compare each row of the score table with a baseline, task by task and size by size.

    Only rows of the baseline's own budget and precision are compared with it, and where the budget
    is in seconds only those of its machine. Of the rows of the baseline's method it is the one that
    trained on most examples.

    Args:
        records: of any tasks.
        load: predictions of a record.
        against: method, or method and settings as figures name a row; tasks and sizes without it
            are left out. By default of each what trains most; where that has several rows of one
            budget, none is the baseline and nothing is compared.
        resamples: shared with others who compare these records.
        margin: a loss of so much is not worse for practical purposes.
        diverged: runs without a record, which the verdicts name.

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
        base = _baseline(here, labels, against)
        if base is not None:
            same = _conditions(here[base])
            here = {row: seeds for row, seeds in here.items() if _conditions(seeds) == same}
            task, metric = grouping.title(one, dict(parts)), members[0].run.task.metrics[0]
            gone = {row: (diverged or Diverged()).count(here[row].values()) for row in here}
            pairs += [
                replace(
                    pair,
                    task=task,
                    sized=one,
                    margin=margin,
                    lost=(gone[pair.row], gone[base]),
                )
                for pair in _pairs(here, base, labels, resamples, metric)
            ]
    return pairs, split


def family(
    here: dict[grouping.Row, dict[int, Record]],
    base: grouping.Row,
    labels: dict[grouping.Row, str],
    load: Load,
    metric: str,
    resamples: Resamples | None = None,
) -> list[PairedComparison]:
    """Compare rows with one of them, all of one task; each interval and p stands alone.

    Args:
        here: records by row and seed.
        base: the row that the others are compared with.
        labels: what each row is called.
        load: predictions of a record.
        metric: one of `metrics.METRICS`.
        resamples: shared with others who compare these records.

    Raises:
        RecordError: if runs predicted on other examples.
    """
    return _pairs(here, base, labels, resamples or Resamples(load), metric, together=False)


Seeds = dict[int, Record]  # of a row, by seed


def _conditions(seeds: Seeds) -> str:
    return grouping.conditions(next(iter(seeds.values())))


def _examples(seeds: Seeds) -> float:
    """Mean training examples of the runs of a row, each as often as it was seen."""
    return float(np.mean([record.work["examples"] for record in seeds.values()]))


def _baseline(
    here: dict[grouping.Row, Seeds], labels: dict[grouping.Row, str], against: str | None
) -> grouping.Row | None:
    """The row that is called so; of a method's rows the one with the longest budget."""
    method = against or next(iter(here))[0]  # rows with most trained parameters come first
    named = [row for row in here if labels[row] == method]
    found = named or [row for row in here if row[0] == method]
    if len({_conditions(here[row]) for row in found}) > 1:
        longest = _conditions(here[max(found, key=lambda row: _examples(here[row]))])
        found = [row for row in found if _conditions(here[row]) == longest]
    if len(found) > 1 and against is not None:
        names = ", ".join(repr(labels[row]) for row in found)
        raise ConfigError(f"--against {against} means {len(found)} rows; use one of {names}")
    return found[0] if len(found) == 1 else None


def _pairs(
    here: dict[grouping.Row, Seeds],
    base: grouping.Row,
    labels: dict[grouping.Row, str],
    resamples: Resamples,
    metric: str,
    together: bool = True,
) -> list[PairedComparison]:
    """Of one task, size and budget; all runs on the same resamples.

    Args:
        together: whether the intervals hold together; those of one seed are a family apart.
    """
    every = [record for seeds in here.values() for record in seeds.values()]
    told = resamples.for_records(every, metric)
    shared = {
        row: sorted(seeds.keys() & here[base].keys()) for row, seeds in here.items() if row != base
    }
    made = []
    for row, common in shared.items():
        seeds = here[row]
        alone = len(common) == 1
        many = sum(bool(other) and (len(other) == 1) == alone for other in shared.values())
        many = max(1, many) if together else 1
        ours, theirs = (
            told.places([runs[seed] for seed in common]) for runs in (seeds, here[base])
        )
        effect = _possible(difference(told, ours, theirs, level=ALPHA / many), metric)
        if effect is not None and told.right is not None and alone:
            exact = significance.mcnemar(told.right[ours[0]], told.right[theirs[0]])
            effect = replace(effect, p=exact)
        made.append(
            PairedComparison(
                task="",
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
                adjusted=min(1.0, many * effect.p) if effect else None,
                failed=(
                    failures.failed([seeds[seed] for seed in common]),
                    failures.failed([here[base][seed] for seed in common]),
                ),
            )
        )
    return made


def _possible(effect: Effect | None, metric: str) -> Effect | None:
    """The effect with its interval cut to differences that two scores can have."""
    if effect is None:
        return None
    low, high = task_metrics.score_range(metric)
    return replace(effect, low=max(effect.low, low - high), high=min(effect.high, high - low))


def difference(
    told: Resampled,
    ours: list[int],
    theirs: list[int],
    null: float = 0.0,
    level: float = ALPHA,
) -> Effect | None:
    """The mean difference between paired runs; None where it is undefined, or on many resamples.

    Args:
        told: of both.
        ours, theirs: places of the runs, seed by seed.
        null: the difference that p is about.
        level: one less the probability of the interval.
    """
    found, drawn = (scores[..., ours] - scores[..., theirs] for scores in (told.whole, told.drawn))
    return paired_effect(found, drawn, null, level)


def paired_effect(
    found: significance.Floats,
    drawn: significance.Floats,
    null: float = 0.0,
    level: float = ALPHA,
) -> Effect | None:
    """`significance.effect` on the resamples on which the scores are defined.

    None where too few are, or a difference on all examples is not.
    """
    defined = np.isfinite(drawn).all(axis=1)
    if not len(found) or not np.isfinite(found).all() or np.mean(~defined) > _UNDEFINED:
        return None
    return significance.effect(found, drawn[defined], null, level)
