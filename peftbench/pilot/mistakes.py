"""The mistakes of which a candidate is surest, with their texts: only where that is asked for."""

import numpy as np

from peftbench.data import loading
from peftbench.pilot.design import PilotDesign
from peftbench.pilot.study import Study

#: Mistakes that are shown.
_MOST = 20


def surest_mistakes(found: PilotDesign, study: Study, name: str) -> list[list[str]]:
    """Line of the file, label, prediction, its probability in percent, and the texts.

    Args:
        found: the pilot.
        study: of its predictions.
        name: of the candidate.
    """
    table, names = study.table, list(found.classes)
    probability = table.probability[name][0]
    predicted, sure = probability.argmax(axis=1), probability.max(axis=1)
    wrong = np.flatnonzero(predicted != table.label)
    task = found.plan.runs[0].task
    texts: dict[int, tuple[str, ...]] = {}
    lines: dict[int, int] = {}
    for part, rows in (("validation", held := loading.held_rows(task)), ("train", None)):
        split = task.splits[part]
        here = np.setdiff1d(np.arange(found.rows), held) if rows is None else rows
        split_texts = loading.load_split(task, split, None).texts
        texts |= dict(zip(here.tolist(), zip(*split_texts, strict=True), strict=True))
        lines |= dict(zip(here.tolist(), loading.load_columns(task, split, None)[1], strict=True))
    return [
        [
            str(lines[row]),
            names[table.label[row]],
            names[predicted[row]],
            f"{100 * sure[row]:.1f}",
            *texts[row],
        ]
        for row in wrong[np.argsort(-sure[wrong], kind="stable")][:_MOST].tolist()
    ]
