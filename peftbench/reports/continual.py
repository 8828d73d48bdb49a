"""What rounds do: the score after each, what was forgotten, training on all at once beside it."""

import statistics
from collections.abc import Callable
from itertools import accumulate

from peftbench.analysis import convention, grouping
from peftbench.analysis.grouping import TableSection
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Json
from peftbench.reports.base import SuiteReport
from peftbench.reports.plotting import page_panels
from peftbench.reports.plotting.line_plots import Panel, Series, draw_line_plots, mean_curve
from peftbench.reports.plotting.page_panels import Line
from peftbench.reports.plotting.palette import Palette
from peftbench.reports.plotting.style import Figure
from peftbench.reports.tables.markdown import Table

REPORT = SuiteReport(
    suite="Continual",
    tables=lambda found, trained: tables(found, trained),
    figures=lambda found, trained, palette: plot_continual(found, trained, palette),
    page_plots=lambda found, trained: page_plots(found, trained),
)

_NOTE = (
    "Percent, mean ± standard deviation over seeds (number of seeds). {columns}; in the end: the "
    "mean over the {what}; what they gained since their own round (backward transfer); what they "
    "lost since their best (forgetting)."
)
_CHUNKS = (
    "The score on the reporting split after each round, by the training examples so far; at once: "
    "one training on the examples of all rounds"
)
_TASKS = "The score on each task after the last round; alone: after the first"

_MEASURES = ("average", "backward_transfer", "forgetting")


def tables(found: list[Evaluated], trained: dict[str, int]) -> list[Table]:
    """For each task and division into rounds: scores over the rounds by method.

    Args:
        found: evaluations by the suite.
        trained: trained parameters of each run, by key.
    """
    made = []
    for names, part in _parts(found, trained):
        metric = part.task.metrics[0]
        if _is_sequence(part):
            title, note, what = f"Continual: {', then '.join(names)}", _TASKS, "tasks"
            shown = [*(f"{name} in the end" for name in names), f"{names[0]} alone"]
        else:
            title, note, what = f"Continual: {part.title}, {metric}", _CHUNKS, "chunks"
            shown = [*(f"{count:,}" for count in _so_far(names)), "at once"]
        columns = ["method", *part.split, *shown, "average", "backward transfer", "forgetting"]
        lines = [[*row, *map(grouping.spread, _columns(here))] for row, here in part.rows.items()]
        told = [_NOTE.format(columns=note, what=what), convention.NOTE]
        made.append(Table(title, columns, lines, 1 + len(part.split), told))
    return made


_CAPTION = (
    "Score on the reporting split by the training examples so far: means over seeds; seeds are "
    "faint. The open mark at the right is one training on all of them at once."
)


def plot_continual(
    found: list[Evaluated], trained: dict[str, int], palette: Palette
) -> list[Figure]:
    """A panel for each task, size and division; sequences of tasks have a table only."""
    parts = [(names, part) for names, part in _parts(found, trained) if not _is_sequence(part)]
    panels = []
    for names, part in parts:
        seen = _so_far(names)
        series = {}
        for row, label in grouping.labels(part.rows, part.split).items():
            columns = _columns(part.rows[row])[: len(seen) + 1]
            if any(value is None for column in columns for value in column):
                continue
            seeds = [
                [(float(x), 100 * y) for x, y in zip(seen, scores, strict=False)]
                for scores in zip(*columns[:-1], strict=True)
            ]
            at_once = 100 * statistics.fmean(score for score in columns[-1] if score is not None)
            series[label] = Series(mean_curve(seeds), seeds, after=at_once)
        x, y = "training examples so far", f"{part.task.metrics[0]} (%)"
        if series:
            panels.append(Panel(part.title, x, y, series, places=seen, joined=True))
    order = grouping.series([part for _, part in parts], trained)
    return draw_line_plots(panels, palette, order, _CAPTION)


def _parts(
    found: list[Evaluated], trained: dict[str, int]
) -> list[tuple[tuple[str, ...], TableSection]]:
    """Evaluations by their division into rounds (examples or tasks), task and size."""
    divided: dict[tuple[str, ...], list[Evaluated]] = {}
    for e in found:
        divided.setdefault(tuple(map(str, e.findings["names"])), []).append(e)
    return [
        (names, part)
        for names in sorted(divided)
        for part in grouping.sections(divided[names], trained)
    ]


def _is_sequence(part: TableSection) -> bool:
    """Whether rounds are tasks, whose names may be digits, and not chunks of one."""
    return next(iter(part.rows.values()))[0].findings["validation"] is None


def _so_far(chunks: tuple[str, ...]) -> list[int]:
    return list(accumulate(map(int, chunks)))


def _columns(found: list[Evaluated]) -> list[list[float | None]]:
    """Scores over the rounds (or tasks), the reference, the measures; each over the seeds."""
    told = [e.findings for e in found]
    over = [one["validation"] or one["scores"][-1] for one in told]
    return [
        *map(list, zip(*over, strict=True)),
        [one["joint"] for one in told],
        *([one[name] for one in told] for name in _MEASURES),
    ]


def page_plots(found: list[Evaluated], trained: dict[str, int]) -> list[Json]:
    """The score after each round, and what was forgotten by then."""
    divided: dict[tuple[str, ...], list[Evaluated]] = {}
    for e in found:
        divided.setdefault(tuple(map(str, e.findings["names"])), []).append(e)
    scores, forgotten = [], []
    for names, members in sorted(divided.items()):
        for part in grouping.sections(members, trained):
            chunks = part.found[0].findings["validation"] is not None
            seen = [*accumulate(map(int, names))] if chunks else [*range(1, len(names) + 1)]
            places = [float(place) for place in seen]
            title = f"{part.title}: {'rounds of' if chunks else ''} {', '.join(names)}"
            x = "training examples so far" if chunks else "tasks so far"
            more = {"x": x, "metric": part.task.metrics[0] if chunks else "mean score"}
            after = page_panels.panel(part, _after(places), **more)
            scores.append(after | {"title": title})
            lost = page_panels.panel(part, _lost(places), x=x, metric="forgotten")
            forgotten.append(lost | {"title": title})
    return [{"kind": "rounds", "panels": scores}, {"kind": "forgetting", "panels": forgotten}]


def _after(places: list[float]) -> Callable[[list[Evaluated]], Line]:
    def score(e: Evaluated, number: int) -> float | None:
        if e.findings["validation"] is None:
            return page_panels.mean(e.findings["scores"][number])
        after: float | None = e.findings["validation"][number]
        return after

    return lambda members: page_panels.along(
        places, [[score(e, number) for e in members] for number in range(len(places))]
    )


def _lost(places: list[float]) -> Callable[[list[Evaluated]], Line]:
    """The mean, over earlier rounds, of their best score so far less that after this round."""

    def lost(e: Evaluated, number: int) -> float | None:
        matrix = e.findings["scores"]
        best = [[matrix[t][j] for t in range(j, number)] for j in range(number)]
        if any(value is None for past in best for value in past):
            return None
        now = matrix[number]
        return page_panels.mean(
            [None if now[j] is None else max(past) - now[j] for j, past in enumerate(best)]
        )

    return lambda members: page_panels.along(
        places[1:], [[lost(e, number) for e in members] for number in range(1, len(places))]
    )
