"""How do runs learn? Loss and score by optimizer step, where there are several evaluations."""

from peftbench.analysis import convention, grouping
from peftbench.core.run import Record
from peftbench.reports.base import Report
from peftbench.reports.plotting.line_plots import (
    LEAST_POINTS,
    Panel,
    Points,
    Series,
    curve_points,
    draw_line_plots,
    mean_curve,
)
from peftbench.reports.plotting.palette import Palette
from peftbench.reports.plotting.style import Figure

REPORT = Report(
    name="learning",
    question="training loss and score by step",
    order=8,
    figures=lambda inputs: plot_learning_curves(inputs.records, inputs.palette),
    needs=f"runs with at least {LEAST_POINTS} evaluations (train.num_evals)",
)

_CAPTION = (
    "{what} by optimizer step. Lines: means over seeds, where all seeds of a row have points; "
    "seeds are faint. {more}"
)
_LOSS = "Training loss, the mean since the evaluation before"
_OWN = "A loss holds a method's own penalties, so it compares within a method."
_SCORE = "Score of the evaluations during training, on the selection split where a run has one,"


def plot_learning_curves(records: list[Record], palette: Palette) -> list[Figure]:
    """Panels of a task and size: losses in one picture, scores in another."""
    sized = [one for one, _ in grouping.alike(records)]
    records = [record for record in records if len(record.curve) >= LEAST_POINTS]
    by_row, split = grouping.of_curves(records)
    labels = grouping.labels(by_row, split)
    parts = grouping.alike(records)
    made = []
    for what, told, more in (("loss", _LOSS, _OWN), ("score", _SCORE, convention.NOTE)):
        panels = []
        for one, members in parts:
            here = {record.run.key for record in members}
            metric = members[0].run.task.metrics[0]
            series = {}
            for row, every in by_row.items():
                seeds = [_points(r, what, metric) for r in every if r.run.key in here]
                if any(seeds):
                    series[labels[row]] = Series(mean_curve(seeds), list(filter(None, seeds)))
            y = "training loss" if what == "loss" else f"{metric} (%)"
            title = grouping.title(one, sized)
            if series:
                panels.append(Panel(title, "step", y, series, joined=True, loss=what == "loss"))
        order = [label for label in labels.values() if any(label in p.series for p in panels)]
        caption = _CAPTION.format(what=told, more=more)
        for picture in draw_line_plots(panels, palette, order, caption.strip()):
            part = f"{what}_{picture.part}" if picture.part else what
            made.append(Figure(picture.figure, picture.caption, part))
    return made


def _points(record: Record, what: str, metric: str) -> Points:
    if what == "loss":
        return curve_points(record.curve, "step", "loss")
    return curve_points(record.curve, "step", metric, 100)
