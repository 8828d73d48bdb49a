"""Review at a threshold that was chosen on held-out examples, on the reporting split.

What the calibration suite finds itself (`to_check`) chooses the threshold with the labels that it
is measured on, which nobody has. Here it is chosen on examples that the run did not use, where it
left some.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from peftbench.analysis.review import guaranteed_cut_off
from peftbench.core.arrays import Arrays
from peftbench.core.errors import RecordError
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Json, Record, Run
from peftbench.metrics import uncertainty
from peftbench.results.predictions import Load

#: Error rates among unreviewed answers that thresholds are chosen for.
ERRORS = (0.1, 0.2)


def with_review(
    found: list[Evaluated],
    tested: list[Record],
    load: Load,
    load_evaluated: Callable[[Evaluated], Arrays],
) -> list[Evaluated]:
    """Evaluations of calibration with `held_out_review`, where predictions can be read.

    Args:
        found: evaluations by any suites.
        tested: records whose predictions can be read.
        load: predictions of a record.
        load_evaluated: those of an evaluation, among them `scores/held`.
    """
    by_key = {record.run.key: record for record in tested}
    return [_with(one, by_key, load, load_evaluated) for one in found]


def _with(
    one: Evaluated,
    by_key: dict[str, Record],
    load: Load,
    load_evaluated: Callable[[Evaluated], Arrays],
) -> Evaluated:
    record = by_key.get(one.evaluation.run.key)
    if one.evaluation.kind != "Calibration" or record is None or "before" not in one.findings:
        return one
    if _chosen_on_held(record.run):
        return one
    try:
        arrays = load_evaluated(one)
    except RecordError:  # findings alone
        return one
    if "scores/held" not in arrays:
        return one
    held = np.exp(uncertainty.log_probabilities(arrays["scores/held"]))
    reported = load(record)
    answers = np.exp(uncertainty.log_probabilities(reported["scores"]))
    review = {
        f"{error:g}": _reviewed(held, arrays["label/held"], answers, reported["label"], error)
        for error in ERRORS
    }
    return replace(one, findings=one.findings | {"held_out_review": review})


def _chosen_on_held(run: Run) -> bool:
    """Whether what was held out is the part on which the checkpoint was chosen: all else trained.

    No error rate is guaranteed on rows that had a part in a choice.
    """
    size, total = run.counted_size, run.task.examples.get("train")
    every = isinstance(size, str) or size == total  # in words where the task does not say how many
    return bool(run.checkpoint_selection.fraction) and every


def _reviewed(
    held: np.ndarray, label: np.ndarray, answers: np.ndarray, truth: np.ndarray, error: float
) -> Json:
    """Share of the reporting split that is reviewed, and the error rate of the rest.

    All is reviewed where the held-out examples do not show the error rate at any threshold.
    """
    cut_off = guaranteed_cut_off(held, label, error).value
    kept = answers.max(axis=1) >= (np.inf if cut_off is None else cut_off)
    wrong = answers.argmax(axis=1) != truth
    return {
        "cut_off": cut_off,
        "reviewed": float(1 - kept.mean()),
        "error": float(wrong[kept].mean()) if kept.any() else None,
    }
