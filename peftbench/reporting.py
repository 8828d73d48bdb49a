"""The report of a results folder: which tables and plots there are, and where they are written."""

from dataclasses import dataclass
from pathlib import Path

from peftbench.reports import scores, sizes
from peftbench.run import ConfigError, Record
from peftbench.store import Results
from peftbench.table import Table


@dataclass(frozen=True)
class Made:
    """Tables for the terminal, notes below them, and the files."""

    tables: list[Table]
    notes: list[str]
    paths: list[Path]


def write(results: Results, records: list[Record] | None = None) -> Made:
    """Make the report of the records (by default all of the folder) and write it.

    Raises:
        ConfigError: if there is no record.
    """
    tables, notes, files = _make(results, records)
    folder = results.reports()
    for name, body in files.items():
        results.write(folder / name, body)
    return Made(tables, notes, [folder / name for name in files])


def stale(results: Results) -> list[Path]:
    """Files of the report that are not what the records give; plots only if they are missing."""
    _, _, files = _make(results, None)
    folder = results.reports()
    return [
        folder / name
        for name, body in files.items()
        if not (folder / name).exists()
        or (not name.endswith(".png") and (folder / name).read_bytes() != body)
    ]


def _make(
    results: Results, records: list[Record] | None
) -> tuple[list[Table], list[str], dict[str, bytes]]:
    bad: dict[str, str] = {}
    if records is None:
        records, bad = results.scan()
    if not records:
        raise ConfigError(f"{results.folder} holds no records; `peftbench run` makes them")
    main, others, costs = (
        scores.scores(records),
        scores.other_metrics(records),
        scores.costs(records),
    )
    tables = [main, *([others] if others else []), costs]
    notes = [*main.notes, *(f"left out, unreadable: {reason}" for reason in bad.values())]
    texts = {
        "scores.md": main.markdown(),
        "costs.md": costs.markdown(),
        "scores.csv": scores.figures(records).csv(),
    }
    if others:
        texts["metrics.md"] = others.markdown()
    files = {name: text.encode() + b"\n" * name.endswith(".md") for name, text in texts.items()}
    picture = sizes.plot(records)
    if picture is not None:
        files["sizes.png"] = picture
    return tables, notes, files
