"""Trained here, tested there: task × target × method, with the model before training beside it."""

from typing import Any

from peftbench import figure as drawing
from peftbench import rows
from peftbench.evaluation import Evaluated
from peftbench.run import Json
from peftbench.table import Table

#: The suite whose findings these are.
SUITE = "peftbench.suites.shift.Shift"


def tables(found: list[Evaluated], trained: dict[str, int]) -> list[Table]:
    """One table a task and size: scores on each target, and how far the weights moved.

    Args:
        found: evaluations by the suite.
        trained: trained parameters of each run, by key.
    """
    made = []
    sections = rows.sections(found, trained)
    for section in sections:
        targets = _targets(section)
        lines = []
        for values, every in _before(section, ("suite",)).items():
            told = [e.findings["targets"] for e in every]
            lines.append(["trivial", *values, *_across(told, targets, "trivial"), "", ""])
        for values, every in _before(section, _STARTS).items():
            told = [e.findings["targets"] for e in every]
            lines.append(["untrained", *values, *_across(told, targets, "untrained"), "", ""])
        for row, members in section.rows.items():
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
                f"Trained on {section.title}",
                ["method", *section.split, *heads, "moved %", "inserted"],
                lines,
                1 + len(section.split),
                [_NOTE] if section is sections[-1] else [],
            )
        )
    return made


_NOTE = (
    "Percent, mean ± standard deviation over seeds (number of seeds). Gap: the same metric at home "
    "less here, where home has it. Untrained: the pretrained model with the head that training "
    "started from. Moved: norm of the change of the pretrained weights over their norm; inserted: "
    "norm of what was added."
)


def _targets(section: rows.Section) -> dict[str, str]:
    """The metric of each target."""
    found: dict[str, str] = {}
    for e in section.found:
        found |= {name: told["metric"] for name, told in e.findings["targets"].items()}
    return found


#: What the model before training depends on beside the seed: one for all methods that share these.
_STARTS = ("model", "form", "suite", "train.max_length", "train.precision")


def _before(section: rows.Section, which: tuple[str, ...]) -> dict[rows.Row, list[Evaluated]]:
    """One evaluation for each seed and its targets, by the values of the settings meant.

    The values stand in the columns of the section's settings, blank for the others.
    """
    found: dict[rows.Row, dict[tuple[Any, ...], Evaluated]] = {}
    for row, members in section.rows.items():
        pairs = zip(section.split, row[1:], strict=True)
        values = tuple(value if name.startswith(which) else "" for name, value in pairs)
        for e in members:
            seed = (e.evaluation.run.seed, *e.findings["targets"])
            found.setdefault(values, {})[seed] = e
    return {values: list(every.values()) for values, every in found.items()}


def _across(told: list[Json], targets: dict[str, str], which: str) -> list[str]:
    """Score and gap of every target; the gap is that of the trained model alone."""
    cells = []
    for name, metric in targets.items():
        here = [one[name] for one in told if name in one]
        if which == "trivial":
            level = here[0]["trivial"] if here else None
            cells += ["–" if level is None else f"{100 * level:.1f}", ""]
            continue
        cells.append(rows.spread([target[which][metric] for target in here]))
        gaps = [target["gap"] for target in here]
        known = which == "scores" and any(gap is not None for gap in gaps)
        cells.append(rows.spread(gaps) if known else "")
    return cells


def plot(found: list[Evaluated], trained: dict[str, int]) -> bytes | None:
    """A heat map for each task and size: method × targets, mean scores in percent."""
    sections = rows.sections(found, trained)
    most = max(len(section.rows) + len(_before(section, _STARTS)) for section in sections)
    width = 3.6 + 0.07 * max(map(len, rows.series(sections, trained)))
    figure, axes = drawing.panels(len(sections), width=width, height=1.2 + 0.34 * most)
    for axis, section in zip(axes[0], sections, strict=True):
        targets, labels = _targets(section), rows.labels(section.rows, section.split)
        lines = {labels[row]: ("scores", members) for row, members in section.rows.items()}
        lines |= {
            ", ".join(["untrained", *filter(None, values)]): ("untrained", every)
            for values, every in _before(section, _STARTS).items()
        }
        grid = [
            [
                _mean(
                    [
                        _of(e.findings["targets"][name], which, metric)
                        for e in members
                        if name in e.findings["targets"]
                    ]
                )
                for name, metric in targets.items()
            ]
            for which, members in lines.values()
        ]
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
        axis.set_yticks(range(len(lines)), list(lines), fontsize=9)
        axis.set_title(f"trained on {section.title}", fontsize=11)
        axis.tick_params(length=0)
    return drawing.png(figure)


def _of(target: Json, which: str, metric: str) -> float | None:
    found: float | None = target[which][metric]
    return found


def _mean(values: list[float | None]) -> float:
    """In percent; not a number where none is defined."""
    defined = [100 * value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else float("nan")
