"""Names beside points and at the ends of lines, where there is room."""

import itertools
from collections.abc import Sequence
from typing import Any

from peftbench.reports import glossary

#: Where a name may stand: off its point in points, and which of its sides is there.
_PLACES = [
    (dx * far, dy * far, ha, va)
    for far in (4.5, 8)
    for dx, dy, ha, va in (
        (1, 0, "left", "center"),
        (-1, 0, "right", "center"),
        (0, 1, "center", "bottom"),
        (0, -1, "center", "top"),
        (0.8, 0.8, "left", "bottom"),
        (-0.8, 0.8, "right", "bottom"),
        (0.8, -0.8, "left", "top"),
        (-0.8, -0.8, "right", "top"),
    )
]


#: Height, place, colour.
Named = tuple[float, float, str]


def points(
    figure: Any,
    named: Sequence[tuple[Any, dict[str, Named], Sequence[tuple[float, float]], list[Any]]],
) -> list[str]:
    """Write names beside points where they cover no mark, line, other name or edge.

    The figure's layout is settled by this.

    Args:
        figure: with everything else in it.
        named: axes, names with (height, place, colour), all points of these axes, and lines.

    Returns:
        Names that found no such place, and are left out.
    """
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    lost = []
    for axis, names, every, drawn in named:
        marks = [axis.transData.transform((x, y)) for y, x in every]
        reach = 3.0 * figure.dpi / 72
        taken = [Bbox([[x - reach, y - reach], [x + reach, y + reach]]) for x, y in marks]
        for line in drawn:
            ends = line.get_transform().transform(line.get_path().vertices)
            taken += [Bbox([a, b]).padded(1) for a, b in itertools.pairwise(ends)]
        room = axis.get_window_extent()
        for name, (y, x, colour) in names.items():
            for dx, dy, ha, va in _PLACES:
                text = axis.annotate(
                    glossary.row(name),
                    (x, y),
                    (dx, dy),
                    textcoords="offset points",
                    ha=ha,
                    va=va,
                    fontsize=6,
                    color=colour,
                )
                box = text.get_window_extent()
                inside = room.x0 <= box.x0 and box.x1 <= room.x1 + 4 and room.y0 <= box.y0
                if inside and box.y1 <= room.y1 and not any(box.overlaps(one) for one in taken):
                    taken.append(box)
                    break
                text.remove()
            else:
                lost.append(name)
    return lost


def ends(
    figure: Any, named: Sequence[tuple[Any, Sequence[tuple[tuple[float, float], str, str]]]]
) -> None:
    """Write names at the ends of lines, in their colours, moved apart where they would touch.

    Args:
        figure: with everything else in it.
        named: axes, and of each line its last point, its name and colour.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    apart = 6 * figure.dpi / 72
    for axis, lines in named:
        places = sorted(
            (axis.transData.transform(point)[1], point, *more) for point, *more in lines
        )
        low = axis.get_window_extent().y0 + apart / 2
        above = axis.get_window_extent().y1 - apart * (len(places) - 0.5)
        for number, (y, point, name, colour) in enumerate(places):
            new = low = max(low, min(y, above + apart * number))
            low += apart
            axis.annotate(
                glossary.row(name),
                point,
                (4, (new - y) * 72 / figure.dpi),
                textcoords="offset points",
                va="center",
                fontsize=5.5,
                color=colour,
            )
