"""The cut-off on the confidence of an exported model, below which people review its answers."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from peftbench.analysis.review import LEVEL, CutOff, guaranteed_cut_off, one_of_each
from peftbench.core.errors import ConfigError
from peftbench.core.run import Run
from peftbench.data import loading, splitting
from peftbench.data.loading import LabelledTexts
from peftbench.exporting.loading import REVIEW, read_export
from peftbench.exporting.prediction import PredictionSource
from peftbench.system import io

#: Calibration rows that are predicted at most.
_MOST = 5_000


def calibration_part(run: Run, root: str | None) -> tuple[LabelledTexts, int]:
    """Training rows that the run used for nothing, of those of a group one.

    Args:
        run: a classifier's.
        root: folders of data sets in the hub's layout, or None for the hub.

    Returns:
        The rows, and how many are left out because another row of their group is there.

    Raises:
        ConfigError: if it used all, or predicts values, or the data are not at hand.
    """
    if run.task.regression:
        raise ConfigError(f"{run.title} predicts values; a cut-off on the confidence needs classes")
    train = loading.load_split(run.task, run.task.splits["train"], root)
    unused = splitting.split_training(run, train.label).unused
    if not len(unused):
        raise ConfigError(
            f"{run.title} was trained on all {len(train.label):,} rows, which leaves none to "
            "choose a cut-off on; train it again with size=0.7, which leaves 30 %"
        )
    group = loading.training_groups(run.task)
    alone = unused if group is None else unused[one_of_each(group[unused])]
    return train.take(np.sort(alone[:_MOST])), len(unused) - len(alone)


def find_cut_off(
    source: PredictionSource,
    part: LabelledTexts,
    error: float,
    same_group: int = 0,
    level: float = LEVEL,
) -> CutOff:
    """The guaranteed cut-off of a model from its calibration part; see `analysis.review`."""
    found = guaranteed_cut_off(source.predict(part.texts), part.label, error, level)
    return replace(found, same_group=same_group)


def write(folder: Path, found: CutOff) -> None:
    """Put a cut-off into an exported folder, where `peftbench predict` finds it."""
    about = {
        "key": read_export(folder).run.key,
        "kind": found.kind,
        "wanted_error": found.wanted,
        "level": found.level,
        "cut_off": found.value,
        "rows": found.answered.of,
        "answered": found.answered.count,
        "wrong": found.wrong.count,
        "same_group": found.same_group,
        "why": found.why,
    }
    io.write_whole(folder / REVIEW, io.sealed(about))


def sentence(found: CutOff) -> str:
    """What people review, for a terminal."""
    if found.value is None:
        return f"people review all texts: {found.why}"
    return (
        f"people review texts below a confidence of {found.value:.4f}, {found.reviewed.text()}; of "
        f"the others at most {100 * found.wanted:g} % are wrong, with "
        f"{100 * (1 - (found.level or 0)):g} % probability"
    )
