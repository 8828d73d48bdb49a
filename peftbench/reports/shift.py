"""Trained here, tested there: task × target × method, with the model before training beside it."""

import textwrap
from typing import Any

from peftbench.analysis import convention, grouping
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Json
from peftbench.reports.base import SuiteReport
from peftbench.reports.plotting import page_panels
from peftbench.reports.plotting import style as drawing
from peftbench.reports.plotting.palette import Palette
from peftbench.reports.plotting.style import Figure
from peftbench.reports.tables.markdown import Table

REPORT = SuiteReport(
    suite="Shift",
    tables=lambda found, trained: tables(found, trained),
    figures=lambda found, trained, palette: plot_shift(found, trained, palette),
    page_plots=lambda found, trained: page_plots(found, trained),
)


def tables(found: list[Evaluated], trained: dict[str, int]) -> list[Table]:
    """One table a task and size: scores on each target, and how far the weights moved.

    Args:
        found: evaluations by the suite.
        trained: trained parameters of each run, by key.
    """
    made = []
    sections = grouping.sections(found, trained)
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
                    grouping.spread([one["relative"] for one in moved], 100, 2),
                    grouping.spread([one["inserted_l2"] for one in moved], 1),
                ]
            )
        heads = [head for name, metric in targets.items() for head in (f"{name} {metric}", "gap")]
        made.append(
            Table(
                f"Trained on {section.title}",
                ["method", *section.split, *heads, "moved %", "inserted"],
                lines,
                1 + len(section.split),
                [_NOTE, convention.NOTE] if section is sections[-1] else [],
            )
        )
    return made


_NOTE = (
    "Percent, mean ± standard deviation over seeds (number of seeds). Gap: the same metric at home "
    "less here, where home has it. Untrained: the pretrained model with the head that training "
    "started from. Moved: norm of the change of the pretrained weights over their norm; inserted: "
    "norm of what was added."
)


def _targets(section: grouping.TableSection) -> dict[str, str]:
    """The metric of each target."""
    found: dict[str, str] = {}
    for e in section.found:
        found |= {name: told["metric"] for name, told in e.findings["targets"].items()}
    return found


#: What the model before training depends on beside the seed: one for all methods that share these.
_STARTS = ("model", "prompt", "suite", "train.max_length", "train.precision")


def _before(
    section: grouping.TableSection, which: tuple[str, ...]
) -> dict[grouping.Row, list[Evaluated]]:
    """One evaluation for each seed and its targets, by the values of the settings meant.

    The values stand in the columns of the section's settings, blank for the others.
    """
    found: dict[grouping.Row, dict[tuple[Any, ...], Evaluated]] = {}
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
        cells.append(grouping.spread([target[which][metric] for target in here]))
        gaps = [target["gap"] for target in here]
        known = which == "scores" and any(gap is not None for gap in gaps)
        cells.append(grouping.spread(gaps) if known else "")
    return cells


_CAPTION = (
    "Mean scores in percent, over seeds, on sets of texts that training did not see; colours span "
    "the scores of one set and metric, from the lowest (dark) to the highest. Untrained: the "
    "model before training. –: undefined for every seed, they predict one class throughout."
)


def plot_shift(found: list[Evaluated], trained: dict[str, int], palette: Palette) -> list[Figure]:
    """A heat map for each task and size: method × targets."""
    sections = grouping.sections(found, trained)
    pictures = []
    for start in range(0, len(sections), 3):
        page = [(section, _lines(section)) for section in sections[start : start + 3]]
        most = max(len(lines) for _, lines in page)
        figure, axes = drawing.panels(len(page), height=0.7 + 0.16 * most)
        for (axis,), (section, lines) in zip(axes, page, strict=True):
            _map(
                axis, section, lines, named=page[0][1].keys() != lines.keys() or axis is axes[0][0]
            )
        pictures.append(Figure(figure, _CAPTION, f"{start // 3 + 1}" if start else ""))
    return pictures


def _lines(section: grouping.TableSection) -> dict[str, tuple[str, list[Evaluated]]]:
    """What stands in each line, by its label: which scores, of which evaluations."""
    labels = grouping.labels(section.rows, section.split)
    lines = {labels[row]: ("scores", members) for row, members in section.rows.items()}
    return lines | {
        ", ".join(["untrained", *filter(None, values)]): ("untrained", every)
        for values, every in _before(section, _STARTS).items()
    }


def _map(
    axis: Any,
    section: grouping.TableSection,
    lines: dict[str, tuple[str, list[Evaluated]]],
    named: bool,
) -> None:
    targets = _targets(section)
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
    columns = [[value for value in column if value == value] for column in zip(*grid, strict=True)]
    for y, line in enumerate(grid):
        for x, value in enumerate(line):
            low, high = min(columns[x], default=0.0), max(columns[x], default=1.0)
            part = (value - low) / (high - low) if high > low else 0.5
            text = "–" if value != value else f"{value:.1f}"
            dark = value == value and part < 0.5
            axis.text(x, y, text, ha="center", va="center", color="w" if dark else "k", fontsize=6)
            grid[y][x] = part
    axis.imshow(grid, cmap="cividis", aspect="auto", vmin=0, vmax=1)
    names = [f"{name.replace('_', ' ')}\n{metric}" for name, metric in targets.items()]
    axis.set_xticks(range(len(targets)), [_wrapped(name, len(names)) for name in names])
    axis.set_yticks(range(len(lines)), list(lines))
    axis.set_title(f"trained on {section.title}")
    axis.tick_params(length=0, labelleft=named)
    axis.spines[:].set_visible(False)


def _wrapped(name: str, columns: int) -> str:
    """Broken into lines that fit under a column."""
    width = max(8, 36 // columns)
    return "\n".join(line for part in name.split("\n") for line in textwrap.wrap(part, width))


def _of(target: Json, which: str, metric: str) -> float | None:
    found: float | None = target[which][metric]
    return found


def _mean(values: list[float | None]) -> float:
    """In percent; not a number where none is defined."""
    defined = [100 * value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else float("nan")


def page_plots(found: list[Evaluated], trained: dict[str, int]) -> list[Json]:
    """A heat map: rows by targets, mean scores."""
    panels = []
    for part in grouping.sections(found, trained):
        targets: dict[str, str] = {}
        for e in part.found:
            targets |= {name: told["metric"] for name, told in e.findings["targets"].items()}
        labels = grouping.labels(part.rows, part.split)
        lines = []
        for row, members in part.rows.items():
            scores = [
                page_panels.mean(
                    [
                        e.findings["targets"][name]["scores"][metric]
                        for e in members
                        if name in e.findings["targets"]
                    ]
                )
                for name, metric in targets.items()
            ]
            line = {"label": labels[row], "method": row[0], "seeds": len(members)}
            lines.append(line | {"cells": scores})
        heads = [f"{name} {metric}" for name, metric in targets.items()]
        told = {
            name: [e.findings["targets"][name] for e in part.found if name in e.findings["targets"]]
            for name in targets
        }
        trivial = [page_panels.mean([one["trivial"] for one in told[name]]) for name in targets]
        lines.append({"label": "constant answer", "method": None, "cells": trivial})
        if len({e.evaluation.run.model.name for e in part.found}) == 1:
            before = [
                page_panels.mean([one["untrained"][metric] for one in told[name]])
                for name, metric in targets.items()
            ]
            lines.append({"label": "before training", "method": None, "cells": before})
        panels.append({"title": part.title, "task": part.task.name, "heads": heads, "lines": lines})
    return [{"kind": "shift", "panels": panels}]
