"""Which method for this task, so many examples, so much time: what the nearest records say.

Nothing is modelled: records of one task, size and model are read as they are, and how far they lie
from the question is said in words. Where they are too few or too far, that is the answer.
"""

import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from peftbench.analysis import convention, costs, grouping, significance
from peftbench.analysis.comparison import DRAWS, Resampled, Resamples
from peftbench.analysis.expected_scores import (
    SeedScores,
    above,
    draw_expected_scores,
    share_of_draws_won,
)
from peftbench.analysis.failures import Diverged
from peftbench.config import catalog
from peftbench.config.sweep import plan
from peftbench.core.arrays import Floats
from peftbench.core.configs import TaskConfig
from peftbench.core.errors import ConfigError, no_records
from peftbench.core.run import Json, Record, Run, canonical
from peftbench.core.text import did_you_mean
from peftbench.metrics import task_metrics
from peftbench.results.choices import scan
from peftbench.results.predictions import Load, readable
from peftbench.results.store import ResultsFolder
from peftbench.results.tuned import Tuned

#: Records of so many times more or fewer examples do not tell.
FAR = 4.0

#: Fewer seeds of the likeliest method do not tell.
SEEDS = 3

#: Metrics that are undefined for a constant prediction.
_CORRELATIONS = ("matthews", "pearson", "spearman")

#: What may be asked; all else is what is answered.
_ASKED = ("task", "size", "model", "budget.seconds", "data.root")

_NEEDED = (
    "advise needs task=NAME, for example `peftbench advise task=mrpc size=300 budget.seconds=600`"
)

_READS = (
    "advise reads records: give task=NAME of trained runs and size=N; to compare methods on a new "
    "file use `peftbench pilot FILE`"
)


@dataclass(frozen=True)
class AdviceQuestion:
    """What is to be done.

    Attributes:
        run: its task, size and model; the rest of it means nothing.
        size: training examples.
        seconds: of training; None is as many as it takes.
    """

    run: Run
    size: int
    seconds: float | None


@dataclass(frozen=True)
class Option:
    """A row of the nearest records.

    Attributes:
        label: method, and settings in which its rows differ.
        chance: that its expected score is the highest; None where that cannot be said.
        scores: of its seeds, at the end or when time was up.
        seeds, collapsed: how many there are; predict one class or value throughout.
        seconds: of training, mean over seeds, up to when the scores were read.
        peak_bytes: the most memory over phases and seeds; None where it was not measured.
        early: whether scores were read before the end, where a schedule was not through.
        why: no chance is given.
    """

    label: str
    chance: float | None
    scores: list[float]
    seeds: int
    collapsed: int
    seconds: float
    peak_bytes: int | None
    early: bool
    why: str = ""

    @property
    def score(self) -> float | None:
        """The mean over seeds."""
        return statistics.fmean(self.scores) if self.scores else None


@dataclass(frozen=True)
class Advice:
    """The answer.

    Attributes:
        options: the likeliest first.
        metric: of the scores.
        source: what the records are of: task, examples and model.
        over: what the chances are over: seeds and examples, or seeds.
        distance: what the records are of, and how that differs from the question, in words.
        doubts: why the records cannot tell; empty where they can.
        warnings: what must be said of the seconds and the memory.
    """

    options: list[Option]
    metric: str
    source: str
    over: str
    distance: list[str]
    doubts: list[str]
    warnings: list[str] = field(default_factory=list)


def ask(*words: str, records: Sequence[Record] = ()) -> AdviceQuestion:
    """The question that words mean.

    Args:
        words: overrides; of a user's own file `task=NAME` of its records is enough.
        records: that answer it; they also say the size, where the words do not.

    Raises:
        ConfigError: for words that are no question.
    """
    given = {word.partition("=")[0]: word.partition("=")[2] for word in words}
    of_file = given.get("task") == "file"
    for key in sorted(given.keys() - set(_ASKED)):
        if not (of_file and key.startswith("task.")):
            raise ConfigError(
                f"{key}: advise takes {', '.join(_ASKED[:-1])}; {did_you_mean(key, _ASKED)}"
            )
    if "task" not in given:
        raise ConfigError(_NEEDED)
    timed = ["budget=seconds"] if "budget.seconds" in given else []
    name = given["task"]
    own = [] if _is_offered(name) else [r for r in records if r.run.task.name == name]
    if own:
        run = _of_own_task(own, [word for word in words if word != f"task={name}"], timed)
    else:
        _check_name(name, records)
        run = _single(*words, *timed)
    same = [record for record in records if _same_rows(record.run.task, run.task)]
    if of_file and not same:
        raise ConfigError(f"{run.task.path}: no record is of these rows; {_READS}")
    same = [r for r in same if r.run.model.name == run.model.name] or same
    sizes = {record.work["train_size"] for record in same}
    if "size" not in given:
        if not sizes:
            raise ConfigError(f"no record here is of task={run.task.name}, so give size=N")
        return AdviceQuestion(run, max(sizes), run.budget.seconds)
    whole = [record.work["train_size"] for record in same if isinstance(record.run.size, str)]
    total = run.task.examples.get("train") or max(whole, default=None)
    if total is not None:
        return AdviceQuestion(run, run.train_size(total), run.budget.seconds)
    if not isinstance(run.size, int):
        raise ConfigError(f"size={run.size}: {run.task.name} has no known size; give a count")
    return AdviceQuestion(run, run.size, run.budget.seconds)


