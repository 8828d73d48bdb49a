"""How reports count runs that predict one class, or one value, throughout (collapsed runs).

A correlation with a constant is undefined, so the record of such a run holds no score, and keeps
none. A mean over the seeds that have one is the mean of the survivors, which nobody who starts a
training can rely on, and it rises when a method fails. Reports, tests and advice therefore count an
undefined score of a collapsed run as 0, as scikit-learn and the code of GLUE have it. A score that
is defined stays what it is: the accuracy of a run that predicts one class is that of this class,
which is the constant prediction's only where it is the majority class of the training labels.
Labels of one class leave a metric undefined for every prediction; nothing is counted there.

This is the only place where undefined scores become numbers.
"""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from peftbench.core.arrays import Array, Floats
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Json, Record, Run
from peftbench.metrics import task_metrics
from peftbench.metrics.base import CONSTANT_AUC, FLAT, is_constant
from peftbench.suites.continual import measures
from peftbench.suites.noise import area

if TYPE_CHECKING:
    import pandas as pd

#: Version of the convention: a change makes reports of equal records differ. No run scores
#: differently, so it is no part of `core.run.PROTOCOL`. 1 left undefined scores out of everything;
#: 2 took values that differ in their last digits for predictions; 3 gave a collapsed run the
#: precision of the constant prediction, though it may predict another class; 4 drew the accuracy of
#: such a run in advice as the constant prediction's, and left the seeds that never come near the
#: reference out of the seconds to come near it.
CONVENTION = 5

#: What a metric that is undefined for a constant prediction counts as: a correlation with nothing.
CONSTANT = 0.0

#: The same of a ranking.
_CONSTANT_OF = {"auc": CONSTANT_AUC}

#: The name of the constant prediction learnt from the training labels, wherever it is shown.
BASELINE = "constant prediction"

#: The name of what one answer for all examples of another set scores there, were it known.
BEST_CONSTANT = "best constant"

#: The last row of a table of scores, wherever it is shown.
DETECTABLE = "detectable difference"

_FLAT = f"constant predictions, or values whose spread is below {100 * FLAT:.0f} % of the labels'"

#: How collapsed runs count, by kind of task.
_COLLAPSED = {
    "classification": (
        "Collapsed runs (one class predicted for all examples) count with what that class scores, "
        "an undefined score as 0."
    ),
    "regression": f"Collapsed runs ({_FLAT}) count with a correlation of 0.",
    "generation": "Collapsed runs (one text for all examples) count with the score of that text.",
}

#: Below figures and tables of scores of any kind of task.
NOTE = (
    "Collapsed runs (one class predicted for all examples) count with what that class scores, an "
    f"undefined score as 0; in a regression ({_FLAT}) with a correlation of 0."
)

_TRIVIAL = {
    "classification": "the majority class of the training labels",
    "regression": "the mean of the training labels",
    "generation": "the training text that is most like the others",
}


def note(kinds: Iterable[str]) -> str:
    """How collapsed runs of these kinds of tasks count."""
    known = sorted({*kinds} & _COLLAPSED.keys())
    if len(known) == 1:
        return _COLLAPSED[known[0]]
    if "generation" in known:
        return f"{NOTE[:-1]}; one text for all examples with the score of that text."
    return NOTE


def baseline_note(kinds: Iterable[str]) -> str:
    """What the constant prediction is in these kinds of tasks."""
    known = sorted({*kinds} & _TRIVIAL.keys())
    if len(known) == 1:
        told = _TRIVIAL[known[0]]
    else:
        told = _TRIVIAL["classification"] + ", or their mean in a regression"
        told += f"; in generation {_TRIVIAL['generation']}" * ("generation" in known)
    return f"{BASELINE.capitalize()}: {told}."


def counted_record(record: Record) -> Record:
    """The record as reports count it; what it holds on disk stays as it is."""
    defined = {
        name for name, value in record.metrics.items() if value is not None or record.collapsed
    }
    numbers = (*record.metrics.values(), *record.trivial.values())
    points = [point[name] for point in record.curve for name in defined if name in point]
    if None not in (*numbers, *points):
        return record

    def filled(scores: Json) -> Json:
        return {
            name: CONSTANT if value is None and name in defined else value
            for name, value in scores.items()
        }

    return replace(
        record,
        metrics=filled(record.metrics),
        trivial=filled(record.trivial),
        curve=[filled(point) for point in record.curve],
    )


def counted_records(records: Iterable[Record]) -> list[Record]:
    """Records as reports count them."""
    return [counted_record(record) for record in records]


def counted_columns(
    frame: "pd.DataFrame", value: str, trivial: str, metric: str | None
) -> "pd.DataFrame":
    """The frame with a column of scores, and that of the constant prediction, as reports count.

    Args:
        frame: with `collapsed` and, where a metric is named, `run.task.metrics`.
        value: name of the column of scores.
        trivial: that of the constant prediction's; "metric" where there is none.
        metric: that the column holds, which not every task has; None is each task's first.
    """
    has = np.ones(len(frame), dtype=bool)
    if metric is not None:
        of_task = frame["run.task.metrics"].astype(str)
        has = of_task.str.contains(f'"{metric}"', regex=False).to_numpy()
    collapsed = frame["collapsed"].astype(bool).to_numpy()
    lacking = has & collapsed & frame[value].isna().to_numpy()
    scores = frame[value].astype("float64")
    counted = {value: scores.mask(lacking, CONSTANT)}
    if trivial != "metric":
        defined = has & (lacking | scores.notna().to_numpy())
        base = frame[trivial].astype("float64")
        counted[trivial] = base.mask(defined & base.isna().to_numpy(), CONSTANT)
    return frame.assign(**counted)


