"""Would a part of the validation split have ranked the methods alike? Kendall's tau by part.

A low-cost validation protocol: score on a fixed part, and know how far to trust the order.
"""

import statistics
from collections.abc import Callable

import numpy as np

from peftbench import metrics
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
    for task in sorted({_sized(record) for record in records}):
        here = [record for record in records if _sized(record) == task]
        methods = sorted({record.run.method["name"] for record in here})
        known = {record.run.key: load(record) for record in here}
        whole = _means(here, known, None)
        ranked = [name for name in methods if whole.get(name) is not None]
        if len(ranked) < 3:
            continue
        count = len(known[here[0].run.key]["label"])
        cells = []
        for part in PARTS:
            taus, hits = [], []
            for draw in range(DRAWS):
                items = np.random.default_rng(draw).permutation(count)[
                    : max(2, round(part * count))
                ]
                found = _means(here, known, items)
                if any(found.get(name) is None for name in ranked):
                    continue
                pairs = [(found[name], whole[name]) for name in ranked]
                tau = kendalltau(*zip(*pairs, strict=True)).statistic
                if np.isfinite(tau):
                    taus.append(float(tau))
                    best = max(ranked, key=lambda name: found[name] or 0.0)
                    hits.append(whole[best] == max(whole[name] or 0.0 for name in ranked))
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
    f"Kendall's tau-b between the order of the methods (by mean score over seeds) on a random part "
    f"of the reporting split and on all of it, mean ± standard deviation over {DRAWS} parts; best: "
    "in how many of these the winner on the part is the winner on all."
)


def _means(
    records: list[Record], known: dict[str, dict[str, np.ndarray]], items: np.ndarray | None
) -> dict[str, float | None]:
    """Mean primary score of each method on some items, None where one seed's is undefined."""
    found: dict[str, list[float | None]] = {}
    for record in records:
        arrays = known[record.run.key]
        scores, label = arrays["scores"], arrays["label"]
        if items is not None:
            scores, label = scores[items], label[items]
        name = record.run.task["metrics"][0]
        value = metrics.score([name], scores, label)[name]
        found.setdefault(record.run.method["name"], []).append(value)
    whole = {name: [v for v in values if v is not None] for name, values in found.items()}
    return {
        name: statistics.fmean(defined) if len(defined) == len(found[name]) else None
        for name, defined in whole.items()
    }


def _sized(record: Record) -> tuple[str, int]:
    return record.run.task["name"], record.work["train_size"]
