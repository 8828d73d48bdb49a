"""Trained here, tested there: task × target × method, with the model before training beside it."""

import statistics
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from peftbench.analysis import convention, grouping
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Json
from peftbench.metrics.base import CONSTANT_AUC
from peftbench.reports import glossary
from peftbench.reports.base import SuiteReport
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
        columns = _columns(section)
        lines = []
        for values, every in _before(section, ("suite",)).items():
            told = [e.findings["targets"] for e in every]
            constant = _across(told, columns, "trivial")
            lines.append([convention.BEST_CONSTANT, *values, *constant, "", ""])
        for values, every in _before(section, _starts(section)).items():
            told = [e.findings["targets"] for e in every]
            lines.append(["untrained", *values, *_across(told, columns, "untrained"), "", ""])
        for row, members in section.rows.items():
            told = [e.findings["targets"] for e in members]
            moved = [e.findings["moved"] for e in members]
            lines.append(
                [
                    *row,
                    *_across(told, columns, "scores"),
                    grouping.spread([one["relative"] for one in moved], 100, 2),
                    grouping.spread([one["inserted_l2"] for one in moved], 1),
                ]
            )
        heads = [
            head
            for one in columns
            for head in (f"{one.target} {one.metric}", *["gap"] * one.compared)
        ]
        notes = [lengths] if (lengths := _lengths(section)) else []
        made.append(
            Table(
                f"Trained on {section.title}",
                ["method", *section.split, *heads, "moved %", "inserted"],
                lines,
                1 + len(section.split),
                [*notes, _NOTE] if section is sections[-1] else notes,
            )
        )
    return made


_UNDEFINED = "Undefined scores of runs that give one answer throughout count as 0 (AUC: 50)."

_NOTE = (
    "Percent, mean ± standard deviation over seeds (number of seeds). Gap: the same metric at home "
    "less here, where home has it. Untrained: the pretrained model with the head that training "
    "started from. Moved: norm of the change of the pretrained weights over their norm; inserted: "
    "norm of what was added. Best constant: what one answer for all examples of a set scores, its "
    "own most frequent class (F1: the positive class), which nobody who trained elsewhere knows. "
    f"{_UNDEFINED}"
)


def _targets(section: grouping.TableSection) -> dict[str, str]:
    """The metric of each target."""
    found: dict[str, str] = {}
    for e in section.found:
        found |= {name: told["metric"] for name, told in e.findings["targets"].items()}
    return found


@dataclass(frozen=True)
class _Column:
    """Scores on a target by one metric.

    Attributes:
        target, metric: names.
        compared: whether it is the metric that is compared with home; else it stands beside that.
    """

    target: str
    metric: str
    compared: bool


def _columns(section: grouping.TableSection) -> list[_Column]:
    """The compared metric of each target, and the area under the ROC curve where it is another.

    Accuracy of a model that was not trained depends on how often it says yes; the area does not.
    """
    every = [e.findings["targets"] for e in section.found]
    found = []
    for name, metric in _targets(section).items():
        found.append(_Column(name, metric, True))
        if metric != "auc" and any("auc" in told[name]["scores"] for told in every if name in told):
            found.append(_Column(name, "auc", False))
    return found


def _lengths(section: grouping.TableSection) -> str:
    """How many generated texts are as long as they may be, by row; nothing without such targets."""
    rows = {"untrained": ("untrained", section.found)}
    labels = grouping.labels(section.rows, section.split)
    rows |= {labels[row]: ("trained", members) for row, members in section.rows.items()}
    told = []
    for label, (which, members) in rows.items():
        texts = [
            (target["texts"][which]["cut"], target["examples"])
            for e in members
            for target in e.findings["targets"].values()
            if "texts" in target
        ]
        if texts:
            cut, count = map(sum, zip(*texts, strict=True))
            told.append(f"{glossary.row(label)} {100 * cut / count:.0f} %")
    if not told:
        return ""
    return (
        "Generated texts of maximum length, which have a low ROUGE whatever they say: "
        f"{', '.join(told)}. No best constant is sought where texts are wanted."
    )


#: What the model before training depends on beside the seed: one for all methods that share these.
_STARTS = ("model", "prompt", "suite", "train.max_length", "train.precision")


def _starts(section: grouping.TableSection) -> tuple[str, ...]:
    """`_STARTS`, without the run's prompt where targets are asked in their own."""
    own = all(e.evaluation.suite.get("own_words") for e in section.found)
    return tuple(name for name in _STARTS if not (own and name == "prompt"))


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


def _across(told: list[Json], columns: list[_Column], which: str) -> list[str]:
    """Scores and gap of every target; the gap is that of the trained model alone."""
    cells = []
    for column in columns:
        here = [one[column.target] for one in told if column.target in one]
        if which == "trivial":
            levels = [_best_constant(one) if column.compared else CONSTANT_AUC for one in here]
            cells += [grouping.mean_and_deviation(levels)[0], *[""] * column.compared]
            continue
        cells.append(grouping.spread([target[which].get(column.metric) for target in here]))
        if not column.compared:
            continue
        gaps = [target["gap"] for target in here]
        known = which == "scores" and any(gap is not None for gap in gaps)
        cells.append(grouping.spread(gaps) if known else "")
    return cells


_CAPTION = (
    "Mean scores in percent, over seeds, on sets of texts that training did not see; colours span "
    "the scores of one set and metric, from the lowest (dark) to the highest. Untrained: the "
    f"model before training. {_UNDEFINED}"
)