def counted_score(scores: Array, label: Array, metric: str) -> float | None:
    """The metric of `(examples, classes)` outputs; None only where the labels are of one class."""
    value = task_metrics.compute_scores([metric], scores, label)[metric]
    return CONSTANT if value is None and not is_constant(label, label) else value


def counted_trial(record: Record) -> float:
    """The score on the selection split, by which rates are chosen."""
    metric = record.run.task.metric
    return _score((record.selection or {}).get(metric), metric)


def counted_resamples(scores: Floats, label: Array, counts: Floats) -> Floats:
    """Scores on resamples, undefined only where a resample has labels of one class or value.

    Args:
        scores: (resamples, runs), not a number where the prediction or the labels are constant.
        label: (examples,) classes or values.
        counts: (resamples, examples), how often each example is in a resample.
    """
    undefined = np.isnan(scores)
    if not undefined.any():
        return scores
    lines = np.flatnonzero(undefined.any(axis=1))
    varied = np.array([not is_constant(label[counts[line] > 0], label) for line in lines])
    found: Floats = scores.copy()
    found[lines] = np.where(undefined[lines] & varied[:, None], CONSTANT, scores[lines])
    return found


def counted_evaluation(found: Evaluated) -> Evaluated:
    """The evaluation as reports count it, with what follows from scores computed again.

    Findings hold no flag of their own, so that every undefined score counts as a constant
    prediction's.
    """
    count = _FINDINGS.get(found.evaluation.kind)
    if count is None:
        return found
    return replace(found, findings=count(found.evaluation.run, found.findings))


def counted_evaluations(found: Iterable[Evaluated]) -> list[Evaluated]:
    """Evaluations as reports count them."""
    return [counted_evaluation(one) for one in found]


def _score(value: float | None, metric: str) -> float:
    return _CONSTANT_OF.get(metric, CONSTANT) if value is None else value


def _shift(run: Run, findings: Json) -> Json:
    """Scores on other data, and the gap from home where home has the metric."""
    targets = {}
    at_home = {"pearson", "spearman"} if run.task.classes == 1 else {"accuracy"}
    at_home = set() if run.task.generation else at_home
    at_home |= {"f1", "matthews", "auc"} if run.task.classes == 2 else set()
    for name, one in findings["targets"].items():
        scored = {
            which: {metric: _score(value, metric) for metric, value in one[which].items()}
            for which in ("scores", "untrained")
        }
        metric, trivial = one["metric"], one["trivial"]
        if metric != "f1":  # of which older findings lack that of a constant
            trivial = _score(trivial, metric)
        home = _score(one["home"], metric) if metric in at_home else one["home"]
        targets[name] = (
            one
            | scored
            | {
                "trivial": trivial,
                "home": home,
                "gap": None if home is None else home - scored["scores"][metric],
            }
        )
    return findings | {"targets": targets}


def _noise(run: Run, findings: Json) -> Json:
    """Scores by intensity, and drops, areas and the worst kind from them."""
    metric = findings["metric"]
    clean = _score(findings["clean"], metric)
    kinds = {}
    for name, kind in findings["kinds"].items():
        scores = [_score(value, metric) for value in kind["scores"]]
        height = area([0.0, *findings["intensities"]], [clean, *scores])
        kinds[name] = kind | {"scores": scores, "drop": clean - scores[-1], "area": height}
    last = {name: kind["scores"][-1] for name, kind in kinds.items()}
    worst = min(last, key=lambda name: last[name])
    return findings | {
        "kinds": kinds,
        "clean": clean,
        "area": statistics.fmean(kind["area"] for kind in kinds.values()),
        "worst_kind": worst,
        "worst": last[worst],
    }


def _in_context(run: Run, findings: Json) -> Json:
    """Scores by demonstrations, and their differences from none."""
    scores = [_score(value, findings["metric"]) for value in findings["scores"]]
    return findings | {"scores": scores, "differences": [one - scores[0] for one in scores]}


def _continual(run: Run, findings: Json) -> Json:
    """Scores over the rounds, and what was gained and forgotten."""
    metric = run.task.metric

    def filled(scores: list[float | None] | None) -> list[float] | None:
        return None if scores is None else [_score(value, metric) for value in scores]

    matrix = [filled(line) for line in findings["scores"]]
    joint = _score(findings["joint"], metric)
    told = findings | {"scores": matrix, "validation": filled(findings["validation"])}
    return told | {"joint": joint} | measures(matrix)  # type: ignore[arg-type]


_FINDINGS: dict[str, Callable[[Run, Json], Json]] = {
    "Shift": _shift,
    "Noise": _noise,
    "InContext": _in_context,
    "Continual": _continual,
}


def baseline(records: Iterable[Record], metric: str) -> float | None:
    """What the constant prediction of some training data scores: the mean over seeds.

    A seed draws the training examples, so that the majority class may change with it. None where
    it is undefined.

    Args:
        records: as `counted_record` gives them, of one task and size.
        metric: of the task.
    """
    return baseline_mean((record.run.seed, record.trivial.get(metric)) for record in records)


def baseline_mean(found: Iterable[tuple[int, float | None]]) -> float | None:
    """The mean over seeds of what the constant prediction scores, each distinct pair once."""
    known = sorted({(seed, score) for seed, score in found if score is not None})
    return statistics.fmean(score for _, score in known) if known else None
