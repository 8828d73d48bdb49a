"""How were learning rates chosen? Score by rate, the choice, its trials, what more would bring."""

from collections.abc import Iterable
from statistics import fmean, stdev
from typing import Any

from peftbench.analysis import grouping, trials
from peftbench.core.text import format_duration
from peftbench.core.tuning import FRACTION, STRATIFIED, TPE, UNREPORTED, Choice
from peftbench.metrics import task_metrics
from peftbench.reports.base import Report
from peftbench.reports.plotting import style as drawing
from peftbench.reports.plotting.palette import MarkerStyle, Palette
from peftbench.reports.plotting.style import Figure
from peftbench.reports.tables.markdown import Table

REPORT = Report(
    name="tuning",
    question="how were learning rates chosen?",
    order=120,
    tables=lambda inputs: tuning_tables(inputs.chosen, inputs.warning),
    figures=lambda inputs: plot_tuning(inputs.chosen, inputs.palette),
    needs="learning rates that `peftbench tune` chose",
    page=("costs", 3),
)

#: The column that counts rates, not trials.
_COLLAPSED = "rates with a collapsed trial"

#: Numbers of trials for which the expected best is shown.
_COUNTS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64)

#: Panels of one figure, and rows in each of them: more lines cannot be told apart.
_PAGE, _ROWS = 9, 6

_CAPTION = (
    f"Score on the {100 * FRACTION:.0f} % of the training examples that were held out, by learning "
    "rate: every trial a dot, open where it collapsed (one class or value throughout), lines "
    "through the means of rates of which no trial diverged. Ring: the chosen rate. Cross, at the "
    "bottom: a trial that diverged."
)

Cell = tuple[grouping.Row, grouping.Sized, Choice]


def tuning_tables(chosen: list[Choice], warning: str = "") -> list[Table]:
    """The choices, and what fewer trials would have found; none without choices.

    Args:
        warning: what must be said wherever costs are shown.
    """
    if not chosen:
        return []
    cells, split = _cells(chosen)
    # the rates of the others depend on each other
    drawn = [cell for cell in cells if cell[2].sampler == STRATIFIED]
    return [choice_table(chosen, warning), *([_expected_table(drawn, split)] if drawn else [])]


def _cells(chosen: list[Choice]) -> tuple[list[Cell], list[str]]:
    """Choices by row, task and size; and the settings that tell rows of one method apart."""
    by_row, split = grouping.grouped(chosen, lambda one: one.run, _sized, lambda one: 0)
    cells = [(row, _sized(one), one) for row, members in by_row.items() for one in members]
    return sorted(cells, key=lambda cell: (_place(cell[1]), list(by_row).index(cell[0]))), split


def _sized(choice: Choice) -> grouping.Sized:
    return choice.run.task.name, choice.run.counted_size


def _place(one: grouping.Sized) -> tuple[str, bool, float, str]:
    """Tasks by letter, sizes by number, those without one last."""
    task, size = one
    return (task, True, 0.0, size) if isinstance(size, str) else (task, False, float(size), "")


def choice_table(chosen: list[Choice], warning: str = "") -> Table:
    """The rates that were chosen, and from what; see `tuning_tables`."""
    cells, split = _cells(chosen)
    lines = []
    for row, (task, size), choice in cells:
        near, gone = trials.near_scores(choice), trials.failed_rates(choice)
        scores = [trial.score for trial in choice.trials if trial.rate == choice.rate]
        known = [score for score in scores if score is not None]
        told = _number(choice, fmean(known)) if known else "diverged"
        if len(known) > 1:
            told += f" ± {_number(choice, stdev(known))}"
        ends = [_number(choice, end) for end in (min(near), max(near))] if near else []
        lines.append(
            [
                *row,
                task,
                _size(size),
                format_rate(choice.rate) + (f" ({choice.edge})" if choice.edge else ""),
                f"{format_rate(min(choice.rates))} to {format_rate(max(choice.rates))} "
                f"({len(choice.rates)}{', tpe' * (choice.sampler == TPE)})",
                f"{choice.metric} {told} ({len(scores)})",
                " to ".join(dict.fromkeys(ends)) or "–",
                f"{gone} of {len(choice.rates)}" if gone else "",
                str(len(choice.trials)),
                format_duration(choice.seconds),
            ]
        )
    columns = ["method", *split, "task", "size", "train.lr", "of (rates)", "score (trials)"]
    columns += ["within a decade", _COLLAPSED, "trials", "time"]
    notes = [
        f"Scores of the primary metric on {100 * FRACTION:.0f} % of the training examples, held "
        f"out, ± standard deviation over trials. {UNREPORTED} Within a "
        "decade: lowest and highest mean score of the rates between a tenth of the chosen one and "
        "ten times it; one that was tried with one seed may lie above the chosen one, which was "
        "the best over all seeds. Rates with a collapsed trial: any trial predicts one class or "
        "value throughout, or diverges. Trials, time: of all rates."
        + " tpe: each rate was proposed by Optuna from the scores of those before."
        * any(choice.sampler == TPE for _, _, choice in cells)
    ]
    edges = [f"{_cell(cell)} ({cell[2].edge})" for cell in cells if cell[2].edge]
    dead = [_cell(cell) for cell in cells if cell[2].collapsed]
    if edges:
        notes.append(
            f"At the edge of what was tried: {'; '.join(edges)}. A better rate may lie beyond; "
            "name more: train.lr=…"
        )
    if dead:
        notes.append(
            f"All trials of the chosen rate collapsed, and no other rate scored above that (of "
            f"equal ones the least training loss decided): {'; '.join(dead)}. "
            "These rates say little; more data or passes may be needed before any rate is better."
        )
    if warning:
        notes.append(warning)
    return Table("Chosen learning rates", columns, lines, 3 + len(split), notes)


