"""How scores grow with data: every seed a dot, a line through the means."""

import io
from collections import defaultdict
from typing import Any

from peftbench.run import Record

#: Okabe and Ito's palette, which colour-blind readers can tell apart; marks differ as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKS = "osD^vP*X"


def plot(records: list[Record]) -> bytes | None:
    """A PNG with a panel for each task that was run at several sizes; None if there is none."""
    sizes = defaultdict(set)
    for record in records:
        sizes[record.run.task["name"]].add(record.work["train_size"])
    tasks = sorted(name for name, found in sizes.items() if len(found) > 1)
    if not tasks:
        return None
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    most: dict[str, int] = defaultdict(int)
    for record in records:
        name = record.run.method["name"]
        most[name] = max(most[name], record.parameters["trained"])
    methods = sorted(most, key=lambda name: (-most[name], name))
    figure, axes = plt.subplots(
        1, len(tasks), figsize=(4.2 * len(tasks), 3.6), squeeze=False, layout="constrained"
    )
    for axis, task in zip(axes[0], tasks, strict=True):
        here = [record for record in records if record.run.task["name"] == task]
        metric = here[0].run.task["metrics"][0]
        for number, method in enumerate(methods):
            points = defaultdict(list)
            for record in here:
                if record.run.method["name"] == method and record.score is not None:
                    points[record.work["train_size"]].append(100 * record.score)
            if not points:
                continue
            colour, mark = COLOURS[number % len(COLOURS)], MARKS[number % len(MARKS)]
            places = sorted(points)
            means = [sum(points[place]) / len(points[place]) for place in places]
            axis.plot(places, means, color=colour, linewidth=1.8, label=method)
            for place in places:
                nudge = 1 + 0.025 * (number - (len(methods) - 1) / 2)  # or the dots hide each other
                dots = points[place]
                axis.plot([place * nudge] * len(dots), dots, mark, color=colour, markersize=5)
        base = [level for record in here if (level := record.trivial[metric]) is not None]
        if base:
            level = 100 * sum(base) / len(base)
            axis.axhline(level, color="#777777", linestyle=":", linewidth=1.2, label="trivial")
        axis.set_xscale("log")
        axis.set_xticks(sorted(sizes[task]), [f"{size:,}" for size in sorted(sizes[task])])
        axis.minorticks_off()
        axis.set_title(task, fontsize=11)
        axis.set_xlabel("training examples")
        axis.set_ylabel(f"{metric} (%)")
        axis.grid(axis="y", color="#dddddd", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    named: dict[str, Any] = {}  # a method may be undefined on one task, the trivial line on another
    for axis in axes[0]:
        handles, labels = axis.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    order = [name for name in (*methods, "trivial") if name in named]
    figure.legend(
        [named[name] for name in order],
        order,
        loc="outside lower center",
        ncols=len(order),
        frameon=False,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()
