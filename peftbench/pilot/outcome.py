"""What a pilot found: every figure with its n and its interval, or the reason."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from importlib import metadata
from statistics import fmean
from typing import Any

import numpy as np

from peftbench.analysis import costs, significance
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Json
from peftbench.core.text import command
from peftbench.pilot import baselines, intervals
from peftbench.pilot.criterion import WrittenCriterion
from peftbench.pilot.decision import CandidateVerdict, Decision, unchecked_error
from peftbench.pilot.design import PilotDesign
from peftbench.pilot.final_model import FinalModel
from peftbench.pilot.intervals import LEVEL, Interval
from peftbench.pilot.learning_curve import FURTHER, Crossing, Curve
from peftbench.pilot.study import Study
from peftbench.reports.decisions import After
from peftbench.results.store import ResultsFolder

#: Shares of texts that people may check, for which the error of the others is shown.
REVIEWED = (0.0, 0.05, 0.1, 0.2, 0.3)


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval, or the reason why it has none.

    Attributes:
        value: None where there is no figure.
        low, high: the ends; None where there is no interval.
        n: rows, trainings or texts that it is of; None of a crossing point that was not found.
        why: what is missing.
        machine: on which it was measured, where that matters.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    why: str | None = None
    machine: str | None = None

    @classmethod
    def of_interval(cls, found: Interval) -> "Estimate":
        """A figure of rows."""
        return cls(found.value, found.low, found.high, found.rows)

    @property
    def span(self) -> tuple[float, float, float]:
        """Value and ends of a figure that has them."""
        assert self.value is not None
        assert self.low is not None
        assert self.high is not None
        return self.value, self.low, self.high

    def to_json(self) -> Json:
        """Its value, and of the rest what there is."""
        return {n: v for n, v in vars(self).items() if v is not None or n == "value"}


@dataclass(frozen=True)
class DataOutcome:
    """The file: rows, rows of each class, near duplicates, independent groups and their column."""

    file: str
    rows: int
    classes: dict[str, int]
    near_duplicates: int
    groups: int
    group_column: str | None


@dataclass(frozen=True)
class DesignOutcome:
    """How it was done.

    Attributes:
        model, methods, folds, repeats, rates: as in the pilot's words and options.
        level: one less the probability of intervals.
        candidates: how many share it.
        other_trainings: in the folder, of pilots with other words.
    """

    model: str
    methods: list[str]
    folds: int
    repeats: int
    rates: int
    level: float
    candidates: int
    other_trainings: int


@dataclass(frozen=True)
class CandidateOutcome:
    """A method or a baseline, with parts of the criterion as in `decision.CandidateVerdict`."""

    name: str
    kind: str
    score: Estimate
    gain: Estimate
    unchecked_error: Estimate | None
    seconds: Estimate
    latency: Estimate
    missed: list[str]
    excluded: list[str]


@dataclass(frozen=True)
class ReviewOutcome:
    """The share of texts that people check, and the error among the others."""

    reviewed: float
    error: Estimate


@dataclass(frozen=True)
class CurvePoint:
    """The score with so many training rows."""

    rows: float
    score: Estimate


@dataclass(frozen=True)
class CurveOutcome:
    """A learning curve: measured points, and projections with all rows and `further` more."""

    name: str
    points: list[CurvePoint]
    now: Estimate
    later: Estimate
    gain: Estimate
    further: int


@dataclass(frozen=True)
class CrossingOutcome:
    """At how many training rows the second candidate overtakes the first."""

    first: str
    second: str
    at: Estimate


@dataclass(frozen=True)
class NoModel:
    """Why no model is exported."""

    why: str

    def to_json(self) -> Json:
        """Without a folder."""
        return {"folder": None, "why": self.why}


@dataclass(frozen=True)
class ModelOutcome:
    """The exported model.

    Attributes:
        folder: of the export.
        key, method, rate: of its run.
        training_rows, calibration_rows: of the file, for the model and for its cut-off.
        cut_off: how it was found, see `review.CutOff.kind`.
        least_confidence: with which it answers by itself; None where it never does.
    """

    folder: str
    key: str
    method: str
    rate: float
    training_rows: int
    calibration_rows: int
    cut_off: str
    least_confidence: float | None


@dataclass(frozen=True)
class PilotOutcome:
    """Everything that the page, the terminal and `--json` show; fields in the order of the JSON.

    Attributes:
        version: of peftbench.
        answer, method, reasons, sufficient: see `decision.Decision`.
        criterion: with its versions.
        data, design: what was tried on what.
        candidates: the best score first.
        constant: the score of the constant prediction.
        left_out: methods without predictions of all rows, and why.
        review: for shares of texts that people check.
        curves, crossing: see `learning_curve`.
        model: that was exported.
        after: what comes after the answer, see `reports.decisions.After.to_json`.
        next: commands.
    """

    version: str
    answer: str
    method: str
    reasons: list[str]
    sufficient: list[str]
    criterion: WrittenCriterion
    data: DataOutcome
    design: DesignOutcome
    candidates: list[CandidateOutcome]
    constant: Estimate
    left_out: dict[str, str]
    review: list[ReviewOutcome]
    curves: list[CurveOutcome]
    crossing: CrossingOutcome | None
    model: ModelOutcome | NoModel
    after: Json
    next: list[str]

    @property
    def metric(self) -> str:
        """Of the score."""
        return self.criterion.criterion.metric

    @property
    def least(self) -> float:
        """What the score must reach."""
        return self.criterion.criterion.least

    @property
    def others(self) -> list[str]:
        """Candidates beside the best one that meet the criterion."""
        return [name for name in self.sufficient if name != self.method]

    def to_json(self) -> Json:
        """The content of pilot.json."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}

    @classmethod
    def from_json(cls, data: Json) -> "PilotOutcome":
        """Read what `to_json` gave."""
        model, crossing = data["model"], data["crossing"]
        read: Json = {
            "criterion": WrittenCriterion.from_json(data["criterion"]),
            "data": DataOutcome(**data["data"]),
            "design": DesignOutcome(**data["design"]),
            "candidates": [CandidateOutcome(**_estimates(one)) for one in data["candidates"]],
            "constant": Estimate(**data["constant"]),
            "review": [ReviewOutcome(**_estimates(one)) for one in data["review"]],
            "curves": [_read_curve(one) for one in data["curves"]],
            "crossing": crossing and CrossingOutcome(**_estimates(crossing)),
            "model": NoModel(model["why"]) if model["folder"] is None else ModelOutcome(**model),
        }
        return cls(**data | read)


