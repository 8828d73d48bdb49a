"""Csv and tsv as tables of text, with the line of each row and what the quotation marks did."""

import csv
import io
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from peftbench.core.errors import ConfigError
from peftbench.core.text import count_of

#: What a quotation mark is: a frame around a text, or a character like any other.
QUOTING = ("standard", "none")

_BOTH_WAYS = (
    "if quotation marks are part of the texts, set task.quoting=none; if they stand around texts "
    "with line breaks or delimiters, double those inside and set task.quoting=standard"
)


@dataclass
class Rows:
    """The rows of a delimited file below its header.

    Attributes:
        names: of the columns, blanks around them taken off; a name may stand twice.
        cells: of each row, as many as there are names.
        lines: on which each row starts, counted from 1 as text editors do.
        notes: what was read otherwise than it stands there.
    """

    names: list[str]
    cells: list[list[str]]
    lines: list[int]
    notes: list[str] = field(default_factory=list)


def read_rows(
    path: Path,
    text: str,
    delimiter: str,
    quoting: str | None,
    label: str,
    texts: Collection[str],
    keep_empty: bool = False,
) -> Rows:
    """Read delimited text; all cells stay text: "007" and "1.0" stay as they are written.

    Args:
        path: for messages.
        text: the content of the file.
        delimiter: between cells.
        quoting: one of `QUOTING`; None is standard, where the marks cannot be meant otherwise.
        label: column of the labels, which shows whether a text swallowed other rows.
        texts: columns of the texts.
        keep_empty: also rows whose cells are all empty; lines with nothing on them are no rows.

    Raises:
        ConfigError: with the line, if the file is not a table, or quotation marks are in doubt.
    """
    csv.field_size_limit(1 << 30)  # a text may be a book
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        strict=True,
        quoting=csv.QUOTE_NONE if quoting == "none" else csv.QUOTE_MINIMAL,
    )
    rows: list[list[str]] = []
    spans, empty = [], []
    blank: list[int] = []
    end = 0
    try:
        for row in reader:
            start, end = end + 1, reader.line_num
            whole = bool(rows) and len(row) == len(rows[0])
            if any(cell.strip() for cell in row) or (keep_empty and whole):
                rows.append(row)
                spans.append((start, end))
            elif len(row) > 1 or whole:
                empty.append(start)
            elif rows and len(rows[0]) == 1:  # may be meant as an empty text, which is ""
                blank.append(start)
    except csv.Error as error:
        told = "a quotation mark opens a text that does not end"
        reason = told if "unexpected end" in str(error) else str(error)
        raise ConfigError(
            f"cannot read {path}: {reason}, in the row that starts on line {end + 1}; {_BOTH_WAYS}"
        ) from error
    if len(rows) < 2:
        raise ConfigError(f"{path}: a data file is a line of column names, then examples")
    found = Rows([name.strip() for name in rows[0]], rows[1:], [a for a, _ in spans[1:]])
    _check_widths(path, found, delimiter, '"' in text and quoting is None)
    if empty:
        found.notes.append(
            f"{count_of(len(empty), 'row')} without any value (first: line {empty[0]}) left out"
        )
    if blank := [line for line in blank if line < found.lines[-1]]:
        found.notes.append(
            f"{count_of(len(blank), 'blank line')} (first: line {blank[0]}) left out; "
            'write an empty text as ""'
        )
    if quoting is None and '"' in text:
        _check_quotes(path, text, delimiter, found, spans[1:], label, texts)
    return found


def _check_widths(path: Path, found: Rows, delimiter: str, quoted: bool) -> None:
    width = len(found.names)
    bad = [place for place, row in enumerate(found.cells) if len(row) != width]
    if not bad:
        return
    more = f" (and {len(bad) - 1} more lines)" if len(bad) > 1 else ""
    raise ConfigError(
        f"{path}: line {found.lines[bad[0]]} has {len(found.cells[bad[0]])} fields, the header "
        f"{width}{more}; quote texts that hold a {'tab' if delimiter == chr(9) else 'delimiter'}"
        + (f"; {_BOTH_WAYS}" if quoted else "")
    )


def _check_quotes(
    path: Path,
    text: str,
    delimiter: str,
    found: Rows,
    spans: list[tuple[int, int]],
    label: str,
    texts: Collection[str],
) -> None:
    """Refuse a text that swallowed rows; note marks that were taken off without need.

    A text that swallowed rows consists of rows, from its first line to its last: read without
    quotation marks, each has as many fields as the header, and most have a label that other rows
    have. Where labels are numbers all lines must end so: a number after a comma is nothing special
    in a text of several lines.
    """
    if label not in found.names:
        return
    lines = io.StringIO(text, newline="")
    raw = list(csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE))
    place, width = found.names.index(label), len(found.names)
    known = {row[place].strip() for row, (a, b) in zip(found.cells, spans, strict=True) if a == b}
    numbers = all(map(_is_number, known))

    def are_rows(several: list[list[str]]) -> bool:
        if any(len(line) != width for line in several):
            return False
        cells = [line[place].strip().strip('"') for line in several]
        return (
            all(map(_is_number, cells))
            if numbers
            else 2 * sum(c in known for c in cells) > len(cells)
        )

    swallowed = [
        (start, end)
        for start, end in spans
        if end > start and are_rows([line for line in raw[start - 1 : end] if line])
    ]
    if swallowed:
        spanned = sorted(set(swallowed))
        lost = sum(end - start for start, end in spanned)
        raise ConfigError(
            f"{path}: a quotation mark on line {spanned[0][0]} opens a text that goes on to line "
            f"{spanned[0][1]}, over lines that look like rows of their own; {lost} rows would be "
            f"lost so; {_BOTH_WAYS}"
        )
    for name in texts:
        if name not in found.names:
            continue
        column = found.names.index(name)
        single = [a for a, b in spans if a == b and len(raw[a - 1]) == width]
        framed = [a for a in single if _framed(raw[a - 1][column])]
        bare = any(not raw[a - 1][column].startswith('"') for a in single)
        if framed and bare:
            found.notes.append(
                f"{len(framed)} of {len(found.cells)} texts of {name!r} stand in quotation marks "
                f"(first: line {framed[0]}), which are taken off; task.quoting=none keeps them"
            )


def _framed(cell: str) -> bool:
    """Whether a cell stands in quotation marks that it does not need."""
    return len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
