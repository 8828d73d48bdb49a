"""Trained here, tested there: task × target × method, with the model before training beside it."""

from peftbench import figure as drawing
from peftbench import rows
from peftbench.evaluation import Evaluated
from peftbench.run import Json
from peftbench.table import Table

#: The suite whose findings these are.
SUITE = "peftbench.suites.shift.Shift"


def tables(found: list[Evaluated], trained: dict[str, int]) -> list[Table]:
    """One table a task: what its models score on each target, and how far their weights moved.

    Args:
        found: evaluations by the suite.
        trained: trained parameters of each run, by key.
    """
    made = []
    for task in sorted({e.evaluation.run.task["name"] for e in found}):
        here = [e for e in found if e.evaluation.run.task["name"] == task]
        targets: dict[str, str] = {}
        for e in here:
            targets |= {name: told["metric"] for name, told in e.findings["targets"].items()}
        by_row, split = rows.grouped(
            here,
            lambda e: e.evaluation.run,
            lambda e: (e.evaluation.run.size,),
            lambda e: trained[e.evaluation.run.key],
        )
        # the model before training is one for all methods: once for each seed and target
        every = list({(e.evaluation.run.seed, *e.findings["targets"]): e for e in here}.values())
        before = [e.findings["targets"] for e in every]
        blank = [""] * len(split)
        lines = [
            ["trivial", *blank, *_across(before, targets, "trivial"), "", ""],
            ["untrained", *blank, *_across(before, targets, "untrained"), "", ""],
        ]
        for row, members in by_row.items():
            told = [e.findings["targets"] for e in members]
            moved = [e.findings["moved"] for e in members]
            lines.append(
                [
                    *row,
                    *_across(told, targets, "scores"),
                    rows.spread([one["relative"] for one in moved], 100, 2),
                    rows.spread([one["inserted_l2"] for one in moved], 1),
                ]
            )
        heads = [head for name, metric in targets.items() for head in (f"{name} {metric}", "gap")]
        made.append(
            Table(
                f"Trained on {task}",
                ["method", *split, *heads, "moved %", "inserted"],
                lines,
                1 + len(split),
                [
                    "Percent, mean ± standard deviation over seeds (number of seeds). Gap: the "
                    "same metric at home less here, where home has it. Untrained: the pretrained "
                    "model with the head that training started from. Moved: norm of the change of "
                    "the pretrained weights over their norm; inserted: norm of what was added."
                ],
            )
        )
    return made


def _across(told: list[Json], targets: dict[str, str], which: str) -> list[str]:
    """Score and gap of every target; the gap is that of the trained model alone."""
    cells = []
    for name, metric in targets.items():
        here = [one[name] for one in told if name in one]
        if which == "trivial":
            level = here[0]["trivial"]
            cells += ["–" if level is None else f"{100 * level:.1f}", ""]
            continue
        cells.append(rows.spread([target[which][metric] for target in here]))
        gaps = [target["gap"] for target in here]
        known = which == "scores" and any(gap is not None for gap in gaps)
        cells.append(rows.spread(gaps) if known else "")
    return cells


def plot(found: list[Evaluated], trained: dict[str, int]) -> bytes | None:
    """A heat map for each task: method × home and targets, mean scores in percent."""
    tasks = sorted({e.evaluation.run.task["name"] for e in found})
    names = ((e.evaluation.run.method["name"], trained[e.evaluation.run.key]) for e in found)
    methods = [*rows.methods(names), "untrained"]
    figure, axes = drawing.panels(len(tasks), width=4.6, height=1.2 + 0.34 * len(methods))
    for axis, task in zip(axes[0], tasks, strict=True):
        here = [e for e in found if e.evaluation.run.task["name"] == task]
        targets: dict[str, str] = {}
        for e in here:
            targets |= {name: told["metric"] for name, told in e.findings["targets"].items()}
        grid = []
        for method in methods:
            which = "untrained" if method == "untrained" else "scores"
            mine = [
                e for e in here if which == "untrained" or e.evaluation.run.method["name"] == method
            ]
            grid.append(
                [
                    _mean([_of(e.findings["targets"][name], which, metric) for e in mine])
                    for name, metric in targets.items()
                ]
            )
        axis.imshow(grid, cmap="cividis", aspect="auto")
        low = min((v for line in grid for v in line if v == v), default=0.0)
        high = max((v for line in grid for v in line if v == v), default=1.0)
        for y, line in enumerate(grid):
            for x, value in enumerate(line):
                dark = value < (low + high) / 2
                text = "–" if value != value else f"{value:.1f}"
                axis.text(
                    x, y, text, ha="center", va="center", color="w" if dark else "k", fontsize=9
                )
        axis.set_xticks(range(len(targets)), [f"{n}\n{m}" for n, m in targets.items()], fontsize=9)
        axis.set_yticks(range(len(methods)), methods, fontsize=9)
        axis.set_title(f"trained on {task}", fontsize=11)
        axis.tick_params(length=0)
    return drawing.png(figure)


def _of(target: Json, which: str, metric: str) -> float | None:
    found: float | None = target[which][metric]
    return found


def _mean(values: list[float | None]) -> float:
    """In percent; not a number where none is defined."""
    defined = [100 * value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else float("nan")