def _plain(value: Any) -> Any:
    if hasattr(value, "to_json"):
        return value.to_json()
    if is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _estimates(node: Json) -> Json:
    """The fields of a part, its figures read."""
    return {n: Estimate(**v) if isinstance(v, dict) else v for n, v in node.items()}


def _read_curve(node: Json) -> CurveOutcome:
    points = [CurvePoint(**_estimates(one)) for one in node["points"]]
    return CurveOutcome(**_estimates(node) | {"points": points})


def summarize(
    found: PilotDesign,
    written: WrittenCriterion,
    study: Study,
    decided: Decision,
    model: FinalModel | str,
    after: After,
    results: ResultsFolder,
) -> PilotOutcome:
    """What a pilot found.

    Args:
        found: the pilot.
        written: the criterion.
        study: what the trainings gave.
        decided: the answer.
        model: that was exported, or why there is none.
        after: what comes after the answer.
        results: where latencies are kept.
    """
    table, request = study.table, found.request
    figure = Estimate.of_interval
    return PilotOutcome(
        version=metadata.version("peftbench"),
        answer=decided.answer,
        method=decided.method,
        reasons=decided.reasons,
        sufficient=decided.sufficient,
        criterion=written,
        data=DataOutcome(
            file=request.path.name,
            rows=found.rows,
            classes=found.classes,
            near_duplicates=found.alike,
            groups=len(np.unique(found.groups)),
            group_column=request.group,
        ),
        design=DesignOutcome(
            model=study.runs[next(iter(study.runs))][0].model.name,
            methods=found.methods,
            folds=request.folds,
            repeats=request.repeats,
            rates=request.rates,
            level=LEVEL,
            candidates=len(decided.verdicts),
            other_trainings=len(set(results.keys()) - study.keys),
        ),
        candidates=[_candidate(one, study, results) for one in decided.verdicts],
        constant=figure(_constant(study, written.criterion.metric)),
        left_out=study.left_out,
        review=[
            ReviewOutcome(share, figure(unchecked_error(table, decided.method, share)))
            for share in REVIEWED
        ],
        curves=[_curve(one) for one in study.curves],
        crossing=None if study.crossing is None else _crossing(study.crossing),
        model=NoModel(model) if isinstance(model, str) else _model(model),
        after=after.to_json(),
        next=[] if isinstance(model, str) else _next(model),
    )


