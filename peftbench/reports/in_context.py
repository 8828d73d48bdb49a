"""What demonstrations at test time are worth: method × number of them, and a picture."""

from peftbench import figure as drawing
from peftbench import rows
from peftbench.evaluation import Evaluated
from peftbench.table import Table

#: The suite whose findings these are.
SUITE = "peftbench.suites.in_context.InContext"


def tables(found: list[Evaluated], trained: dict[str, int]) -> list[Table]:
    """For each task the score behind each number of demonstrations, and differences from none.

    Args:
        found: evaluations by the suite.
        trained: trained parameters of each run, by key.
    """
    made = []
    for task in sorted({e.evaluation.run.task["name"] for e in found}):
        here = [e for e in found if e.evaluation.run.task["name"] == task]
        counts = sorted({count for e in here for count in e.findings["counts"]})
        by_row, split = rows.grouped(
            here,
            lambda e: e.evaluation.run,
            lambda e: (e.evaluation.run.size,),
            lambda e: trained[e.evaluation.run.key],
        )
        lines = [
            [
                *row,
                *(rows.spread([_at(e, "scores", count) for e in members]) for count in counts),
                *(rows.spread([_at(e, "differences", n) for e in members]) for n in counts[1:]),
                f"{max(max(e.findings['truncated'].values()) for e in members)}",
            ]
            for row, members in by_row.items()
        ]
        differences = [f"{count} less 0" for count in counts[1:]]
        made.append(
            Table(
                f"In context: {task}, {here[0].findings['metric']}",
                ["method", *split, *map(str, counts), *differences, "cut"],
                lines,
                1 + len(split),
                [
                    "Percent, mean ± standard deviation over seeds (number of seeds), by the "
                    "number of demonstrations in front of every text at test time; the same ones "
                    "for all methods of a seed. Cut: texts of the worst case that had no room for "
                    "all of them (or for all of themselves)."
                ],
            )
        )
    return made


def plot(found: list[Evaluated], trained: dict[str, int]) -> bytes | None:
    """Score over the number of demonstrations: a panel a task, a line a method."""
    tasks = sorted({e.evaluation.run.task["name"] for e in found})
    methods = rows.methods(
        (e.evaluation.run.method["name"], trained[e.evaluation.run.key]) for e in found
    )
    figure, axes = drawing.panels(len(tasks))
    for axis, task in zip(axes[0], tasks, strict=True):
        here = [e for e in found if e.evaluation.run.task["name"] == task]
        for number, method in enumerate(methods):
            told = [e for e in here if e.evaluation.run.method["name"] == method]
            counts = sorted({count for e in told for count in e.findings["counts"]})
            curve = {
                count: [s for e in told if (s := _at(e, "scores", count)) is not None]
                for count in counts
            }
            places = [count for count in counts if curve[count]]
            means = [100 * sum(curve[count]) / len(curve[count]) for count in places]
            axis.plot(places, means, markersize=4, label=method, **drawing.look(number))
        label = f"{here[0].findings['metric']} (%)"
        drawing.plain(axis, task, "demonstrations at test time", label)
    drawing.legend(figure, axes, methods)
    return drawing.png(figure)


def _at(e: Evaluated, what: str, count: int) -> float | None:
    """A figure of one number of demonstrations; None where it was not asked, or is undefined."""
    counts: list[int] = e.findings["counts"]
    values: list[float | None] = e.findings[what]
    return values[counts.index(count)] if count in counts else None
