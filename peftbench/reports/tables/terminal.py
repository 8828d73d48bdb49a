"""Tables on standard output: as wide as a terminal, whole in a pipe or a file."""

import io
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


class Fitted:
    """A table for rich: drawn as one where it fits, else row by row, so that no figure is cut."""

    def __init__(self, table: "Table"):
        self.table = table

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        """Draw it."""
        if self._least() <= options.max_width:
            yield self.table.drawn()
        else:
            yield from self._rows()

    def _least(self) -> int:
        """Columns of a terminal in which every word is whole."""
        from rich.cells import cell_len

        table, least = self.table, 0
        for place, cells in enumerate(zip(table.columns, *table.rows, strict=True)):
            parts = cells if table.unwrapped(place) else [w for cell in cells for w in cell.split()]
            least += max(map(cell_len, parts), default=0) + 3  # blanks around it and between
        return least + 1

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
