"""What noise in the text costs each method: method × kind of noise, and a picture of the curves."""

from peftbench import figure as drawing
from peftbench import rows
from peftbench.evaluation import Evaluated
from peftbench.table import Table

#: The suite whose findings these are.
SUITE = "peftbench.suites.noise.Noise"


def tables(found: list[Evaluated], trained: dict[str, int]) -> list[Table]:
    """For each task the clean score, the area under the intensity curve, and drops by kind.

    Args:
        found: evaluations by the suite.
        trained: trained parameters of each run, by key.
    """
    made = []
    for task in sorted({e.evaluation.run.task["name"] for e in found}):
        here = [e for e in found if e.evaluation.run.task["name"] == task]
        kinds = list(dict.fromkeys(kind for e in here for kind in e.findings["kinds"]))
        by_row, split = rows.grouped(
            here,
            lambda e: e.evaluation.run,
            lambda e: (e.evaluation.run.size,),
            lambda e: trained[e.evaluation.run.key],
        )
        lines = []
        for row, members in by_row.items():
            told = [e.findings for e in members]
            drops = [
                rows.spread([(one["kinds"].get(kind) or {}).get("drop") for one in told])
                for kind in kinds
            ]
            flips = [
                sum(kind["flips"][-1] for kind in one["kinds"].values()) / len(one["kinds"])
                for one in told
            ]
            classes = members[0].evaluation.run.task["classes"] > 1
            lines.append(
                [
                    *row,
                    rows.spread([one["clean"] for one in told]),
                    rows.spread([one["area"] for one in told]),
                    rows.spread([one["worst"] for one in told]),
                    rows.spread(flips) if classes else rows.spread(flips, 1, 2),
                    *drops,
                ]
            )
        metric = here[0].findings["metric"]
        moved = "answers that flip" if here[0].evaluation.run.task["classes"] > 1 else "mean change"
        made.append(
            Table(
                f"Noise: {task}, {metric}",
                ["method", *split, "clean", "under noise", "worst kind", moved, *kinds],
                lines,
                1 + len(split),
                [
                    "Percent, mean ± standard deviation over seeds (number of seeds). Under noise: "
                    "the mean height of the score over intensity, 0 to 1, over all kinds. The "
                    "columns of kinds hold the drop from the clean score at the highest intensity; "
                    f"{moved}: the mean over kinds there."
                ],
            )
        )
    return made


def plot(found: list[Evaluated], trained: dict[str, int]) -> bytes | None:
    """Score over intensity, the mean of all kinds: a panel a task, a line a method."""
    tasks = sorted({e.evaluation.run.task["name"] for e in found})
    methods = rows.methods(
        (e.evaluation.run.method["name"], trained[e.evaluation.run.key]) for e in found
    )
    figure, axes = drawing.panels(len(tasks))
    for axis, task in zip(axes[0], tasks, strict=True):
        for number, method in enumerate(methods):
            curves = [
                _curve(e)
                for e in found
                if (e.evaluation.run.task["name"], e.evaluation.run.method["name"])
                == (task, method)
            ]
            whole = [curve for curve in curves if None not in curve]
            if not whole:
                continue
            places = [0.0, *_intensities(found, task)]
            means = [100 * sum(points) / len(points) for points in zip(*whole, strict=True)]
            axis.plot(places, means, markersize=4, label=method, **drawing.look(number))
        metric = next(e.findings["metric"] for e in found if e.evaluation.run.task["name"] == task)
        drawing.plain(axis, task, "intensity of noise", f"{metric} (%), mean over kinds")
    drawing.legend(figure, axes, methods)
    return drawing.png(figure)


def _intensities(found: list[Evaluated], task: str) -> list[float]:
    first = next(e for e in found if e.evaluation.run.task["name"] == task)
    intensities: list[float] = first.findings["intensities"]
    return intensities


def _curve(e: Evaluated) -> list[float | None]:
    """The clean score, then at each intensity the mean over kinds, None where one is undefined."""
    columns = zip(*(kind["scores"] for kind in e.findings["kinds"].values()), strict=True)
    means = [None if None in column else sum(column) / len(column) for column in columns]
    return [e.findings["clean"], *means]
