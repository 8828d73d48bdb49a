"""The report of a results folder: which tables and plots there are, and where they are written."""

from dataclasses import dataclass
from pathlib import Path

from peftbench.evaluation import Evaluated
from peftbench.reports import calibration, noise, scores, shift, sizes
from peftbench.run import ConfigError, Record
from peftbench.store import Results
from peftbench.table import Table


@dataclass(frozen=True)
class Made:
    """Tables for the terminal, notes below them, and the files."""

    tables: list[Table]
    notes: list[str]
    paths: list[Path]


#: What is told of evaluations, by the suite that made them.
SUITES = {module.SUITE: module for module in (calibration, noise, shift)}


def write(
    results: Results,
    records: list[Record] | None = None,
    evaluated: list[Evaluated] | None = None,
) -> Made:
    """Make the report of records and evaluations (by default all of the folder) and write it.

    Raises:
        ConfigError: if there is no record.
    """
    tables, notes, files = _make(results, records, evaluated)
    folder = results.reports()
    for name, body in files.items():
        results.write(folder / name, body)
    return Made(tables, notes, [folder / name for name in files])


def stale(results: Results) -> list[Path]:
    """Files of the report that are not what the records give; plots only if they are missing."""
    _, _, files = _make(results, None, None)
    folder = results.reports()
    return [
        folder / name
        for name, body in files.items()
        if not (folder / name).exists()
        or (not name.endswith(".png") and (folder / name).read_bytes() != body)
    ]


def _make(
    results: Results, records: list[Record] | None, evaluated: list[Evaluated] | None
) -> tuple[list[Table], list[str], dict[str, bytes]]:
    bad: dict[str, str] = {}
    if records is None:
        records, bad = results.scan()
        evaluated, odd = results.scan_evaluated()
        bad |= odd
    if not records:
        raise ConfigError(f"{results.folder} holds no records; `peftbench run` makes them")
    main, others, costs = (
        scores.scores(records),
        scores.other_metrics(records),
        scores.costs(records),
    )
    suites = _suites(records, evaluated or [])
    tables = [
        main,
        *([others] if others else []),
        costs,
        *(table for made in suites.values() for table in made),
    ]
    notes = [*main.notes, *(f"left out, unreadable: {reason}" for reason in bad.values())]
    texts = {
        "scores.md": main.markdown(),
        "costs.md": costs.markdown(),
        "scores.csv": scores.figures(records).csv(),
    }
    if others:
        texts["metrics.md"] = others.markdown()
    texts |= {
        f"{name}.md": "\n\n".join(table.markdown() for table in made)
        for name, made in suites.items()
    }
    files = {name: text.encode() + b"\n" * name.endswith(".md") for name, text in texts.items()}
    picture = sizes.plot(records)
    if picture is not None:
        files["sizes.png"] = picture
    return tables, notes, files


def _suites(records: list[Record], evaluated: list[Evaluated]) -> dict[str, list[Table]]:
    """Tables of the evaluations whose runs have a record, by the name of the suite."""
    trained = {record.run.key: record.parameters["trained"] for record in records}
    named: dict[str, list[Evaluated]] = {}
    for found in evaluated:
        if found.evaluation.run.key in trained and found.evaluation.suite["_target_"] in SUITES:
            named.setdefault(found.evaluation.suite["name"], []).append(found)
    return {
        name: SUITES[here[0].evaluation.suite["_target_"]].tables(here, trained)
        for name, here in sorted(named.items())
    }