def _candidate(one: CandidateVerdict, study: Study, results: ResultsFolder) -> CandidateOutcome:
    runs = study.runs.get(one.name)
    return CandidateOutcome(
        name=one.name,
        kind="baseline" if runs is None else "method",
        score=Estimate.of_interval(one.score),
        gain=Estimate.of_interval(one.gain),
        unchecked_error=None if one.error is None else Estimate.of_interval(one.error),
        seconds=_mean(study.table.seconds.get(one.name, ())),
        latency=_latency(study.latency.get(one.name), runs is None, results),
        missed=one.missed,
        excluded=one.excluded,
    )


def _constant(study: Study, metric: str) -> Interval:
    table = study.table
    if metric == "accuracy":
        right = (table.constant.argmax(axis=2) == table.label).astype(np.float64)
        return intervals.share(right, table.group)
    name = baselines.TF_IDF  # the constant prediction is there beside any candidate
    drawn = intervals.resampled(table, metric, [name])
    return intervals.percentile(drawn[:, -1], table.rows)


def _mean(values: Sequence[float]) -> Estimate:
    """The mean over trainings by Student's t."""
    if not values:
        return Estimate(None, n=0, why="not measured")
    found = significance.student(np.array(values, dtype=np.float64))
    if found is None:
        return Estimate(fmean(values), n=len(values), why="alike, or of one training")
    return Estimate(found.value, float(found.low), float(found.high), len(values))


def _curve(one: Curve) -> CurveOutcome:
    figure = Estimate.of_interval
    points = [CurvePoint(n, figure(score)) for n, score in zip(one.sizes, one.scores, strict=True)]
    ahead = figure(one.now), figure(one.later), figure(one.gain)
    return CurveOutcome(one.name, points, *ahead, FURTHER)


def _crossing(one: Crossing) -> CrossingOutcome:
    at = Estimate(None, why=one.why) if one.at is None else Estimate.of_interval(one.at)
    return CrossingOutcome(one.first, one.second, at)


def _latency(timed: Evaluated | None, baseline: bool, results: ResultsFolder) -> Estimate:
    """Median milliseconds of single texts; the ends of its interval are two of the times."""
    if timed is None:
        why = "latency is that of fine-tuned models" if baseline else "the measurement failed"
        return Estimate(None, n=0, why=why)
    from scipy.stats import binom

    arrays = results.evaluated_predictions(timed)
    form = "merged" if "single/merged" in arrays else "unmerged"
    times = np.sort(1000 * arrays[f"single/{form}"].astype(np.float64))
    below = int(binom.ppf(LEVEL / 2, len(times), 0.5))
    return Estimate(
        float(np.median(times)),
        float(times[max(0, below - 1)]),
        float(times[min(len(times) - 1, len(times) - below)]),
        len(times),
        machine=costs.called(costs.machine(timed)),
    )


def _model(one: FinalModel) -> ModelOutcome:
    run, first = one.record.run, one.cut_offs[0]
    return ModelOutcome(
        folder=str(one.folder),
        key=run.key,
        method=run.method.name,
        rate=run.train.lr,
        training_rows=one.rows,
        calibration_rows=one.calibration,
        cut_off=first.kind,
        least_confidence=first.value,
    )


def _next(model: FinalModel) -> list[str]:
    """Commands that come after the answer."""
    return [
        command("predict", model.folder, "new.csv", "-o", "labelled.csv"),
        command("gate", model.folder, "MODEL_IN_USE", "held_out.csv"),
    ]
