"""What suites without a report of their own found: headline figures, and the curve if any.

A suite's findings hold the `headline`, shares by name, and may hold a `curve`: `x` and `y` name its
axes, `points` are pairs of a place and a share. See `peftbench.suites.base.Suite.findings`.
"""

from peftbench.analysis import grouping
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Json
from peftbench.reports.base import SuiteReport
from peftbench.reports.plotting import page_panels
from peftbench.reports.plotting.line_plots import (
    Panel,
    Points,
    Series,
    defined_points,
    draw_line_plots,
    mean_curve,
)
from peftbench.reports.plotting.page_panels import Line
from peftbench.reports.plotting.palette import Palette
from peftbench.reports.plotting.style import Figure
from peftbench.reports.tables.markdown import Table

REPORT = SuiteReport(
    suite="",
    tables=lambda found, trained: tables(found, trained),
    figures=lambda found, trained, palette: plot_headlines(found, trained, palette),
    page_plots=lambda found, trained: page_plots(found, trained),
)

_NOTE = "Percent, mean ± standard deviation over seeds (number of seeds)."

_CAPTION = "{y} by {x}: means over seeds; seeds are faint. Undefined values are left out."


def tables(found: list[Evaluated], trained: dict[str, int]) -> list[Table]:
    """For each task and size the headline figures of every row.

    Args:
        found: evaluations by the suite.
        trained: trained parameters of each run, by key.
    """
    made = []
    sections = grouping.sections(found, trained)
    name = found[0].evaluation.suite["name"]
    for section in sections:
        figures = list(dict.fromkeys(figure for e in section.found for figure in e.headline))
        lines = [
            [*row, *(grouping.spread([e.headline.get(figure) for e in here]) for figure in figures)]
            for row, here in section.rows.items()
        ]
        columns = ["method", *section.split, *figures]
        notes = [_NOTE] if section is sections[-1] else []
        title = f"{name[:1].upper()}{name[1:].replace('_', ' ')}: {section.title}"
        made.append(Table(title, columns, lines, 1 + len(section.split), notes))
    return made


def plot_headlines(
    found: list[Evaluated], trained: dict[str, int], palette: Palette
) -> list[Figure]:
    """A panel for each task and size whose findings hold a curve."""
    here = _with_curve(found)
    if not here:
        return []
    sections = grouping.sections(here, trained)
    panels = []
    for section in sections:
        labels = grouping.labels(section.rows, section.split)
        seeds = {labels[row]: [_percent(e) for e in here] for row, here in section.rows.items()}
        series = {
            label: Series(mean_curve(drawn), drawn)
            for label, curves in seeds.items()
            if (drawn := [points for points in curves if points])
        }
        curve = section.found[0].findings["curve"]
        if series:
            panels.append(
                Panel(section.title, curve["x"], f"{curve['y']} (%)", series, joined=True)
            )
    first = here[0].findings["curve"]
    caption = _CAPTION.format(y=first["y"][:1].upper() + first["y"][1:], x=first["x"])
    return draw_line_plots(panels, palette, grouping.series(sections, trained), caption)


def page_plots(found: list[Evaluated], trained: dict[str, int]) -> list[Json]:
    """The same curves."""
    here = _with_curve(found)
    panels = [
        page_panels.panel(part, _mean_line, x=told["x"], metric=told["y"])
        for part in (grouping.sections(here, trained) if here else [])
        for told in [part.found[0].findings["curve"]]
    ]
    return [{"kind": "curve", "panels": panels}]


def _with_curve(found: list[Evaluated]) -> list[Evaluated]:
    return [e for e in found if e.findings.get("curve")]


def _percent(e: Evaluated) -> Points:
    points = e.findings["curve"]["points"]
    return defined_points([(float(x), None if y is None else 100 * y) for x, y in points])


def _mean_line(members: list[Evaluated]) -> Line:
    curves = [dict(e.findings["curve"]["points"]) for e in members]
    places = [x for x in curves[0] if all(x in curve for curve in curves)]
    return page_panels.along(places, [[curve[x] for curve in curves] for x in places])
