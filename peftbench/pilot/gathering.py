"""Out-of-fold predictions from records: the folds of each repeat put together."""

from collections.abc import Mapping, Sequence

import numpy as np

from peftbench.core.arrays import Floats
from peftbench.core.errors import RecordError
from peftbench.core.run import Run
from peftbench.data import loading
from peftbench.pilot.design import PilotDesign, place
from peftbench.pilot.out_of_fold import OutOfFold
from peftbench.results.store import ResultsFolder


def gather(
    found: PilotDesign,
    results: ResultsFolder,
    runs: Mapping[str, Sequence[Run]],
    seconds: Mapping[str, Sequence[float]],
) -> OutOfFold:
    """The predictions of runs, one for each repeat and fold, as a table.

    Args:
        found: the pilot.
        results: where their records are.
        runs: by candidate.
        seconds: see `OutOfFold.seconds`.

    Raises:
        RecordError: if predictions are not of the rows of their fold.
    """
    from scipy.special import softmax

    probability = {}
    for name, members in runs.items():
        pieces = {}
        for run in members:
            arrays = results.predictions(results.load(run.key))
            known = loading.load_split(run.task, run.task.splits["validation"], None).label
            if not np.array_equal(arrays["label"], known):
                raise RecordError(f"the predictions of {run.key} are not of the rows of its fold")
            pieces[place(run)] = softmax(arrays["scores"].astype(np.float64), axis=1)
        probability[name] = whole(found, pieces)
    label = np.empty(found.rows, dtype=np.int64)
    constant = {}
    for task in (run.task for run in next(iter(runs.values()))):
        train, held = (
            loading.load_split(task, task.splits[part], None) for part in ("train", "validation")
        )
        label[loading.held_rows(task)] = held.label
        counts = np.bincount(train.label, minlength=task.classes)
        shares = counts / counts.sum()
        constant[task.fold_seed or 0, task.fold or 0] = np.tile(shares, (len(held.label), 1))
    return OutOfFold(label, found.groups, whole(found, constant), probability, seconds)


def whole(found: PilotDesign, pieces: Mapping[tuple[int, int], Floats]) -> Floats:
    """(repeats, rows, classes) arrays of held-out rows put where the rows are in the file.

    Args:
        found: the pilot.
        pieces: by repeat and fold (rows, classes); all folds of each repeat.
    """
    repeats = sorted({repeat for repeat, _ in pieces})
    made = np.full((len(repeats), found.rows, len(found.classes)), np.nan)
    for task in found.tasks:
        at = task.fold_seed or 0, task.fold or 0
        if at in pieces:
            made[repeats.index(at[0]), loading.held_rows(task)] = pieces[at]
    if np.isnan(made).any():
        raise RecordError("some rows of the file are in no fold that was predicted")
    return made
