"""A table as text: Markdown, CSV, terminal. Equal rows give equal bytes."""

import csv
import io
import json
import re
import textwrap
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from peftbench.core.run import Json
from peftbench.core.text import as_markdown, one_line
from peftbench.reports.tables import terminal

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table as RichTable


#: Columns of names.
_NAMES = ("method", "task", "metric", "model", "prompt", "suite", "target")


@dataclass(frozen=True)
class Table:
    """Cells of text under a title.

    Attributes:
        labels: how many of the first columns name a row; the others hold figures.
        notes: sentences below the table.
        bold: line and column of cells that stand out.
        prose: how many of the last columns hold sentences: to the left, and wrapped.
        narrow: whether names wrap in a terminal, and figures stay whole; else the other way round.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    labels: int = 1
    notes: list[str] = field(default_factory=list)
    bold: frozenset[tuple[int, int]] = frozenset()
    prose: int = 0
    narrow: bool = False

    def __post_init__(self) -> None:
        """Make every text one line: names come from files and from other people's records."""
        object.__setattr__(self, "title", one_line(self.title))
        object.__setattr__(self, "columns", [one_line(name) for name in self.columns])
        object.__setattr__(self, "rows", [[one_line(cell) for cell in row] for row in self.rows])
        object.__setattr__(self, "notes", [one_line(note) for note in self.notes])

    def _left(self, column: int) -> bool:
        return column < self.labels or column >= len(self.columns) - self.prose

    def markdown(self) -> str:
        """GitHub's tables, aligned so that the source reads too."""
        escaped = [[as_markdown(cell) for cell in line] for line in (self.columns, *self.rows)]
        for line, column in self.bold:
            escaped[1 + line][column] = f"**{escaped[1 + line][column]}**"
        widths = [max(len(line[i]) for line in escaped) for i in range(len(self.columns))]
        rule = [
            "-" * width if self._left(i) else "-" * (width - 1) + ":"
            for i, width in enumerate(widths)
        ]
        body = [escaped[0], rule, *escaped[1:]]
        text = [
            "| "
            + " | ".join(
                cell.ljust(width) if self._left(i) else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            + " |"
            for line in body
        ]
        notes = [f"\n{_note(note)}" for note in self.notes]
        return "\n".join([f"### {as_markdown(self.title)}", "", *text, *notes])

    def csv(self) -> str:
        """Columns and rows; title and notes left out."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return buffer.getvalue()

    def to_json(self) -> Json:
        """Texts as a terminal shows them: title, columns, rows, notes."""
        return {
            "title": self.title,
            "columns": self.columns,
            "rows": self.rows,
            "notes": self.notes,
        }

    def numbers(self) -> list[Json]:
        """The rows of a table of plain figures by column; numbers as such, empty cells as None.

        Names stay texts, also that of a task called 2024.
        """
        import pandas as pd

        texts = {column: str for column in self.columns if column in _NAMES}
        whole = io.StringIO(self.csv())
        table = pd.read_csv(whole, keep_default_na=False, na_values=[""], dtype=texts)
        found: list[Json] = json.loads(table.to_json(orient="records"))
        return found

    def plain(self) -> str:
        """As the terminal shows it, without colours, as wide as it is; with the notes."""
        return "\n".join([terminal.plain(self.drawn()), *self.notes]) + "\n"

    def rich(self) -> "FittedTable":
        """For a terminal of any width."""
        return FittedTable(self)

    def _wraps(self, column: int) -> bool:
        """Whether cells of a column may take several lines in a terminal: figures never do."""
        sentence = column >= len(self.columns) - self.prose
        return sentence or (self.narrow and column < self.labels)

    def width(self, column: int, whole: bool) -> int:
        """Columns of a terminal that a column needs.

        Args:
            whole: with its heading on one line, where no cell wraps.
        """
        from rich.cells import cell_len

        cells, heading = [row[column] for row in self.rows], [self.columns[column]]
        if self._wraps(column):
            cells = [word for cell in cells for word in cell.split()]
        if self._wraps(column) or (column >= self.labels and not whole):
            heading = heading[0].split()
        return max(map(cell_len, [*cells, *heading]), default=0)

    def drawn(self, narrow: bool = False) -> "RichTable":
        """For a terminal that is wide enough.

        Args:
            narrow: without margins, and with headings of figures as wide as their cells or longest
                words.
        """
        from rich import box
        from rich.markup import escape
        from rich.table import Table as RichTable
        from rich.text import Text

        drawn = RichTable(
            title=escape(self.title),
            box=box.SIMPLE_HEAD,
            title_justify="left",
            title_style="bold",
            show_edge=not narrow,
            pad_edge=not narrow,
        )
        for i, column in enumerate(self.columns):
            justify: Literal["left", "right"] = "left" if self._left(i) else "right"
            if narrow and i >= self.labels:
                column = "\n".join(textwrap.wrap(column, self.width(i, False) or 1))
            drawn.add_column(escape(column), justify=justify, no_wrap=not self._wraps(i))
        for i, row in enumerate(self.rows):
            bold = [(i, j) in self.bold for j in range(len(row))]
            drawn.add_row(*map(Text, row, ("bold" if one else "" for one in bold)))
        return drawn


#: Tables into which one that is too wide is divided, at most.
_PARTS = 4


class FittedTable:
    """A table for rich, without a cut figure.

    Drawn as one where it fits, if need be without margins and with headings of figures on several
    lines, else as a few with some of the columns each, else row by row.
    """

    def __init__(self, table: Table):
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

    def _parts(self, most: int) -> list[Table]:
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

    def _part(self, places: list[int]) -> Table:
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


#: Code in a note: the name of a key, an option or a folder.
_CODE = re.compile(r"(`[\w.=/-]+`)")

#: What begins a heading, a quotation or a list at the start of a paragraph.
_BLOCK = re.compile(r"^([#>+-]|\d+[.)](?=\s))")


def _note(text: str) -> str:
    """A sentence of which only code in backticks is Markdown; names in it are text."""
    parts = [part if _CODE.fullmatch(part) else as_markdown(part) for part in _CODE.split(text)]
    return _BLOCK.sub(lambda found: found[0][:-1] + "\\" + found[0][-1], "".join(parts))