def _is_offered(name: str) -> bool:
    searched = catalog.folders()
    return catalog.current("task", name, searched) in catalog.options("task", tuple(searched))


def _check_name(name: str, records: Sequence[Record]) -> None:
    """Refuse a task that neither a configuration nor a record knows; lists are planned."""
    if _is_offered(name) or not re.fullmatch(r"[\w.-]+", name):
        return
    offered = catalog.options("task", tuple(catalog.folders()))
    known = {*offered, *(record.run.task.name for record in records)}
    raise ConfigError(
        f"task={name}: neither a task nor one of the records here; {_READS}; "
        f"{did_you_mean(name, known)}"
    )


def _of_own_task(own: list[Record], words: Sequence[str], timed: list[str]) -> Run:
    """A run of the task of records, with what else the words say.

    Where files of one name had different rows, those of the most records are meant.
    """
    sized = [word for word in words if re.fullmatch("size=[1-9][0-9]*", word)]
    run = _single(*(word for word in words if word not in sized), *timed)
    if sized:  # the default task may have fewer examples
        run = replace(run, size=int(sized[0].removeprefix("size=")))
    if not any(word.startswith("model=") for word in words):
        models = Counter(record.run.model.name for record in own)
        if run.model.name not in models:
            ((most, _),) = models.most_common(1)
            run = replace(run, model=next(r.run.model for r in own if r.run.model.name == most))
    rows = Counter(canonical(record.run.task.source) for record in own)
    ((most, _),) = rows.most_common(1)
    return replace(run, task=next(r.run.task for r in own if canonical(r.run.task.source) == most))


def _single(*words: str) -> Run:
    found = plan(*words).runs
    if len(found) != 1:
        raise ConfigError(f"advise takes a single setting, got {len(found)}")
    return found[0]


def _same_rows(task: TaskConfig, other: TaskConfig) -> bool:
    """Whether tasks have one name, and read one file where they are a user's own."""
    return task.name == other.name and task.source.get("file") == other.source.get("file")


def from_folders(words: Sequence[str], folders: list[ResultsFolder]) -> Advice:
    """Advice from results folders.

    Raises:
        ConfigError: for words that are no question, or if there are no records.
    """
    of: dict[str, tuple[Record, ResultsFolder]] = {}
    odd: dict[str, str] = {}
    for results in folders:
        good, bad = results.scan()
        of |= {record.run.key: (record, results) for record in good}
        odd |= {f"{results.folder} {key}": reason for key, reason in bad.items()}
    records = [record for record, _ in of.values()]
    if not of:
        raise no_records(" and ".join(str(results.folder) for results in folders), odd)
    chosen = [choice for results in folders for choice in scan(results)[0]]
    tuned = Tuned.from_runs((record.run for record in records), chosen)
    records, _, tuned = tuned.without_untuned(records, [])
    question = ask(*words, records=records)
    gone = {run.key: run for results in folders for run in results.diverged()}
    diverged = Diverged.from_runs(run for key, run in gone.items() if key not in of)
    found = advise(question, records, lambda r: of[r.run.key][1].predictions(r), diverged)
    warnings = [text for results in folders if (text := costs.read_warning(results.folder))]
    left = [f"left out, unreadable: {reason}" for reason in odd.values()]
    if tuned.left_out:
        left.append(f"{tuned.left_out} untuned runs left out, which are the same as tuned ones")
    return replace(found, distance=[*found.distance, *left], warnings=warnings)


