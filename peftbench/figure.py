"""How figures look: one palette, readable type, PNG bytes that depend on nothing but the data."""

import io
from typing import Any

#: Okabe and Ito's palette, which colour-blind readers can tell apart; marks differ as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKS = "osD^vP*X"


def panels(count: int, width: float = 4.2, height: float = 3.6, rows: int = 1) -> tuple[Any, Any]:
    """A figure and its `(rows, count)` axes."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    return plt.subplots(
        rows, count, figsize=(width * count, height * rows), squeeze=False, layout="constrained"
    )


def look(number: int) -> dict[str, Any]:
    """Colour and mark of the n-th series; both run out of step, so that 56 differ."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKS[(number + number // len(COLOURS)) % len(MARKS)],
    }


def plain(axis: Any, title: str, x: str, y: str) -> None:
    """Title, labels, a light grid, no box."""
    axis.set_title(title, fontsize=11)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.grid(axis="y", color="#dddddd", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)


def legend(figure: Any, axes: Any, order: list[str], most: int = 6) -> None:
    """One legend below all panels, in this order, of what is in any of them."""
    named: dict[str, Any] = {}
    for axis in axes.flat:
        handles, labels = axis.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    shown = [name for name in order if name in named]
    figure.legend(
        [named[name] for name in shown],
        shown,
        loc="outside lower center",
        ncols=min(most, max(1, len(shown))),
        frameon=False,
    )


def png(figure: Any) -> bytes:
    """The figure as a file; it is closed."""
    from matplotlib import pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()
