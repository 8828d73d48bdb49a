"""Would a part of the validation split have ranked the methods alike? Kendall's tau by part.

A low-cost validation protocol: score on a fixed part, and know how far to trust the order.
"""

import statistics

import numpy as np

from peftbench.analysis import bootstrap, convention, grouping
from peftbench.core.run import Record
from peftbench.reports.base import Report, listed
from peftbench.reports.tables.markdown import Table
from peftbench.results.predictions import Load, stacked

#: Parts of the reporting split, and how many draws of each.
PARTS = (0.05, 0.1, 0.2, 0.5)
DRAWS = 20

REPORT = Report(
    name="validation",
    question="would a part of the validation split have ranked the methods alike?",
    order=10,
    tables=lambda inputs: listed(cheap_validation_table(inputs.tested, inputs.load)),
    page=("differences", 2),
)


def cheap_validation_table(records: list[Record], load: Load) -> Table | None:
    """Mean tau-b over draws between the order of rows on a part and on all of the split.

    Args:
        records: of any tasks.
        load: predictions of a record.

    Returns:
        None where no task has three rows with a defined score.

    Raises:
        RecordError: if runs of one task predicted on other examples.
    """
    by_row, _ = grouping.of_records(records)
    lines = []
    for task, alike in grouping.alike(records):
        keys = {record.run.key for record in alike}
        here = [[r for r in members if r.run.key in keys] for members in by_row.values()]
        here = [members for members in here if members]
        if len(here) < 3:
            continue
        count, whole, parts = _scored(here, load)
        ranked = np.isfinite(whole)
        if ranked.sum() < 3:
            continue
        cells = [_agreement(whole[ranked], part[:, ranked]) for part in parts]
        lines.append([f"{task[0]} {task[1]:,}", str(ranked.sum()), f"{count:,}", *cells])
    if not lines:
        return None
    columns = ["task", "methods", "items", *(f"{100 * part:g} %" for part in PARTS)]
    return Table("Cheap validation", columns, lines, 1, [_NOTE, convention.NOTE])


def _scored(here: list[list[Record]], load: Load) -> tuple[int, np.ndarray, np.ndarray]:
    """Mean primary scores of rows over their seeds, not a number where the labels are of one class.

    Returns:
        The number of examples; scores on all, (rows,); on parts of them, (parts, draws, rows).
    """
    answers = stacked([record for members in here for record in members], load)
    count = len(answers.label)
    chosen = np.zeros((len(PARTS) * DRAWS, count))
    for number, counts in enumerate(chosen):
        order = np.random.default_rng(number % DRAWS).permutation(count)
        counts[order[: max(2, round(PARTS[number // DRAWS] * count))]] = 1
    every = np.concatenate([np.ones((1, count)), chosen])
    metric = here[0][0].run.task.metrics[0]
    found = bootstrap.score(metric, answers.scores, answers.label, every)
    ends = np.cumsum([len(members) for members in here])
    mean = np.stack([part.mean(axis=1) for part in np.split(found, ends[:-1], axis=1)], axis=1)
    mean = mean.round(12)  # equal sums of seeds' scores are ties, in whatever order they are added
    return count, mean[0], mean[1:].reshape(len(PARTS), DRAWS, len(here))


def _agreement(whole: np.ndarray, draws: np.ndarray) -> str:
    """Tau-b of (rows,) scores with those of each draw (draws, rows), and how often the best won."""
    from scipy.stats import kendalltau

    taus, hits = [], []
    for found in draws[np.isfinite(draws).all(axis=1)]:
        tau = kendalltau(found, whole).statistic
        if np.isfinite(tau):
            taus.append(float(tau))
            hits.append(whole[found.argmax()] == whole.max())
    if not taus:
        return "–"
    spread = f" ± {statistics.stdev(taus):.2f}" if len(taus) > 1 else ""
    return f"{statistics.fmean(taus):.2f}{spread}, best {sum(hits)}/{len(hits)}"


_NOTE = (
    "Kendall's tau-b between the order of the score table's rows (by mean score over seeds) on a "
    "random part of the reporting split and on all of it, mean ± standard deviation over "
    f"{DRAWS} parts; best: in how many of these the winner on the part is the winner on all."
)
