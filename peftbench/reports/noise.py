"""What noise in the text costs each method: method × kind of noise, and a picture of the curves."""

from collections.abc import Callable

from peftbench.analysis import convention, grouping
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Json
from peftbench.reports.base import SuiteReport
from peftbench.reports.plotting import page_panels
from peftbench.reports.plotting.line_plots import Points, of_suite
from peftbench.reports.plotting.page_panels import Line
from peftbench.reports.plotting.palette import Palette
from peftbench.reports.plotting.style import Figure
from peftbench.reports.tables.markdown import Table

REPORT = SuiteReport(
    suite="Noise",
    tables=lambda found, trained: tables(found, trained),
    figures=lambda found, trained, palette: plot_noise(found, trained, palette),
    page_plots=lambda found, trained: page_plots(found, trained),
)


def tables(found: list[Evaluated], trained: dict[str, int]) -> list[Table]:
    """For each task and size the clean score, the area under its curve, and drops by kind.

    Args:
        found: evaluations by the suite.
        trained: trained parameters of each run, by key.
    """
    made = []
    sections = grouping.sections(found, trained)
    for section in sections:
        kinds = list(dict.fromkeys(kind for e in section.found for kind in e.findings["kinds"]))
        classes = section.task.classes > 1
        lines = []
        for row, members in section.rows.items():
            told = [e.findings for e in members]
            drops = [
                grouping.spread([(one["kinds"].get(kind) or {}).get("drop") for one in told])
                for kind in kinds
            ]
            flips = [
                sum(kind["flips"][-1] for kind in one["kinds"].values()) / len(one["kinds"])
                for one in told
            ]
            lines.append(
                [
                    *row,
                    grouping.spread([one["clean"] for one in told]),
                    grouping.spread([one["area"] for one in told]),
                    grouping.spread([one["worst"] for one in told]),
                    grouping.spread(flips) if classes else grouping.spread(flips, 1, 2),
                    *drops,
                ]
            )
        metric = section.found[0].findings["metric"]
        moved = "answers that flip" if classes else "mean change"
        made.append(
            Table(
                f"Noise: {section.title}, {metric}",
                ["method", *section.split, "clean", "under noise", "worst kind", moved, *kinds],
                lines,
                1 + len(section.split),
                [_NOTE, convention.NOTE] if section is sections[-1] else [],
            )
        )
    return made


_NOTE = (
    "Percent, mean ± standard deviation over seeds (number of seeds). Under noise: the mean height "
    "of the score over intensity, 0 to 1, over all kinds. The columns of kinds hold the drop from "
    "the clean score at the highest intensity; answers that flip, and of values the mean change: "
    "the mean over kinds there."
)


_CAPTION = (
    "Score by intensity of noise, 0 is clean: the mean over all kinds of noise, and over seeds; "
    "seeds are faint."
    f" {convention.NOTE}"
)


def plot_noise(found: list[Evaluated], trained: dict[str, int], palette: Palette) -> list[Figure]:
    """A panel for each task and size, a line for each row."""
    return of_suite(found, trained, palette, "intensity of noise", _CAPTION, _curve)


def _curve(e: Evaluated) -> Points:
    """In percent, clean and at each intensity the mean over kinds; empty if one is undefined."""
    places = [0.0, *e.findings["intensities"]]
    columns = zip(*(kind["scores"] for kind in e.findings["kinds"].values()), strict=True)
    every = [[e.findings["clean"]], *columns]
    if any(score is None for column in every for score in column):
        return []
    heights = [100 * sum(column) / len(column) for column in every]
    return list(zip(places, heights, strict=True))


def page_plots(found: list[Evaluated], trained: dict[str, int]) -> list[Json]:
    """The score over intensity: the mean of all kinds, and each kind alone."""
    parts = grouping.sections(found, trained)
    kinds = list(dict.fromkeys(kind for e in found for kind in e.findings["kinds"]))
    panels = []
    for part in parts:
        metric = part.found[0].findings["metric"]
        panels.append(page_panels.panel(part, _under(None), metric=metric, choice="all kinds"))
        panels += [
            page_panels.panel(part, _under(kind), metric=metric, choice=kind) for kind in kinds
        ]
    return [{"kind": "noise", "panels": [panel for panel in panels if panel["lines"]]}]


def _under(kind: str | None) -> Callable[[list[Evaluated]], Line]:
    def draw(members: list[Evaluated]) -> Line:
        here = [e for e in members if kind is None or kind in e.findings["kinds"]]
        if not here:
            return []
        places = [0.0, *here[0].findings["intensities"]]
        return page_panels.along(
            places, [[_at(e, kind, n) for e in here] for n in range(len(places))]
        )

    return draw


def _at(e: Evaluated, kind: str | None, number: int) -> float | None:
    """The clean score, then that at each intensity; the mean over kinds where none is named."""
    if number == 0:
        clean: float | None = e.findings["clean"]
        return clean
    told = e.findings["kinds"]
    asked = told.values() if kind is None else [told[kind]]
    return page_panels.mean([one["scores"][number - 1] for one in asked])
