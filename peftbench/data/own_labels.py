"""The labels of a user's own file: classes or values, and what is wrong with them, by row."""

import math
import re
import unicodedata
from collections import Counter
from decimal import Decimal
from typing import Any

import numpy as np

from peftbench.core.errors import ConfigError
from peftbench.data.own_file import (
    FORMATS,
    FileTable,
    as_float,
    is_missing,
    refuse_halves,
    text_cells,
)

#: Labels that are text for "no label"; the first ones can hardly be a class.
_NOT_A_NUMBER = ("nan", "#n/a", "<na>")
_NO_LABEL = (*_NOT_A_NUMBER, "na", "n/a", "null", "none", "-", "?")

#: Rows below the header that may be further header rows.
_MOST_HEADERS = 3

#: Labels of a regression that are larger than this, or farther than so many quartile ranges from
#: the quartiles, are reported.
_LARGE = 1e6
_FAR = 10.0


def label_cells(table: FileTable, column: str) -> list[str]:
    """The labels as text without blanks around them.

    Raises:
        ConfigError: naming the rows, if some are missing or are no text or number.
    """
    if ("labels", column) in table.made:
        made: list[str] = table.made["labels", column]
        return made
    values = table.column(column)
    bad = [i for i, value in enumerate(values) if isinstance(value, dict | list | bytes)]
    if bad:
        raise ConfigError(
            f"{table.path}: {table.where(bad)}: a label of {column!r} is a list or an object; "
            "one word or number is expected"
        )
    found = ["" if is_missing(value) else str(value).strip() for value in values]
    refuse_halves(table, column, found)
    if empty := [i for i, label in enumerate(found) if not label]:
        raise ConfigError(
            f"{table.path}: {len(empty)} of {len(found)} labels are empty; remove them "
            f"({table.where(empty)})"
        )
    table.made["labels", column] = found
    return found


def targets(table: FileTable, column: str, stop: str | None = None) -> list[str]:
    """The texts that are wanted, without blanks around them.

    Args:
        table: of the file.
        column: of the texts.
        stop: where generated ones end; see `TaskConfig`.

    Raises:
        ConfigError: naming the rows, if some are empty, or could not be generated.
    """
    found = [text.strip() for text in text_cells(table, column)]
    if empty := [i for i, text in enumerate(found) if not text]:
        raise ConfigError(
            f"{table.path}: {len(empty)} of {len(found)} texts of {column!r} are empty, and "
            f"nothing can be learnt from them; remove these rows ({table.where(empty)})"
        )
    if stop is not None and (cut := [i for i, text in enumerate(found) if stop in text]):
        raise ConfigError(
            f"{table.path}: {len(cut)} of {len(found)} texts of {column!r} have "
            f"task.stop={stop!r} inside, where generated texts end ({table.where(cut)}); choose "
            "another task.stop, or task.stop=null"
        )
    return found


