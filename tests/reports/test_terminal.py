"""Tables in narrow terminals: no figure is cut, and few screens are filled."""

import io

import pytest
from rich.console import Console

from peftbench.reports.tables.markdown import Table

FIGURES = [["73.8±1.3", "26.6±1.0", "80.0"], ["71.4±1.0", "", ""]]
TABLE = Table(
    "Scores",
    ["method", "mrpc acc", "cola mcc", "stsb r"],
    [["full", *FIGURES[0]], ["lora", *FIGURES[1]]],
    bold=frozenset({(0, 2)}),
)


def drawn(width):
    """Lines of the table in a terminal of this width."""
    buffer = io.StringIO()
    console = Console(file=buffer, width=width, force_terminal=True, color_system=None)
    console.print(TABLE.rich())
    return [line.rstrip() for line in buffer.getvalue().splitlines()]


@pytest.mark.parametrize(("width", "titles"), [(80, 1), (41, 1), (33, 2), (22, 3), (16, 1)])
def test_a_table_is_divided_by_columns_before_it_is_told_row_by_row(width, titles):
    lines = drawn(width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for figure in filter(None, FIGURES[0] + FIGURES[1]):
        assert text.count(figure) == 1
    assert lines.count("Scores") + lines.count(" Scores") == titles
    assert ("method: full" in text) == (width == 16)
    if width == 33:  # two columns, then the third, in which one row has nothing
        assert [line.split()[0] for line in lines if "full" in line or "lora" in line] == [
            *("full", "lora", "full")
        ]
