"""Tables on standard output: as wide as a terminal, whole in a pipe or a file."""

import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftbench.system import terminal

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from peftbench.reports.tables.markdown import Table


def print_out(renderable: Any) -> None:
    """Print what rich can draw.

    Raises:
        OSError: if standard output takes no more.
    """
    width = terminal.columns()
    if width is None:
        terminal.write(plain(renderable) + "\n")
        return
    from rich.console import Console

    Console(highlight=False, width=width).print(renderable)


def plain(renderable: Any) -> str:
    """What rich draws, without colours and as wide as it is."""
    from rich.console import Console

    buffer = io.StringIO()
    Console(file=buffer, width=terminal.UNCUT, highlight=False, color_system=None).print(renderable)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


#: Tables into which one that is too wide is divided, at most.
_PARTS = 4


class Fitted:
    """A table for rich, without a cut figure.

    Drawn as one where it fits, if need be without margins and with headings of figures on several
    lines, else as a few with some of the columns each, else row by row.
    """

    def __init__(self, table: "Table"):
        self.table = table

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        """Draw it."""
        if sum(self._widths(whole=True)) < options.max_width:
            yield self.table.drawn()
        elif parts := self._parts(options.max_width):
            for part in parts:
                yield part.drawn(narrow=True)
                yield ""
        else:
            yield from self._rows()

    def _widths(self, whole: bool = False) -> list[int]:
        """Columns of a terminal that each column takes, with headings in words or `whole`."""
        return [self.table.width(place, whole) + 3 for place in range(len(self.table.columns))]

    def _parts(self, most: int) -> "list[Table]":
        """Tables of the rows' names and some figures each; none if that takes too many."""
        first, widths = self.table.labels, self._widths()
        room = most + 3 - sum(widths[:first])  # without margins
        parts: list[list[int]] = []
        left = 0
        for place in range(first, len(widths)):
            if widths[place] > left:
                parts.append([])
                left = room
            parts[-1].append(place)
            left -= widths[place]
            if left < 0:
                return []
        return [self._part(places) for places in parts] if len(parts) <= _PARTS else []

    def _part(self, places: list[int]) -> "Table":
        """The rows that have one of these figures, with these alone."""
        table = self.table
        shown = [*range(table.labels), *places]
        lines = [n for n, row in enumerate(table.rows) if any(row[place] for place in places)]
        return replace(
            table,
            columns=[table.columns[place] for place in shown],
            rows=[[table.rows[line][place] for place in shown] for line in lines],
            bold=frozenset(
                (new, shown.index(place))
                for new, line in enumerate(lines)
                for place in places
                if (line, place) in table.bold
            ),
            prose=sum(place >= len(table.columns) - table.prose for place in places),
        )

    def _rows(self) -> "RenderResult":
        from rich.text import Text

        table = self.table
        yield Text(table.title, style="bold")
        for line, row in enumerate(table.rows):
            yield Text("")
            for place, (name, cell) in enumerate(zip(table.columns, row, strict=True)):
                if cell:
                    style = "bold" if (line, place) in table.bold else ""
                    yield Text.assemble(f"{name}: " if name else "", (cell, style))
        yield Text("")
