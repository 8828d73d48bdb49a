"""Would a part of the validation split have ranked the methods alike? Kendall's tau by part.

A low-cost validation protocol: score on a fixed part, and know how far to trust the order.
"""

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from peftbench import metrics, rows
from peftbench.run import Record
from peftbench.table import Table

#: Parts of the reporting split, and how many draws of each.
PARTS = (0.05, 0.1, 0.2, 0.5)
DRAWS = 20


def table(records: list[Record], load: Callable[[Record], dict[str, np.ndarray]]) -> Table | None:
    """Mean tau-b over draws between the order of methods on a part and on all of the split.

    Args:
        records: of any tasks.
        load: predictions of a record.

    Returns:
        None where no task has three methods with a defined score.
    """
    from scipy.stats import kendalltau

    lines = []
    by_row, _ = rows.of_records(records)
    for task in sorted({rows.sized(record) for record in records}):
        here = {
            row: [record for record in members if rows.sized(record) == task]
            for row, members in by_row.items()
        }
        here = {row: members for row, members in here.items() if members}
        known = {r.run.key: load(r) for members in here.values() for r in members}
        whole = _means(here, known, None)
        ranked = [row for row in here if whole[row] is not None]
        if len(ranked) < 3:
            continue
        count = len(next(iter(known.values()))["label"])
        cells = []
        for part in PARTS:
            taus, hits = [], []
            for draw in range(DRAWS):
                items = np.random.default_rng(draw).permutation(count)[
                    : max(2, round(part * count))
                ]
                found = _means(here, known, items)
                if any(found[row] is None for row in ranked):
                    continue
                pairs = [(found[row], whole[row]) for row in ranked]
                tau = kendalltau(*zip(*pairs, strict=True)).statistic
                if np.isfinite(tau):
                    taus.append(float(tau))
                    best = max(ranked, key=lambda row: found[row])
                    hits.append(whole[best] == max(whole[row] for row in ranked))
            if taus:
                spread = f" ± {statistics.stdev(taus):.2f}" if len(taus) > 1 else ""
                cells.append(f"{statistics.fmean(taus):.2f}{spread}, best {sum(hits)}/{len(hits)}")
            else:
                cells.append("–")
        lines.append([f"{task[0]} {task[1]:,}", str(len(ranked)), f"{count:,}", *cells])
    if not lines:
        return None
    columns = ["task", "methods", "items", *(f"{100 * part:g} %" for part in PARTS)]
    return Table("Cheap validation", columns, lines, 1, [_NOTE])


_NOTE = (
    "Kendall's tau-b between the order of the score table's rows (by mean score over seeds) on a "
    "random part of the reporting split and on all of it, mean ± standard deviation over "
    f"{DRAWS} parts; best: in how many of these the winner on the part is the winner on all."
)


def _means(
    by_row: dict[rows.Row, list[Record]],
    known: dict[str, dict[str, np.ndarray]],
    items: np.ndarray | None,
) -> dict[rows.Row, Any]:
    """Mean primary score of each row on some items, None where one seed's is undefined."""
    found: dict[rows.Row, Any] = {}
    for row, members in by_row.items():
        values = []
        for record in members:
            arrays = known[record.run.key]
            scores, label = arrays["scores"], arrays["label"]
            if items is not None:
                scores, label = scores[items], label[items]
            name = record.run.task["metrics"][0]
            values.append(metrics.score([name], scores, label)[name])
        whole = [value for value in values if value is not None]
        found[row] = statistics.fmean(whole) if len(whole) == len(values) else None
    return found