def plot_shift(found: list[Evaluated], trained: dict[str, int], palette: Palette) -> list[Figure]:
    """A heat map for each task and size: method × targets."""
    sections = grouping.sections(found, trained)
    pictures = []
    for start in range(0, len(sections), 3):
        page = [(section, _heat(section)) for section in sections[start : start + 3]]
        most = max(len(lines) for _, lines in page)
        slanted = any(len(_targets(section)) > _SIDE_BY_SIDE for section, _ in page)
        height = (1.3 if slanted else 0.7) + 0.16 * most
        figure, axes = drawing.panels(len(page), height=height)
        for (axis,), (section, lines) in zip(axes, page, strict=True):
            labels = [[line.label for line in one] for one in (page[0][1], lines)]
            _map(axis, section, lines, named=labels[0] != labels[1] or axis is axes[0][0])
        pictures.append(Figure(figure, _CAPTION, f"{start // 3 + 1}" if start else ""))
    return pictures


@dataclass(frozen=True)
class _HeatLine:
    """A line of the heat map, the same in pictures and on the page.

    Attributes:
        label: of the line.
        method: None for what is no method.
        seeds: evaluations in it.
        scores: of each target, by seed.
    """

    label: str
    method: str | None
    seeds: int
    scores: list[list[float | None]]

    @property
    def means(self) -> list[float | None]:
        """Mean score of each target; None where there is none."""
        known = [[value for value in one if value is not None] for one in self.scores]
        return [statistics.fmean(one) if one else None for one in known]

    @property
    def texts(self) -> list[str]:
        """The means as tables print them."""
        return [grouping.mean_and_deviation(one)[0] for one in self.scores]


def _heat(section: grouping.TableSection) -> list[_HeatLine]:
    """Rows, then the best constant, then the models before training."""
    targets = _targets(section)

    def scores(members: list[Evaluated], pick: Callable[[Json, str], Any]) -> list[Any]:
        return [
            [pick(told[name], metric) for e in members if name in (told := e.findings["targets"])]
            for name, metric in targets.items()
        ]

    labels = grouping.labels(section.rows, section.split)
    lines = [
        _HeatLine(labels[row], row[0], len(members), scores(members, _scored))
        for row, members in section.rows.items()
    ]
    every = [e for members in section.rows.values() for e in members]
    constant = scores(every, lambda target, metric: _best_constant(target))
    lines.append(_HeatLine(convention.BEST_CONSTANT, None, len(every), constant))
    for values, found in _before(section, _starts(section)).items():
        label = ", ".join(["untrained", *filter(None, values)])
        lines.append(_HeatLine(label, None, len(found), scores(found, _untrained)))
    return lines


def _best_constant(target: Json) -> float | None:
    """None of sets of wanted texts, of which nobody looked for the best one."""
    found: float | None = None if "texts" in target else target["trivial"]
    return found


def _scored(target: Json, metric: str) -> float | None:
    found: float | None = target["scores"][metric]
    return found


def _untrained(target: Json, metric: str) -> float | None:
    found: float | None = target["untrained"][metric]
    return found


#: So many names of targets have room side by side below a panel.
_SIDE_BY_SIDE = 4


def _map(axis: Any, section: grouping.TableSection, lines: list[_HeatLine], named: bool) -> None:
    targets = _targets(section)
    means = [line.means for line in lines]
    columns = [[v for v in column if v is not None] for column in zip(*means, strict=True)]
    grid = np.full((len(lines), len(targets)), np.nan)
    for y, line in enumerate(lines):
        for x, (value, text) in enumerate(zip(means[y], line.texts, strict=True)):
            low, high = min(columns[x], default=0.0), max(columns[x], default=1.0)
            if value is not None:
                grid[y, x] = (value - low) / (high - low) if high > low else 0.5
            dark = grid[y, x] < 0.5
            axis.text(x, y, text, ha="center", va="center", color="w" if dark else "k", fontsize=6)
    axis.imshow(grid, cmap="cividis", aspect="auto", vmin=0, vmax=1)
    names = [
        f"{glossary.section(name).replace('_', ' ')}\n{glossary.metric(metric)}"
        for name, metric in targets.items()
    ]
    if len(names) > _SIDE_BY_SIDE:
        slanted = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
        axis.set_xticks(range(len(names)), [name.replace("\n", " ") for name in names], **slanted)
    else:
        axis.set_xticks(range(len(names)), [_wrapped(name, len(names)) for name in names])
    axis.set_yticks(range(len(lines)), [glossary.row(line.label) for line in lines])
    axis.set_title(f"trained on {glossary.section(section.title)}")
    axis.tick_params(length=0, labelleft=named)
    axis.spines[:].set_visible(False)


def _wrapped(name: str, columns: int) -> str:
    """Broken into lines that fit under a column."""
    width = max(8, 36 // columns)
    return "\n".join(line for part in name.split("\n") for line in textwrap.wrap(part, width))


def page_plots(found: list[Evaluated], trained: dict[str, int]) -> list[Json]:
    """A heat map: rows by targets, mean scores."""
    panels = []
    for part in grouping.sections(found, trained):
        heads = [f"{name} {metric}" for name, metric in _targets(part).items()]
        lines = [
            {
                "label": line.label,
                "method": line.method,
                "seeds": line.seeds,
                "cells": line.means,
                "texts": line.texts,
            }
            for line in _heat(part)
        ]
        panels.append({"title": part.title, "task": part.task.name, "heads": heads, "lines": lines})
    return [{"kind": "shift", "panels": panels}]
