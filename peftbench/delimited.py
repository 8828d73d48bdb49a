"""A user's csv or tsv file."""

import csv
from pathlib import Path
from typing import Any

from peftbench.run import ConfigError


def columns(path: Path) -> dict[str, list[Any]]:
    """Read csv or tsv, all columns as text: "007" and "1.0" are labels until a task says otherwise.

    The datasets library (5.2) has no way to say so without the names of the columns.

    Raises:
        ConfigError: with the row, if the file is not a table.
    """
    csv.field_size_limit(1 << 30)  # a text may be a book
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file, delimiter=delimiter, strict=True) if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if len(rows) < 2:
        raise ConfigError(f"{path}: a data file is a line of column names, then examples")
    for number, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ConfigError(
                f"{path}: row {number + 1} has {len(row)} fields, the header {len(rows[0])}; "
                "quote texts that hold a delimiter"
            )
    return {name: list(column) for name, *column in zip(*rows, strict=True)}
