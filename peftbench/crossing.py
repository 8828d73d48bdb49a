"""Words to a finished table: the verb `report table`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peftbench import best, files, grid, index, typeset
from peftbench.catalog import nearest
from peftbench.reports import crossed
from peftbench.run import ConfigError
from peftbench.store import Results
from peftbench.table import Table

#: The format of a file, by its suffix.
SUFFIXES = {".md": "markdown", ".csv": "csv", ".tex": "latex", ".html": "html", ".txt": "terminal"}


@dataclass(frozen=True)
class Made:
    """A table, its text (None for the terminal), and what is said aside."""

    table: Table
    text: str | None
    warnings: list[str]


def make(results: Results, words: Sequence[str], form: str | None, output: Path | None) -> Made:
    """The table that words ask of a results folder.

    Args:
        form: a format of `SUFFIXES`; None goes by the suffix of the output.
        output: the file that it is for.

    Raises:
        ConfigError: if there are no records, or they do not give such a table.
    """
    ask, form = grid.asked(words), form or _form(output)
    found = index.of(results)
    warnings = [f"left out, unreadable: {reason}" for reason in found.unreadable.values()]
    if warnings:
        total = len(found) + len(warnings)
        warnings.append(f"{len(warnings)} of {total:,} records are unreadable and left out")
    if found.trouble:
        warnings.append(f"every record is read again next time; cannot write {found.trouble}")
    if not len(found):
        raise ConfigError(
            "; ".join(
                [
                    *warnings,
                    f"{results.folder} holds no{' readable' if warnings else ''} records; "
                    "`peftbench run` makes them, --results names another folder",
                ]
            )
        )
    crossing = grid.of(found, ask)
    tops = best.of(crossing, results)
    for key, reason in tops.unreadable.items():
        warnings.append(f"left out of tests, predictions of {key} are unreadable: {reason}")
    if tops.unreadable:
        warnings.append(f"{len(tops.unreadable)} runs have unreadable predictions: in no test")
    table = crossed.table(crossing, tops)
    if form == "csv":
        return Made(table, crossed.figures(crossing, tops).csv(), warnings)
    texts = {"markdown": lambda: table.markdown() + "\n", "latex": lambda: typeset.latex(table)}
    texts["html"] = lambda: typeset.page(table)
    return Made(table, texts[form]() if form in texts else None, warnings)


def _form(output: Path | None) -> str:
    if output is None:
        return "terminal"
    if output.suffix not in SUFFIXES:
        raise ConfigError(
            f"--output {output}: {nearest(output.suffix, SUFFIXES)}; or say which --format"
        )
    return SUFFIXES[output.suffix]


def write(made: Made, output: Path) -> None:
    """Write the table, whole or not at all.

    Raises:
        ConfigError: if the file cannot be written.
    """
    try:
        files.write_whole(output, _body(made))
    except OSError as error:
        raise ConfigError(f"--output {output}: {error.strerror}") from error


def check(made: Made, output: Path | None) -> str:
    """Say that the file is what the records give.

    Raises:
        ConfigError: if it is not, or there is none.
    """
    if output is None:
        raise ConfigError("--check holds a file against the records; name it with --output")
    if not output.is_file() or output.read_bytes() != _body(made):
        raise ConfigError(f"{output} is not what the records give; write it anew without --check")
    return f"{output} is what the records give"


def _body(made: Made) -> bytes:
    text = made.text if made.text is not None else made.table.plain()
    return text.encode()
