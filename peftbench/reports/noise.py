"""What noise in the text costs each method: method × kind of noise, and a picture of the curves."""

from peftbench import figure as drawing
from peftbench import rows
from peftbench.evaluation import Evaluated
from peftbench.table import Table

#: The suite whose findings these are.
SUITE = "peftbench.suites.noise.Noise"


def tables(found: list[Evaluated], trained: dict[str, int]) -> list[Table]:
    """For each task and size the clean score, the area under its curve, and drops by kind.

    Args:
        found: evaluations by the suite.
        trained: trained parameters of each run, by key.
    """
    made = []
    sections = rows.sections(found, trained)
    for section in sections:
        kinds = list(dict.fromkeys(kind for e in section.found for kind in e.findings["kinds"]))
        classes = section.task["classes"] > 1
        lines = []
        for row, members in section.rows.items():
            told = [e.findings for e in members]
            drops = [
                rows.spread([(one["kinds"].get(kind) or {}).get("drop") for one in told])
                for kind in kinds
            ]
            flips = [
                sum(kind["flips"][-1] for kind in one["kinds"].values()) / len(one["kinds"])
                for one in told
            ]
            lines.append(
                [
                    *row,
                    rows.spread([one["clean"] for one in told]),
                    rows.spread([one["area"] for one in told]),
                    rows.spread([one["worst"] for one in told]),
                    rows.spread(flips) if classes else rows.spread(flips, 1, 2),
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
                [_NOTE] if section is sections[-1] else [],
            )
        )
    return made


_NOTE = (
    "Percent, mean ± standard deviation over seeds (number of seeds). Under noise: the mean height "
    "of the score over intensity, 0 to 1, over all kinds. The columns of kinds hold the drop from "
    "the clean score at the highest intensity; answers that flip, and of values the mean change: "
    "the mean over kinds there."
)


def plot(found: list[Evaluated], trained: dict[str, int]) -> bytes | None:
    """Score over intensity, the mean of all kinds: a panel a task and size, a line a row."""
    sections = rows.sections(found, trained)
    names = rows.series(sections, trained)
    figure, axes = drawing.panels(len(sections))
    for axis, section in zip(axes[0], sections, strict=True):
        labels = rows.labels(section.rows, section.split)
        for row, members in section.rows.items():
            whole = [curve for e in members if None not in (curve := _curve(e))]
            if not whole:
                continue
            # the members of a row share the suite's settings
            places = [0.0, *members[0].findings["intensities"]]
            means = [100 * sum(points) / len(points) for points in zip(*whole, strict=True)]
            look = drawing.look(names.index(labels[row]))
            axis.plot(places, means, markersize=4, label=labels[row], **look)
        metric = section.found[0].findings["metric"]
        drawing.plain(axis, section.title, "intensity of noise", f"{metric} (%), mean over kinds")
    drawing.legend(figure, axes, names)
    return drawing.png(figure)


def _curve(e: Evaluated) -> list[float | None]:
    """The clean score, then at each intensity the mean over kinds, None where one is undefined."""
    columns = zip(*(kind["scores"] for kind in e.findings["kinds"].values()), strict=True)
    means = [None if None in column else sum(column) / len(column) for column in columns]
    return [e.findings["clean"], *means]
