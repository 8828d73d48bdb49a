"""What a pilot found, as plain data: every figure with its n and its interval, or the reason."""

from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from statistics import fmean

import numpy as np

from peftbench.analysis import costs, significance
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Json
from peftbench.core.text import command
from peftbench.pilot import baselines, intervals
from peftbench.pilot.criterion import Written
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


def outcome(
    found: PilotDesign,
    written: Written,
    study: Study,
    decided: Decision,
    model: FinalModel | str,
    after: After,
    results: ResultsFolder,
) -> Json:
    """Everything that the page, the terminal and `--json` show.

    Args:
        found: the pilot.
        written: the criterion.
        study: what the trainings gave.
        decided: the answer.
        model: that was exported, or why there is none.
        after: what comes after the answer.
        results: where latencies are kept.
    """
    criterion, table, request = written.criterion, study.table, found.request
    best = decided.method
    return {
        "version": metadata.version("peftbench"),
        "answer": decided.answer,
        "method": best,
        "reasons": decided.reasons,
        "sufficient": decided.sufficient,
        "criterion": asdict(criterion)
        | {"sha256": written.sha256, "versions": written.versions, "changed": written.changes},
        "data": {
            "file": request.path.name,
            "rows": found.rows,
            "classes": found.classes,
            "near_duplicates": found.alike,
            "groups": len(np.unique(found.groups)),
            "group_column": request.group,
        },
        "design": {
            "model": study.runs[next(iter(study.runs))][0].model.name,
            "methods": found.methods,
            "folds": request.folds,
            "repeats": request.repeats,
            "rates": request.rates,
            "level": LEVEL,
            "candidates": len(decided.verdicts),
            "other_trainings": len(set(results.keys()) - study.keys),
        },
        "candidates": [_candidate(one, study, results) for one in decided.verdicts],
        "constant": _constant(study, criterion.metric),
        "left_out": study.left_out,
        "review": [
            {"reviewed": share, "error": figure(unchecked_error(table, best, share))}
            for share in REVIEWED
        ],
        "curves": [_curve(one) for one in study.curves],
        "crossing": None if study.crossing is None else _crossing(study.crossing),
        "model": {"folder": None, "why": model} if isinstance(model, str) else _model(model),
        "after": after.to_json(),
        "next": [] if isinstance(model, str) else _next(model),
    }


def figure(found: Interval) -> Json:
    """A figure with n and interval."""
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.rows}


def _candidate(one: CandidateVerdict, study: Study, results: ResultsFolder) -> Json:
    runs = study.runs.get(one.name)
    return {
        "name": one.name,
        "kind": "baseline" if runs is None else "method",
        "score": figure(one.score),
        "gain": figure(one.gain),
        "unchecked_error": None if one.error is None else figure(one.error),
        "seconds": _mean(study.table.seconds.get(one.name, ())),
        "latency": _latency(study.latency.get(one.name), runs is None, results),
        "missed": one.missed,
        "excluded": one.excluded,
    }


def _constant(study: Study, metric: str) -> Json:
    table = study.table
    if metric == "accuracy":
        right = (table.constant.argmax(axis=2) == table.label).astype(np.float64)
        return figure(intervals.share(right, table.group))
    name = baselines.TF_IDF  # the constant prediction is there beside any candidate
    drawn = intervals.resampled(table, metric, [name])
    return figure(intervals.percentile(drawn[:, -1], table.rows))


def _mean(values: Sequence[float]) -> Json:
    """The mean over trainings by Student's t."""
    if not values:
        return {"value": None, "n": 0, "why": "not measured"}
    found = significance.student(np.array(values, dtype=np.float64))
    if found is None:
        return {"value": fmean(values), "n": len(values), "why": "alike, or of one training"}
    return {"value": found.value, "low": float(found.low), "high": float(found.high)} | {
        "n": len(values)
    }


def _curve(one: Curve) -> Json:
    return {
        "name": one.name,
        "points": [
            {"rows": size, "score": figure(score)}
            for size, score in zip(one.sizes, one.scores, strict=True)
        ],
        "now": figure(one.now),
        "later": figure(one.later),
        "gain": figure(one.gain),
        "further": FURTHER,
    }


def _crossing(one: Crossing) -> Json:
    at = {"value": None, "why": one.why} if one.at is None else figure(one.at)
    return {"first": one.first, "second": one.second, "at": at}


def _latency(timed: Evaluated | None, baseline: bool, results: ResultsFolder) -> Json:
    """Median milliseconds of single texts; the ends of its interval are two of the times."""
    if timed is None:
        why = "latency is that of fine-tuned models" if baseline else "the measurement failed"
        return {"value": None, "n": 0, "why": why}
    from scipy.stats import binom

    arrays = results.evaluated_predictions(timed)
    form = "merged" if "single/merged" in arrays else "unmerged"
    times = np.sort(1000 * arrays[f"single/{form}"].astype(np.float64))
    below = int(binom.ppf(LEVEL / 2, len(times), 0.5))
    return {
        "value": float(np.median(times)),
        "low": float(times[max(0, below - 1)]),
        "high": float(times[min(len(times) - 1, len(times) - below)]),
        "n": len(times),
        "machine": costs.called(costs.machine(timed)),
    }


def _model(one: FinalModel) -> Json:
    run, first = one.record.run, one.cut_offs[0]
    return {
        "folder": str(one.folder),
        "key": run.key,
        "method": run.method.name,
        "rate": run.train.lr,
        "training_rows": one.rows,
        "calibration_rows": one.calibration,
        "cut_off": first.kind,
        "least_confidence": first.value,
    }


def _next(model: FinalModel) -> list[str]:
    """Commands that come after the answer."""
    return [
        command("predict", model.folder, "new.csv", "-o", "labelled.csv"),
        command("gate", model.folder, "MODEL_IN_USE", "held_out.csv"),
    ]