def advise(
    question: AdviceQuestion, records: list[Record], load: Load, diverged: Diverged | None = None
) -> Advice:
    """What the nearest records say.

    Args:
        question, records: see `ask`.
        load: reads the predictions of a record.
        diverged: runs without a record; a row beside which a seed diverged has no chance.

    Raises:
        ConfigError: if there are none of such a kind of task.
        RecordError: if runs of one task predicted on other examples.
    """
    nearest, others = _nearest(question, records)
    near, gone = readable(convention.counted_records(nearest), load)
    if not near:
        raise ConfigError("\n".join(["the nearest records have no predictions", *gone]))
    by_row, split = grouping.of_records(near)
    labels = grouping.labels(by_row, split)
    read = {row: [_read(question, record) for record in by_row[row]] for row in by_row}
    lost = {row: (diverged or Diverged()).count(by_row[row]) for row in by_row}
    options = {row: _option(labels[row], by_row[row], read[row], lost[row]) for row in by_row}
    sure = [row for row, one in options.items() if not one.why]
    early = any(options[row].early for row in sure)
    metric = near[0].run.task.metrics[0]
    constant = convention.baseline(near, metric)
    beaten = False
    if len(sure) > 1 and constant is not None:
        told = None if early else Resamples(load).for_records(near)
        rows = [_seed_scores(by_row[row], read[row], told) for row in sure]
        drawn = draw_expected_scores(rows, constant, task_metrics.score_range(metric), DRAWS)
        beaten = any(above(drawn, constant))
        for row, chance in zip(sure, share_of_draws_won(drawn), strict=True):
            options[row] = replace(options[row], chance=chance)
    order = sorted(
        options.values(),
        key=lambda one: (-_or(one.chance, -1), -_or(one.score, -math.inf), one.label),
    )
    distance, doubts = distance_notes(question, near)
    if others:
        distance.append(f"{others} records left out, of other metrics or folds of that task")
    doubts += _doubts(order, question)
    if constant is not None and not beaten and any(one.chance is not None for one in order):
        doubts.append(
            f"no method is shown to be above the {convention.BASELINE} ({100 * constant:.1f})"
        )
    over = "seeds alone" if early else "seeds and examples"
    return Advice(order, metric, _source(near), over, [*distance, *gone], doubts)


def _nearest(question: AdviceQuestion, records: list[Record]) -> tuple[list[Record], int]:
    """Records of the task, model and size that are nearest to those of the question.

    Where they were scored by several metrics, or on several folds, those of the question's own, or
    of the most records; also how many others there are.
    """
    like = [r for r in records if r.run.task.kind == question.run.task.kind]
    if not like:
        raise ConfigError(
            f"task={question.run.task.name}: no record is of such a task "
            f"({question.run.task.kind}); `peftbench run` makes some"
        )

    def apart(record: Record) -> tuple[bool, bool, bool, int, float, str, int]:
        run, size = record.run, record.work["train_size"]
        task, asked = run.task, question.run.task
        return (
            task.name != asked.name,
            not _same_rows(task, asked),
            run.model.name != question.run.model.name,
            abs(len(task.texts) - len(asked.texts)),
            round(abs(math.log(size / question.size)), 9),
            f"{task.name} {run.model.name}",
            size,
        )

    first = min(map(apart, like))
    found = [record for record in like if apart(record) == first]
    parts: dict[str, list[Record]] = {}
    for record in found:
        parts.setdefault(grouping.asked(record.run), []).append(record)
    kept = parts.get(grouping.asked(question.run)) or max(parts.values(), key=len)
    return kept, len(found) - len(kept)


@dataclass(frozen=True)
class _Reading:
    """The score of a run when time was up.

    Attributes:
        score: None where labels are of one class.
        failed: whether it predicted one class or value throughout.
        seconds: of training then.
        early: whether it went on.
    """

    score: float | None
    failed: bool
    seconds: float
    early: bool


def _read(question: AdviceQuestion, record: Record) -> _Reading | None:
    """None where it had no score on the reporting split before its time was up."""
    limit, spent = question.seconds, record.seconds["train"]
    # a budget of seconds is overshot by part of a step
    if limit is None or min(spent, record.run.budget.seconds or math.inf) <= limit:
        return _Reading(record.score, record.collapsed, spent, False)
    there = [point for point in record.curve if point["seconds"] <= limit]
    if not there or _curve_of(record):
        return None
    last = there[-1]
    return _Reading(
        last.get(record.run.task.metric), _constant(last, record), last["seconds"], True
    )


def _constant(point: Json, record: Record) -> bool:
    """Whether the scores of a curve's point are those of one class, or value, for every example.

    An undefined correlation was counted as `convention.CONSTANT`, and no other is just that. Of two
    classes the one that is not the majority has the rest of the accuracy.
    """
    names = record.run.task.metrics
    if any(point.get(name) == convention.CONSTANT for name in names if name in _CORRELATIONS):
        return True
    if record.run.task.classes == 2 and "accuracy" in names and "accuracy" in point:
        level = record.trivial["accuracy"] or 0.0
        if math.isclose(point["accuracy"], 1 - level, abs_tol=1e-9):
            return True
    return all(point.get(name) == record.trivial[name] for name in names)