def class_names(table: FileTable, column: str, classes: int | None) -> list[str]:
    """The distinct labels of a classification file, sorted, as text.

    Args:
        table: of the training file.
        column: of the labels.
        classes: how many there are, where the user says so: what looks like a mistake is then
            meant.

    Raises:
        ConfigError: if a label is missing, there is but one class, or labels look like a mistake.
    """
    labels = label_cells(table, column)
    names = sorted(set(labels))
    if len(names) < 2:
        raise ConfigError(f"{table.path}: every label is {names[0]!r}; nothing can be learnt")
    if classes is not None:
        if classes != len(names):
            raise ConfigError(
                f"task.classes={classes}, but {table.path.stem} has {len(names)} labels: "
                f"{_some(names)}"
            )
        return names
    meant = f"if they are classes, set task.classes={len(names)}"
    if missing := [i for i, label in enumerate(labels) if label.casefold() in _NOT_A_NUMBER]:
        raise ConfigError(
            f"{table.path}: {len(missing)} of {len(labels)} labels are {labels[missing[0]]!r}, "
            f"which is no label ({table.where(missing)}); remove them, or {meant}"
        )
    below = FORMATS[table.path.suffix.lower()] in ",\t"  # other files have no header
    if headers := _header_rows(labels) if below else []:
        raise ConfigError(
            f"{table.path}: {table.where(headers)}: labels that occur nowhere else, such as "
            f"{labels[headers[0]][:60]!r}, directly below the column names look like further "
            f"header rows; remove them, or {meant}"
        )
    for alike in _alike(names):
        told = ", ".join(
            f"{name!r} ({labels.count(name)}, first on {table.where([labels.index(name)])})"
            for name in alike
        )
        raise ConfigError(
            f"{table.path}: labels differ in case or blanks alone, or in how a number is written: "
            f"{told}; make them the same, or {meant}"
        )
    if len(names) > max(20, len(labels) // 10) and not _are_words(labels):
        raise ConfigError(
            f"{table.path}: {len(names)} distinct labels in {len(labels)} rows look like values; "
            f"for regression set task.kind=regression; {meant}"
        )
    return names


def class_numbers(table: FileTable, column: str, names: list[str]) -> np.ndarray:
    """The labels as numbers of their classes.

    Raises:
        ConfigError: naming the rows, if one is not among the classes.
    """
    labels = label_cells(table, column)
    numbers = {name: number for number, name in enumerate(names)}
    if bad := [i for i, label in enumerate(labels) if label not in numbers]:
        strangers = sorted({labels[i] for i in bad})
        raise ConfigError(
            f"{table.path} has labels that the training part does not have: {_some(strangers)} "
            f"({table.where(bad)}); the classes are {_some(names)}"
        )
    return np.array([numbers[label] for label in labels], dtype=np.int64)


def values(table: FileTable, column: str, ends: list[float] | None) -> np.ndarray:
    """The labels as values (float32).

    Args:
        table: of the file.
        column: of the labels.
        ends: lowest and highest value of the scale, where it has ends.

    Raises:
        ConfigError: naming the rows, if one is no number, out of the scale, or too large or too
            close to others to be told from them in 32 bits.
    """
    labels = table.column(column)
    found = np.empty(len(labels))
    for place, value in enumerate(labels):
        try:
            found[place] = math.nan if value is None else _number(value)
        except (TypeError, ValueError):
            comma = " (a decimal point is expected)" if "," in str(value) else ""
            raise ConfigError(
                f"{table.path}: column {column!r} must hold numbers: {table.where([place])} holds "
                f"{str(value)[:60]!r}{comma}"
            ) from None
    with np.errstate(over="ignore"):
        single = found.astype(np.float32)
    if (bad := np.flatnonzero(~np.isfinite(single))).size:
        raise ConfigError(
            f"{table.path}: column {column!r} has empty or infinite values "
            f"({table.where(bad.tolist())})"
        )
    if ends is not None and (bad := np.flatnonzero((found < ends[0]) | (found > ends[1]))).size:
        raise ConfigError(
            f"{table.path}: {table.where(bad.tolist())}: labels outside of task.range={ends}"
        )
    distinct, kept = len(np.unique(found)), len(np.unique(single))
    if kept < distinct and not np.allclose(found, single, rtol=0, atol=1e-4 * np.ptp(found)):
        raise ConfigError(
            f"{table.path}: of {distinct} distinct labels from {found.min():g} to {found.max():g} "
            f"32 bits tell {kept} apart; subtract a constant, or take a larger unit"
        )
    return single


def _number(cell: Any) -> float:
    """The number in a cell; `float` would also take true and 1_000."""
    if isinstance(cell, bool) or (isinstance(cell, str) and "_" in cell):
        raise ValueError(f"{cell!r} is no number")
    return as_float(cell)


def label_notes(table: FileTable, column: str, regression: bool) -> list[str]:
    """What a careful person would want to know about the labels of a file that can be used."""
    cells = table.column(column)
    told = []
    if blank := [i for i, c in enumerate(cells) if isinstance(c, str) and c != c.strip()]:
        told.append(f"blanks around {len(blank)} labels are taken off ({table.where(blank)})")
    if regression:
        return told + _value_notes(table, np.array([float(cell) for cell in cells]))
    places: dict[str, list[int]] = {}
    for place, label in enumerate(label_cells(table, column)):
        places.setdefault(label, []).append(place)
    for name, here in sorted(places.items()):
        if name.casefold() in _NO_LABEL:
            told.append(f"{name!r} is taken as a class ({table.where(here)})")
    single = [name for name in sorted(places) if len(places[name]) == 1]
    if single:
        where = table.where([places[name][0] for name in single])
        told.append(f"classes with one example: {_some(single)} ({where})")
    return told


def _value_notes(table: FileTable, found: np.ndarray) -> list[str]:
    told = []
    if (most := float(np.abs(found).max())) > _LARGE:
        told.append(f"labels reach {most:.3g}: a larger unit makes errors readable")
    low, high = np.quantile(found, [0.25, 0.75])
    reach = _FAR * (high - low)
    far = np.flatnonzero((found < low - reach) | (found > high + reach)).tolist()
    if reach and far:
        told.append(
            f"{len(far)} labels lie far from the others, such as {found[far[0]]:g} "
            f"({table.where(far)})"
        )
    return told


def _header_rows(labels: list[str]) -> list[int]:
    """Rows from the first one on whose labels occur once, where all others occur again."""
    counts = Counter(labels)
    first = next((i for i, label in enumerate(labels) if counts[label] > 1), len(labels))
    if not 0 < first <= _MOST_HEADERS or len(counts) - first < 2:  # the rest is of one class
        return []
    if any(counts[label] == 1 for label in labels[first:]):
        return []
    return list(range(first))


def _are_words(labels: list[str]) -> bool:
    """Whether labels are no numbers, and most of them occur again: many classes, then."""
    counts = Counter(labels)
    words = not any(label.lstrip("+-").replace(".", "", 1).isdigit() for label in counts)
    return words and 2 * sum(count > 1 for count in counts.values()) > len(counts)


def _alike(names: list[str]) -> list[list[str]]:
    """Names that a person would read as the same."""
    found: dict[str | Decimal, list[str]] = {}
    for name in names:
        plain = unicodedata.normalize("NFKC", name).casefold().translate(_TYPEWRITTEN)
        visible = "".join(c for c in plain if unicodedata.category(c) != "Cf")
        words = " ".join(visible.strip(" '\"").split())
        number = _as_number(words)
        found.setdefault(words if number is None else number, []).append(name)
    return [alike for alike in found.values() if len(alike) > 1]


def _as_number(text: str) -> Decimal | None:
    """The number that a text is; None for other texts, and for 007, which is a name."""
    return Decimal(text) if _NUMBER.fullmatch(text) else None


_NUMBER = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)(e[+-]?\d{1,3})?", re.ASCII)

#: Hyphens, dashes and quotation marks that stand for those of a keyboard.
_TYPEWRITTEN = str.maketrans(
    "\u2010\u2011\u2012\u2013\u2014\u2212\u2018\u2019\u02bc\u201c\u201d", "------'''\"\""
)


def _some(names: list[str]) -> str:
    more = f", … and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(name if len(name) <= 60 else f"{name[:60]}…" for name in names[:5]) + more
