"""The model of the winner: trained once more, on all rows or without a calibration part, exported.

On all rows nothing is left that it was not trained on. Its cut-off for review is then chosen from
the predictions of the folds, an estimate; so are the score of its card and the confidence of its
`reference.json`. With a calibration part, one part of a cut by the rules of the folds, the cut-off
has a guarantee, over groups of rows as the folds have them, and the rest is measured on that part.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from peftbench.analysis.review import (
    LEVEL,
    CutOff,
    controlled_cut_off,
    estimated_cut_off,
    guaranteed_cut_off,
    one_of_each,
)
from peftbench.core.errors import ConfigError
from peftbench.core.plan import RunOptions
from peftbench.core.run import Record
from peftbench.core.text import command
from peftbench.data import loading
from peftbench.exporting.held_out_scores import HeldOutScores
from peftbench.metrics import task_metrics
from peftbench.pilot import study
from peftbench.pilot.design import PilotDesign
from peftbench.pilot.out_of_fold import OutOfFold
from peftbench.results.store import ResultsFolder
from peftbench.runner.progress import note


@dataclass(frozen=True)
class FinalModel:
    """An exported model.

    Attributes:
        folder: of the export.
        record: of its run, in `final/` of the results folder.
        rows: that it was trained on.
        calibration: rows that were left out for its cut-off.
        cut_offs: the strongest promise first; the first one is in its `review.json`.
    """

    folder: Path
    record: Record
    rows: int
    calibration: int
    cut_offs: list[CutOff]


def results_of(pilot: ResultsFolder) -> ResultsFolder:
    """The records of final models: their scores are of rows that they may know."""
    return ResultsFolder(pilot.folder / "final")


def make(
    found: PilotDesign,
    table: OutOfFold,
    name: str,
    error: float,
    pilot: ResultsFolder,
    options: RunOptions,
) -> FinalModel | str:
    """Train the model of a method and export it, or read what an earlier call left.

    Args:
        found: the pilot.
        table: out-of-fold predictions.
        name: of the method.
        error: wrong answers that the cut-off allows among those that nobody checks.
        pilot: its results.
        options: how runs are executed.

    Returns:
        The model, or why there is none.

    Raises:
        Unfinished: if trainings failed or were stopped.
    """
    results, part = results_of(pilot), found.request.calibration_parts
    runs = [run for run in found.final.runs if run.method.name == name]
    if not options.quiet:
        left = f"without one part of {part}, for its review threshold" if part else "on all rows"
        note(f"the model of {name} is trained {left}")
    # what is odd in the data was said of the folds; that all rows are in both splits is meant
    quiet = replace(options, quiet=True, save_weights=True)
    plan = replace(found.final, runs=runs, cells=1, repeats=[])
    (run,) = study.with_chosen_rates(plan, found.request.rates, results, quiet)
    if study.train(replace(plan, runs=[run]), results, quiet):
        return f"the training of {name} on these rows diverged"
    record = results.load(run.key)
    arrays = results.predictions(record)
    calibration = len(arrays["label"]) if part else 0
    held = None if part else _of_the_folds(found, table, name)
    cut_offs = (
        [estimated_cut_off(table.probability[name][0], table.label, error)]
        if held is not None
        else calibrated_cut_offs(
            _softmax(arrays["scores"]),
            arrays["label"],
            _held_groups(record),
            error,
            len(found.methods),
        )
    )
    target = pilot.folder / f"model-{name}-{run.key}"
    if refused := _export(record, results, target, cut_offs[0], held):
        return refused
    return FinalModel(target, record, record.work["train_size"], calibration, cut_offs)


def _held_groups(record: Record) -> np.ndarray:
    """Number of the group of each row of the calibration part, in the order of predictions."""
    task = record.run.task
    return np.asarray(loading.cut(task).group[loading.held_rows(task)])


def calibrated_cut_offs(
    probability: np.ndarray,
    label: np.ndarray,
    group: np.ndarray,
    error: float,
    methods: int,
    level: float = LEVEL,
) -> list[CutOff]:
    """Cut-offs of the chosen one of several models, all trained on the same other rows.

    The rows of the calibration part were among those by which the method was chosen. So each
    promise is made for the models of all methods together (Bonferroni): then it holds for the
    chosen one, however it was chosen. Rows of a group are right or wrong together, so one of each
    group counts, and the promises are over groups.

    Args:
        probability: (rows, classes) of the chosen model.
        label: (rows,) classes.
        group: (rows,) numbers of groups, which are independent of each other.
        error: see `analysis.review`.
        methods: how many it was chosen from.
        level: probability with which the guarantee may fail.
    """
    rows = one_of_each(group)
    sure = guaranteed_cut_off(probability[rows], label[rows], error, level / methods)
    on_average = controlled_cut_off(probability[rows], label[rows], error / methods)
    left = len(label) - len(rows)
    return [
        replace(sure, level=level, same_group=left),
        replace(on_average, wanted=error, same_group=left),
    ]


def _softmax(scores: np.ndarray) -> np.ndarray:
    from scipy.special import softmax

    return np.asarray(softmax(scores.astype(np.float64), axis=1))


def _of_the_folds(found: PilotDesign, table: OutOfFold, name: str) -> HeldOutScores:
    """Predictions of the folds in place of those of a model that knows all rows."""
    scores = np.log(np.maximum(table.probability[name][0], np.finfo(np.float64).tiny))
    metrics = task_metrics.score([found.metric], scores, table.label)
    folds = found.request.folds
    return HeldOutScores(scores, table.label, metrics, f"cross-validation with {folds} folds")


def _export(
    record: Record,
    results: ResultsFolder,
    target: Path,
    cut_off: CutOff,
    held: HeldOutScores | None,
) -> str | None:
    """Write the folder, unless it is there; and the cut-off, which a criterion may have changed.

    Returns:
        Why the model has no folder: its method has no form of an export, or the libraries load none
        of its forms. None where it has one.
    """
    from peftbench.exporting import review  # torch, which takes seconds
    from peftbench.exporting.folder import export_run
    from peftbench.methods.base import build_method

    if not target.exists():  # it comes whole, or not at all
        try:
            forms = build_method(record.run.method).export_forms()
        except ValueError as error:
            forms, refused = (), [str(error)]
        else:
            refused = []
        for form in forms:
            try:
                export_run(record, results, target, form, held=held)
                break
            except ConfigError as error:
                refused.append(str(error))
        if not target.exists():
            key, folder = record.run.key, results.folder
            use = command("predict", key, "FILE", "-o", "labelled.csv", "--results", folder)
            return f"{'; '.join(refused)}; its weights are kept: `{use}`"
    review.write(target, cut_off)
    return None