def _curve_of(record: Record) -> str:
    """What a curve is of where that is not the reporting split; else empty."""
    if record.run.checkpoint_selection.fraction:
        return "its selection split"
    return "a part of the split" if "curve_examples" in record.work else ""


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _option(
    label: str, members: list[Record], read: list[_Reading | None], diverged: int
) -> Option:
    known = [one for one in read if one is not None]
    scores = [one.score for one in known if one.score is not None]
    why = ""
    if len(known) < len(read):
        slow = min(point["seconds"] for r in members for point in r.curve)
        why = f"no score in that time, the first after {slow:,.0f} s"
        if others := {other for r in members if (other := _curve_of(r))}:
            why = f"what it scored by then is of {' and of '.join(sorted(others))}"
    elif len(scores) < len(read):
        why = f"no score in {len(read) - len(scores)} of {len(read)} seeds"
    elif diverged:
        why = f"{diverged} more seed{'s' * (diverged != 1)} diverged"
    elif len(scores) < 2:
        why = "one seed"
    seconds = [one.seconds for one in known] or [r.seconds["train"] for r in members]
    peaks = [p for r in members for kind in r.memory.values() for p in (kind or {}).values() if p]
    return Option(
        label=label,
        chance=None,
        scores=scores,
        seeds=len(members),
        collapsed=sum(one.failed for one in known),
        seconds=statistics.fmean(seconds),
        peak_bytes=max(peaks, default=None),
        early=any(one.early for one in known),
        why=why,
    )


def _source(near: list[Record]) -> str:
    run, size = near[0].run, near[0].work["train_size"]
    return f"{run.task.name}, {size:,} examples, {run.model.name}"


def distance_notes(question: AdviceQuestion, near: list[Record]) -> tuple[list[str], list[str]]:
    """What the records are of and how it differs from the question; what makes that too far."""
    run, size = near[0].run, near[0].work["train_size"]
    asked, far = question.run, []
    told = [f"{_source(near)}: {len(near)} records"]
    if run.task.name != asked.task.name:
        far.append(f"none is of {asked.task.name}")
        told.append(f"another task than {asked.task.name}")
    elif not _same_rows(run.task, asked.task):
        far.append(f"none is of these rows of {asked.task.name}")
        told.append("another file of that name")
    if run.model.name != asked.model.name:
        far.append(f"none is of {asked.model.name}")
        told.append(f"another model than {asked.model.name}")
    factor = size / question.size
    if factor != 1:
        by = max(factor, 1 / factor)
        told.append(f"{by:.1f} times as {'many' if factor > 1 else 'few'} examples")
        if by > FAR:
            far.append(f"sizes are {by:.1f} times apart")
    machines = sorted({costs.machine(record) for record in near})
    if (level := convention.baseline(near, run.task.metrics[0])) is not None:
        told.append(f"{convention.BASELINE}: {100 * level:.1f}")
    told.append(f"seconds of {' and of '.join(costs.called(m, machines) for m in machines)}")
    if len(machines) > 1:
        told.append("which are not to be compared")
    return told, far


def _count(number: object, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _doubts(order: list[Option], question: AdviceQuestion) -> list[str]:
    known = [one for one in order if one.chance is not None]
    if not known and question.seconds is not None and all(not one.scores for one in order):
        return [f"no run had a score after {question.seconds:g} s"]
    if not known:
        return ["fewer than two methods have two seeds with scores"]
    if len(known[0].scores) < SEEDS:
        few = _count(len(known[0].scores), "seed")
        return [f"{known[0].label} has but {few}, {SEEDS} are the least"]
    return []


def _seed_scores(
    members: list[Record], read: list[_Reading | None], told: Resampled | None
) -> SeedScores:
    """The seeds of a row, with what other examples would change where resamples are given."""
    known = [(r, one) for r, one in zip(members, read, strict=True) if one is not None]
    trained = [(record, one.score) for record, one in known if not one.failed]
    gone = [one.score for _, one in known if one.failed and one.score is not None]
    moved: Floats | None = None
    if told is not None and trained:
        places = told.places([record for record, _ in trained])
        drawn, whole = told.drawn[:, places], told.whole[places]
        mean = drawn.mean(axis=1)
        if len(whole) > 1:
            between = float(np.var(whole, ddof=1)) / len(whole)
            mean = significance.items_once(mean, drawn, between)
        moved = np.nan_to_num(mean - np.nanmean(mean))
    return SeedScores(
        trained=[score for _, score in trained if score is not None],
        failed=sum(one.failed for _, one in known),
        over_items=moved,
        seed=int(members[0].run.key, 16),
        failed_score=statistics.fmean(gone) if gone else None,
    )
