"""What demonstrations at test time are worth: method × number of them, and a picture."""

from peftbench.analysis import convention, grouping
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Json
from peftbench.reports.base import SuiteReport
from peftbench.reports.plotting import page_panels
from peftbench.reports.plotting.line_plots import Points, defined_points, of_suite
from peftbench.reports.plotting.page_panels import Line
from peftbench.reports.plotting.palette import Palette
from peftbench.reports.plotting.style import Figure
from peftbench.reports.tables.markdown import Table

REPORT = SuiteReport(
    suite="InContext",
    tables=lambda found, trained: tables(found, trained),
    figures=lambda found, trained, palette: plot_in_context(found, trained, palette),
    page_plots=lambda found, trained: page_plots(found, trained),
)


def tables(found: list[Evaluated], trained: dict[str, int]) -> list[Table]:
    """For each task and size the score by number of demonstrations, and differences from none.

    Args:
        found: evaluations by the suite.
        trained: trained parameters of each run, by key.
    """
    made = []
    sections = grouping.sections(found, trained)
    for section in sections:
        counts = sorted({count for e in section.found for count in e.findings["counts"]})
        lines = [
            [
                *row,
                *(_scores(members, count) for count in counts),
                *(grouping.spread([_at(e, "differences", n) for e in members]) for n in counts[1:]),
                f"{max(max(e.findings['truncated'].values()) for e in members)}",
            ]
            for row, members in section.rows.items()
        ]
        differences = [f"{count} less 0" for count in counts[1:]]
        made.append(
            Table(
                f"In context: {section.title}, {section.found[0].findings['metric']}",
                ["method", *section.split, *map(str, counts), *differences, "cut"],
                lines,
                1 + len(section.split),
                [_NOTE, convention.NOTE] if section is sections[-1] else [],
            )
        )
    return made


_NOTE = (
    "Percent, mean ± standard deviation over seeds (number of seeds), by the number of "
    "demonstrations in front of every text at test time; the same ones for all methods of a seed. "
    "†n: n seeds give one answer to all texts. Cut: texts of the worst case that had no room for "
    "all of them (or for all of themselves)."
)


def _scores(members: list[Evaluated], count: int) -> str:
    """Mean and deviation behind so many demonstrations, and how many seeds have one answer."""
    constant = sum(bool(_at(e, "constant", count)) for e in members)
    text = grouping.spread([_at(e, "scores", count) for e in members])
    return text + (f" †{constant}" if constant else "")


_CAPTION = (
    "Score by the number of demonstrations in front of every text at test time: means over seeds; "
    "seeds are faint. "
    f"{convention.NOTE}"
)


def plot_in_context(
    found: list[Evaluated], trained: dict[str, int], palette: Palette
) -> list[Figure]:
    """A panel for each task and size, a line for each row."""
    return of_suite(found, trained, palette, "demonstrations", _CAPTION, _curve)


def _curve(e: Evaluated) -> Points:
    scores = [(float(count), _at(e, "scores", count)) for count in sorted(e.findings["counts"])]
    return defined_points([(x, None if y is None else 100 * y) for x, y in scores])


def _at(e: Evaluated, what: str, count: int) -> float | None:
    """A figure of one number of demonstrations; None where it was not asked, or is undefined."""
    counts: list[int] = e.findings["counts"]
    values: list[float | None] = e.findings.get(what, [])  # `constant` came later
    return values[counts.index(count)] if values and count in counts else None


def page_plots(found: list[Evaluated], trained: dict[str, int]) -> list[Json]:
    """The score by how many solved examples stand in front of a text."""

    def draw(members: list[Evaluated]) -> Line:
        counts = members[0].findings["counts"]
        columns = [[e.findings["scores"][n] for e in members] for n in range(len(counts))]
        return page_panels.along([float(count) for count in counts], columns)

    parts = grouping.sections(found, trained)
    panels = [
        page_panels.panel(part, draw, metric=part.found[0].findings["metric"]) for part in parts
    ]
    return [{"kind": "demonstrations", "panels": panels}]
