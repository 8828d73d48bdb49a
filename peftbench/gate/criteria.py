"""From measurements to criteria: figures of both models, what changed, and whether it may."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from peftbench.analysis import bootstrap
from peftbench.analysis.comparison import DRAWS
from peftbench.analysis.proportions import Proportion
from peftbench.analysis.significance import ALPHA
from peftbench.core.arrays import Array, Floats
from peftbench.gate.measure import Answers, Measured
from peftbench.gate.thresholds import Thresholds
from peftbench.metrics import uncertainty

PASS, STOP, UNDECIDED, SHOWN = "pass", "stop", "undecided", "shown"


@dataclass(frozen=True)
class Criterion:
    """A figure of both models and what is compared with a limit.

    Attributes:
        name: of the figure.
        kind: "share" of figures in [0, 1] and their difference, "ratio" of figures in `unit`.
        old, new: the figure of each model; None where only the change is one.
        change: new less old, or new by old; None where it is undefined.
        low, high: its interval of 95 %; None where there is none.
        n: rows, texts or pairs that it comes from.
        limit: of the change; None shows it only.
        at_least: whether the change must reach the limit, or may not exceed it.
        decide_by: see `Thresholds`.
        why: why there is no interval or no figure.
        unit: of the figures of a ratio.
    """

    name: str
    kind: str
    old: float | None
    new: float | None
    change: float | None
    low: float | None
    high: float | None
    n: int
    limit: float | None
    at_least: bool
    decide_by: str
    why: str | None = None
    unit: str = ""

    @property
    def verdict(self) -> str:
        """`PASS`; `STOP`; `UNDECIDED` where the figure passes and its interval does not."""
        if self.limit is None:
            return SHOWN
        if self.change is None:
            return UNDECIDED
        if not self._within(self.change):
            return STOP
        worse = self.low if self.at_least else self.high
        if self.decide_by == "value" or worse is None or self._within(worse):
            return PASS
        return UNDECIDED

    def _within(self, value: float) -> bool:
        assert self.limit is not None
        slack = 1e-12
        if self.at_least:
            return value >= self.limit - slack
        return value <= self.limit + slack


@dataclass(frozen=True)
class Flip:
    """A row that the old model has right and the new one wrong.

    Attributes:
        place: among the rows.
        label, answer: class, and that of the new model.
        confidence: of the new model in its answer.
    """

    place: int
    label: int
    answer: int
    confidence: float


@dataclass(frozen=True)
class Findings:
    """What a gate decides, and from what.

    Attributes:
        metric: of the scores.
        criteria: that may have a limit; all of them must hold, so that no correction for their
            number is needed (intersection-union test, Berger 1982).
        noise, abnormal: the parts of two of the criteria, by kind.
        flips: from the surest wrong answer on.
        gained: rows that the new model has right and the old one wrong.
    """

    metric: str
    criteria: list[Criterion]
    noise: list[Criterion]
    abnormal: list[Criterion]
    flips: list[Flip]
    gained: Proportion

    @property
    def passes(self) -> bool:
        """Whether the new model may replace the old one."""
        return all(one.verdict in (PASS, SHOWN) for one in self.criteria)


def judge(measured: Measured, metric: str, thresholds: Thresholds) -> Findings:
    """Compare both models in everything that was measured.

    Args:
        measured: of both.
        metric: one of `task_metrics.METRICS`, of the score.
        thresholds: the limits.
    """
    by = thresholds.decide_by
    plain = measured.plain
    flips, gained = _flips(plain)
    score, noise, mean_noise = _scores(plain, measured.noise, metric, thresholds)
    criteria = [score, _flipped(len(flips), len(plain.label), thresholds)]
    criteria.append(_calibration(plain, thresholds))
    criteria += mean_noise
    for name, answers in measured.shift.items():
        one, *_ = _scores(answers, {}, metric, thresholds)
        limit = thresholds.shift_difference
        criteria.append(replace(one, name=f"shift: {name}", limit=limit))
    abnormal, pooled = _abnormal(measured, thresholds)
    criteria += pooled
    criteria.append(_latency(measured.seconds, thresholds))
    old, new = measured.size
    criteria.append(
        Criterion(
            name="size (MB)",
            kind="ratio",
            old=old / 1e6,
            new=new / 1e6,
            change=new / old,
            low=None,
            high=None,
            n=1,
            limit=thresholds.size_ratio,
            at_least=False,
            decide_by=by,
            why="counted exactly",
            unit="MB",
        )
    )
    return Findings(metric, criteria, noise, abnormal, flips, gained)


def _flips(plain: Answers) -> tuple[list[Flip], Proportion]:
    ours, theirs = plain.new.argmax(axis=1), plain.old.argmax(axis=1)
    lost = np.flatnonzero((theirs == plain.label) & (ours != plain.label))
    won = int(((theirs != plain.label) & (ours == plain.label)).sum())
    sure = plain.new.max(axis=1)
    flips = [
        Flip(int(i), int(plain.label[i]), int(ours[i]), float(sure[i]))
        for i in lost[np.argsort(-sure[lost], kind="stable")]
    ]
    return flips, Proportion(won, len(plain.label))


def _flipped(count: int, rows: int, thresholds: Thresholds) -> Criterion:
    share = Proportion(count, rows)
    return Criterion(
        name="negative flips",
        kind="share",
        old=None,
        new=None,
        change=share.value,
        low=share.low,
        high=share.high,
        n=rows,
        limit=thresholds.negative_flips,
        at_least=False,
        decide_by=thresholds.decide_by,
    )


def _scores(
    plain: Answers, noise: dict[str, Answers], metric: str, thresholds: Thresholds
) -> tuple[Criterion, list[Criterion], list[Criterion]]:
    """The score, the score under each noise, and their mean, all on the same resamples."""
    every = {"": plain} | noise
    scores = np.stack([side for one in every.values() for side in (one.old, one.new)])
    (whole,) = bootstrap.score(metric, scores, plain.label, np.ones((1, len(plain.label))))
    ends = [_resampled(metric, scores, plain.label, worse) for worse in (True, False)]
    places = {name: (2 * number, 2 * number + 1) for number, name in enumerate(every)}

    def one(name: str, pairs: Sequence[tuple[int, int]], limit: float | None) -> Criterion:
        theirs, ours = ([*side] for side in zip(*pairs, strict=True))
        found = [drawn[:, ours].mean(axis=1) - drawn[:, theirs].mean(axis=1) for drawn in ends]
        old, new = (float(whole[side].mean()) for side in (theirs, ours))
        return _criterion(name, old, new, found, plain, limit, True, thresholds.decide_by)

    score = one("score", [places[""]], thresholds.score_difference)
    parts = [one(name, [places[name]], None) for name in noise]
    pairs = [places[name] for name in noise]
    limit = thresholds.noise_difference
    mean = [one("noise", pairs, limit)] if pairs else []
    return score, parts, mean


def _resampled(metric: str, scores: Floats, label: Array, worse: bool) -> Floats:
    """(resamples, models) scores of a Bayesian bootstrap of the rows and one further row.

    Only OLD has that row right (`worse`), or only NEW. Without it two models that agree on all rows
    would have an interval of no width, however few the rows are. For the accuracy of a model that
    gains nothing the worse end is that of Clopper and Pearson for its losses. The row is of the
    rarest class, where it changes other metrics most.

    Args:
        metric: one of `task_metrics.METRICS`.
        scores: (models, rows, classes), OLD and NEW in turn.
        label: (rows,) classes.
        worse: whether the further row is one that NEW has wrong.
    """
    present, counts = np.unique(label, return_counts=True)
    rarest = present[counts.argmin()]
    right = np.eye(scores.shape[2])[rarest]
    sides = (right, np.roll(right, 1)) if worse else (np.roll(right, 1), right)
    further = np.stack([sides[number % 2] for number in range(len(scores))])
    whole = np.concatenate([scores, further[:, None]], axis=1)
    labels = np.append(label, rarest)
    drawn = bootstrap.weights(len(labels), DRAWS, np.random.default_rng(0))
    return np.concatenate([bootstrap.score(metric, whole, labels, some) for some in drawn])


#: A change is undecided where it is undefined on more than this part of the resamples.
_UNDEFINED = 0.05


def _criterion(
    name: str,
    old: float,
    new: float,
    ends: Sequence[Floats],
    answers: Answers,
    limit: float | None,
    at_least: bool,
    by: str,
) -> Criterion:
    """A difference of two figures.

    Args:
        ends: its resamples for the lower end of the interval, and those for the upper one.
    """
    why: str | None = None
    low: float | None = None
    high: float | None = None
    undefined = max(float(np.mean(~np.isfinite(drawn))) for drawn in ends)
    if not math.isfinite(new - old) or undefined > _UNDEFINED:
        why = "undefined here, or on too many resamples: too few rows of a class"
    else:
        low = float(np.nanquantile(ends[0], ALPHA / 2))
        high = float(np.nanquantile(ends[1], 1 - ALPHA / 2))
    return Criterion(
        name=name,
        kind="share",
        old=old if math.isfinite(old) else None,
        new=new if math.isfinite(new) else None,
        change=None if why else new - old,
        low=low,
        high=high,
        n=len(answers.label),
        limit=limit,
        at_least=at_least,
        decide_by=by,
        why=why,
    )


def _calibration(plain: Answers, thresholds: Thresholds) -> Criterion:
    """The expected calibration error of both on the same resamples."""
    rows = len(plain.label)
    logs = [np.log(np.maximum(one, np.finfo(np.float64).tiny)) for one in (plain.old, plain.new)]
    counts = bootstrap.draws(rows, DRAWS, np.random.default_rng(0))
    drawn = np.concatenate(
        [
            np.subtract(
                *(uncertainty.calibration_errors(one, plain.label, some) for one in logs[::-1])
            )
            for some in counts
        ]
    )
    old, new = (uncertainty.calibration_error(one, plain.label) for one in logs)
    limit = thresholds.calibration_difference
    by = thresholds.decide_by
    return _criterion("calibration error", old, new, (drawn, drawn), plain, limit, False, by)


def _abnormal(
    measured: Measured, thresholds: Thresholds
) -> tuple[list[Criterion], list[Criterion]]:
    """AUROC of confidence, ordinary rows against abnormal texts: by kind, and of all kinds."""
    ordinary = (measured.plain.old.max(axis=1), measured.plain.new.max(axis=1))
    by = thresholds.decide_by

    def one(name: str, odd: tuple[Floats, Floats], limit: float | None) -> Criterion:
        found = auroc_difference(ordinary[0], odd[0], ordinary[1], odd[1])
        return Criterion(
            name=name,
            kind="share",
            old=found[0],
            new=found[1],
            change=found[1] - found[0],
            low=found[2],
            high=found[3],
            n=len(odd[0]),
            limit=limit,
            at_least=True,
            decide_by=by,
        )

    parts = [one(kind, odd, None) for kind, odd in measured.abnormal.items()]
    if not parts:
        return [], []
    sides = [np.concatenate([odd[side] for odd in measured.abnormal.values()]) for side in (0, 1)]
    whole = one("abnormal input", (sides[0], sides[1]), thresholds.abnormal_difference)
    return parts, [whole]


def auroc_difference(
    old: Floats, old_odd: Floats, new: Floats, new_odd: Floats
) -> tuple[float, float, float, float]:
    """AUROC of two models on the same texts, and the interval of their difference.

    The probability that an ordinary text has the higher confidence, ties as half; the variance of
    the difference is that of DeLong, DeLong and Clarke-Pearson 1988.

    Args:
        old, new: (rows,) confidence in ordinary texts.
        old_odd, new_odd: (texts,) confidence in abnormal ones.

    Returns:
        Of the old model, of the new one, and lower and upper end of the 95 % interval.
    """
    from scipy.special import ndtri

    pairs = [(_above(a, b), 1 - _above(b, a)) for a, b in ((old, old_odd), (new, new_odd))]
    theirs, ours = (float(ordinary.mean()) for ordinary, _ in pairs)
    variance = sum(
        float(np.var(pairs[1][side] - pairs[0][side], ddof=1)) / len(pairs[0][side])
        for side in (0, 1)
    )
    reach = float(ndtri(1 - ALPHA / 2)) * math.sqrt(variance)
    return theirs, ours, max(-1.0, ours - theirs - reach), min(1.0, ours - theirs + reach)


def _above(values: Floats, others: Floats) -> Floats:
    """For each value the share of others that it exceeds, equal ones as half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    found: Floats = below / (2 * len(others))
    return found


def _latency(seconds: tuple[Floats, Floats], thresholds: Thresholds) -> Criterion:
    """Medians, and their ratio with a bootstrap interval over texts, which both took in turn."""
    old, new = seconds
    places = np.random.default_rng(0).integers(0, len(old), (DRAWS // 5, len(old)))
    drawn = np.median(new[places], axis=1) / np.median(old[places], axis=1)
    low, high = np.quantile(drawn, (ALPHA / 2, 1 - ALPHA / 2))
    theirs, ours = float(np.median(old)), float(np.median(new))
    return Criterion(
        name="latency (ms)",
        kind="ratio",
        old=1000 * theirs,
        new=1000 * ours,
        change=ours / theirs,
        low=float(low),
        high=float(high),
        n=len(old),
        limit=thresholds.latency_ratio,
        at_least=False,
        decide_by=thresholds.decide_by,
        unit="ms",
    )
