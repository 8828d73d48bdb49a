"""How do scores grow with data? Every seed a dot, lines through the means, bars of the spread."""

import statistics

from peftbench.analysis import convention, failures, grouping
from peftbench.analysis.failures import Diverged
from peftbench.core.run import Record
from peftbench.metrics import task_metrics
from peftbench.reports.base import Report
from peftbench.reports.plotting.line_plots import Panel, Series, draw_line_plots
from peftbench.reports.plotting.palette import Palette
from peftbench.reports.plotting.style import Figure

REPORT = Report(
    name="sizes",
    question="how do scores grow with data?",
    order=4,
    figures=lambda inputs: plot_sizes(inputs.records, inputs.palette, inputs.diverged),
    needs="a method and its settings at two data sizes of one task",
    after_run=True,
)

_CAPTION = (
    "Score by training examples (logarithmic): every seed a dot, open where it collapsed, lines "
    "through the means, bars of one standard deviation over seeds within the range of the metric; "
    "dots at one size are moved apart a little. {also}{level}"
    f"{convention.NOTE}"
)


def plot_sizes(
    records: list[Record], palette: Palette, diverged: Diverged | None = None
) -> list[Figure]:
    """A panel for each task, a line for each row that was run at several sizes."""
    by_row, split = grouping.of_records(records)
    tasks = sorted({record.run.task.name for record in records})
    grown = [row for row, r in by_row.items() if any(len(_sizes(_of(r, t))) > 1 for t in tasks)]
    labels = grouping.labels(grown, split)
    panels, also = [], set()
    for task in tasks:
        found = {row: _of(members, task) for row, members in by_row.items()}
        found = {row: here for row, here in found.items() if len(_sizes(here)) > 1}
        if not found:
            continue
        every = [record for here in found.values() for record in here]
        metric = every[0].run.task.metrics[0]
        sizes = _sizes(every)
        base = [
            (n, 100 * level)
            for n in sizes
            if (level := convention.baseline((r for r in every if _size(r) == n), metric))
            is not None
        ]
        every_row = {labels[row]: _series(here) for row, here in found.items()}
        series = {label: one for label, one in every_row.items() if one.mean}
        if not series:
            continue
        also |= {name for here in found.values() for name in _differs(here)}
        panels.append(
            Panel(
                title=task,
                x="training examples",
                y=f"{metric} (%)",
                series=series,
                level=list(base),
                places=sizes,
                span=_span(metric),
            )
        )
    told = f"Along the lines these differ too: {', '.join(sorted(also))}. " if also else ""
    dotted = f"Dotted: the {convention.BASELINE}. "
    dotted = dotted if any(panel.level for panel in panels) else ""
    gone = failures.diverged_told([r.run for r in records], diverged or Diverged())
    caption = " ".join([_CAPTION.format(also=told, level=dotted), *gone])
    return draw_line_plots(panels, palette, list(labels.values()), caption)


def _of(records: list[Record], task: str) -> list[Record]:
    return [record for record in records if record.run.task.name == task]


def _sizes(records: list[Record]) -> list[int]:
    return sorted({record.work["train_size"] for record in records})


def _series(records: list[Record]) -> Series:
    known: dict[int, list[tuple[float, bool]]] = {}
    for record in records:
        if record.score is not None:
            known.setdefault(_size(record), []).append((100 * record.score, record.collapsed))
    places = sorted(known)
    scores = {place: [score for score, _ in known[place]] for place in places}
    return Series(
        [(place, _mean(scores[place])) for place in places],
        [[(place, score)] for place in places for score in scores[place]],
        [statistics.stdev(s) if len(s := scores[place]) > 1 else None for place in places],
        collapsed=[gone for place in places for _, gone in known[place]],
    )


def _span(metric: str) -> tuple[float, float]:
    """The range of a metric as it is shown."""
    low, high = task_metrics.score_range(metric)
    return task_metrics.factor(metric) * low, task_metrics.factor(metric) * high


def _size(record: Record) -> int:
    size: int = record.work["train_size"]
    return size


def _mean(values: list[float]) -> float:
    return statistics.fmean(values)


def _differs(records: list[Record]) -> set[str]:
    """Settings that are not the same at all sizes."""
    found = [grouping.settings(record.run) for record in records]
    return {name for name in found[0] if len({str(one.get(name)) for one in found}) > 1}