def _cell(cell: Cell) -> str:
    row, (task, size), _ = cell
    return f"{' '.join(row)} on {task} at {_size(size)}"


def _size(size: int | float | str) -> str:
    return f"{size:,}" if isinstance(size, int) else str(size)


def format_rate(rate: float) -> str:
    """Such as 7.2e-5, whatever its size, as a person would type it."""
    figures, exponent = f"{rate:e}".split("e")
    return f"{float(figures):g}e{int(exponent)}"


def _number(choice: Choice, score: float) -> str:
    factor = task_metrics.factor(choice.metric)
    return f"{factor * score:.{1 if factor == 100 else 3}f}"


def _expected_table(cells: list[Cell], split: list[str]) -> Table:
    """The expected best score of so many trials."""
    found = [trials.expected_best(choice) for _, _, choice in cells]
    counts = [n for n in _COUNTS if n <= max(map(len, found))]
    lines = [
        [
            *row,
            task,
            _size(size),
            *(_number(choice, best[n - 1]) if n <= len(best) else "" for n in counts),
        ]
        for (row, (task, size), choice), best in zip(cells, found, strict=True)
    ]
    note = (
        "The primary metric on what was held out, expected of the best of so many rates with one "
        "seed each, drawn independently from those of the first round (Dodge et al. 2019, arXiv "
        "1909.03004); a rate that diverged counts as the worst of the others. The best of few "
        "examples is flattered by chance."
    )
    columns = ["method", *split, "task", "size", *map(str, counts)]
    return Table("Expected best score by trials", columns, lines, 3 + len(split), [note])


def plot_tuning(chosen: list[Choice], palette: Palette) -> list[Figure]:
    """A panel for each task and size, a line for each row; more figures for more of either."""
    cells, split = _cells(chosen)
    labels = grouping.labels(dict.fromkeys(row for row, _, _ in cells), split)
    looks = palette.looks(labels.values())
    rows = list(labels)
    made: list[Figure] = []
    for first in range(0, len(rows), _ROWS):
        some = rows[first : first + _ROWS]
        panels: dict[grouping.Sized, list[Cell]] = {}
        for cell in cells:
            if cell[0] in some:
                panels.setdefault(cell[1], []).append(cell)
        every = list(panels)
        for start in range(0, len(every), _PAGE):
            here = every[start : start + _PAGE]
            figure = _figure(here, panels, labels, looks)
            made.append(Figure(figure, _CAPTION, f"{len(made) + 1}" if made else ""))
    return made


def _figure(
    here: list[grouping.Sized],
    panels: dict[grouping.Sized, list[Cell]],
    labels: dict[grouping.Row, str],
    looks: dict[str, MarkerStyle],
) -> Any:
    figure, axes = drawing.panels(len(here), 2.0)
    for (axis,), one in zip(axes, here, strict=True):
        metric = panels[one][0][2].metric
        unit = " (%)" if task_metrics.factor(metric) == 100 else ""
        drawing.plain(axis, grouping.title(one, panels), "learning rate", metric + unit)
        for row, _, choice in panels[one]:
            _line(axis, choice, looks[labels[row]], labels[row])
        drawing.decades(axis.xaxis)
        axis.xaxis.set_major_formatter(lambda rate, _: format_rate(rate))
    drawing.legend(figure, [axis for (axis,) in axes], list(labels.values()))
    return figure


def _line(axis: Any, choice: Choice, look: MarkerStyle, label: str) -> None:
    """Means, trials and the chosen rate of a choice."""
    factor = task_metrics.factor(choice.metric)
    scores = {
        rate: [trial.score for trial in made]
        for rate, made in trials.by_rate(choice.trials).items()
    }
    whole = {
        rate: factor * fmean(known)
        for rate, values in scores.items()
        if len(known := _known(values)) == len(values)
    }
    axis.plot([], [], label=label, **look | {"markersize": 2.6})  # the legend has the dots too
    axis.plot(list(whole), list(whole.values()), **look | {"marker": ""})
    colour = look["color"]
    for trial in choice.trials:
        if trial.score is None:
            at = axis.get_xaxis_transform()
            axis.plot([trial.rate], [0.03], "x", color=colour, transform=at, clip_on=False)
            continue
        face = "w" if trial.collapsed else colour
        axis.plot(
            [trial.rate],
            [factor * trial.score],
            look["marker"],
            color=colour,
            markerfacecolor=face,
            markersize=2.6,
            markeredgewidth=0.6,
            zorder=3,
        )
    if known := _known(scores[choice.rate]):
        ring = {"markersize": 8, "markerfacecolor": "none", "markeredgewidth": 1.2, "zorder": 4}
        axis.plot([choice.rate], [factor * fmean(known)], "o", color=colour, **ring)


def _known(scores: Iterable[float | None]) -> list[float]:
    return [score for score in scores if score is not None]
