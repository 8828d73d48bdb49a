"""A table as text: Markdown, CSV, terminal. Equal rows give equal bytes."""

import csv
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.table import Table as RichTable


@dataclass(frozen=True)
class Table:
    """Cells of text under a title.

    Attributes:
        labels: how many of the first columns name a row; the others hold figures.
        notes: sentences below the table.
        prose: how many of the last columns hold sentences: to the left, and wrapped.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    labels: int = 1
    notes: list[str] = field(default_factory=list)
    prose: int = 0

    def _left(self, column: int) -> bool:
        return column < self.labels or column >= len(self.columns) - self.prose

    def markdown(self) -> str:
        """GitHub's tables, aligned so that the source reads too."""
        lines = [self.columns, *self.rows]
        escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
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
        return "\n".join([f"### {self.title}", "", *text, *(f"\n{note}" for note in self.notes)])

    def csv(self) -> str:
        """Columns and rows; title and notes left out."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return buffer.getvalue()

    def rich(self) -> "RichTable":
        """For a terminal."""
        from rich import box
        from rich.markup import escape
        from rich.table import Table as RichTable

        drawn = RichTable(
            title=escape(self.title), box=box.SIMPLE_HEAD, title_justify="left", title_style="bold"
        )
        for i, column in enumerate(self.columns):
            # long headings of figures wrap; a row's name never gives way to them
            label = i < self.labels
            justify: Literal["left", "right"] = "left" if self._left(i) else "right"
            drawn.add_column(escape(column), justify=justify, no_wrap=label)
        for row in self.rows:
            drawn.add_row(*map(escape, row))
        return drawn
