"""How scores grow with data: every seed a dot, a line through the means."""

from collections import defaultdict

from peftbench import figure as drawing
from peftbench import rows
from peftbench.run import Record


def plot(records: list[Record]) -> bytes | None:
    """A PNG with a panel for each task, of methods that were run at several sizes; None if none."""
    ran = defaultdict(set)
    for record in records:
        pair = record.run.task["name"], record.run.method["name"]
        ran[pair].add(record.work["train_size"])
    grown = {pair for pair, found in ran.items() if len(found) > 1}
    records = [r for r in records if (r.run.task["name"], r.run.method["name"]) in grown]
    tasks = sorted({task for task, _ in grown})
    if not tasks:
        return None
    sizes = {task: {s for t, m in grown if t == task for s in ran[t, m]} for task in tasks}
    methods = rows.methods(
        (record.run.method["name"], record.parameters["trained"]) for record in records
    )
    figure, axes = drawing.panels(len(tasks))
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
            look = drawing.look(number)
            colour, mark = look["color"], look["marker"]
            places = sorted(points)
            means = [sum(points[place]) / len(points[place]) for place in places]
            axis.plot(places, means, color=colour, linewidth=1.8)
            axis.plot([], [], color=colour, linewidth=1.8, marker=mark, markersize=5, label=method)
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
        drawing.plain(axis, task, "training examples", f"{metric} (%)")
    drawing.legend(figure, axes, [*methods, "trivial"], most=8)
    return drawing.png(figure)
