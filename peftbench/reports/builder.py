"""The report of a results folder: its tables and figures, printed and written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from peftbench.analysis import selection
from peftbench.analysis.comparison import MARGIN
from peftbench.analysis.costs import Prices, read_warning
from peftbench.core.errors import ConfigError, no_records
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Json, Record
from peftbench.core.text import did_you_mean
from peftbench.reports import registry
from peftbench.reports.base import Inputs, gather
from peftbench.reports.plotting import takeaway
from peftbench.reports.tables.markdown import Table
from peftbench.reports.tuning import tuning_tables
from peftbench.results.choices import scan
from peftbench.results.store import ResultsFolder
from peftbench.system import yaml_files
from peftbench.system.io import write_whole

#: Runs that are compared at the end of `run`; with more, a person would wait for it.
COMPARED = 100


@dataclass(frozen=True)
class Made:
    """A report.

    Attributes:
        tables: for the terminal.
        more: those that only the verb `report` shows.
        notes: lines below them.
        answer: which methods differ from the baseline, in a sentence; empty if none was compared.
        texts: files by name.
        draw: makes the pictures' files, which takes longer than all else.
    """

    tables: list[Table]
    more: list[Table]
    notes: list[str]
    answer: str
    texts: dict[str, bytes]
    draw: Callable[[], dict[str, bytes]]

    def to_json(self) -> Json:
        """Answer, tables and notes, as the terminal shows them."""
        tables = [table.to_json() for table in self.tables]
        return {"answer": self.answer, "tables": tables, "notes": self.notes}


def write(
    results: ResultsFolder,
    records: list[Record] | None = None,
    evaluated: list[Evaluated] | None = None,
    prices: Prices | None = None,
    against: str | None = None,
    show: Callable[[Made], None] = lambda made: None,
    margin: float = MARGIN,
) -> list[Path]:
    """Make the report of records and evaluations (by default all of the folder) and write it.

    Args:
        show: given the report before its pictures are drawn; the files are written even where it
            fails.
        margin: a loss of so much is not worse, in comparisons.

    Returns:
        The files.

    Raises:
        ConfigError: if there is no record, or no row is called like `against`, the baseline.
    """
    made = _make(results, records, evaluated, prices, against, margin)
    try:
        show(made)
    finally:
        bodies = made.texts | made.draw()
        for name, body in bodies.items():
            results.write(results.reports() / name, body)
    return [results.reports() / name for name in bodies]


def selected(
    results: ResultsFolder,
    where: str,
    prices: Prices | None = None,
    against: str | None = None,
    margin: float = MARGIN,
) -> Made:
    """Make the report of a folder's runs for which conditions hold; nothing is written.

    Args:
        where: conditions of `analysis.fields`; all runs where empty.

    Raises:
        ConfigError: as `write`, and for conditions that are none or hold for no record.
    """
    return _make(results, None, None, prices, against, margin, where)


def as_json(
    results: ResultsFolder,
    prices: Prices | None = None,
    against: str | None = None,
    margin: float = MARGIN,
    where: str = "",
) -> Json:
    """Return what a report answers as numbers: scores by cell, comparisons, and what is left out.

    Raises:
        ConfigError: as `selected`.
    """
    inputs, notes = read_inputs(results, prices, against, margin, where)
    figures = {one.name: one.csv(inputs).numbers() for one in registry.reports() if one.csv}
    return {
        "folder": str(results.folder),
        "answer": takeaway.sentence(inputs.pairs),
        **figures,
        "comparisons": [pair.to_json() for pair in inputs.pairs],
        "notes": notes,
    }


def stale(
    results: ResultsFolder,
    prices: Prices | None = None,
    against: str | None = None,
    margin: float = MARGIN,
) -> list[Path]:
    """Files of the report that are not what the records give; plots only if they are missing."""
    made = _make(results, None, None, prices, against, margin)
    folder = results.reports()
    return [
        folder / name
        for name, body in (made.texts | made.draw()).items()
        if not (folder / name).exists()
        or (not name.endswith(".png") and (folder / name).read_bytes() != body)
    ]


def plots(
    results: ResultsFolder,
    folder: Path,
    names: Sequence[str] = (),
    kind: str = "png",
    prices: Prices | None = None,
    against: str | None = None,
    margin: float = MARGIN,
    where: str = "",
) -> tuple[list[Path], list[str]]:
    """Write pictures of all records and evaluations, and their captions, into a folder.

    Returns:
        The files, and what was not drawn and why.

    Raises:
        ConfigError: if there is no record, a name is unknown, or what was named cannot be drawn.
    """
    inputs, gone = read_inputs(results, prices, against, margin, where)
    drawn, missing = registry.draw_figures(inputs, names)
    if names and missing:
        raise ConfigError("; ".join(missing))
    made = registry.files(drawn, kind)
    for name, body in made.items():
        write_whole(folder / name, body)
    return [folder / name for name in made], [*gone, *missing]


def read_inputs(
    results: ResultsFolder,
    prices: Prices | None = None,
    against: str | None = None,
    margin: float = MARGIN,
    where: str = "",
) -> tuple[Inputs, list[str]]:
    """What reports are made of, from all of a folder, and what was left out and why.

    Args:
        results, prices, against, margin: as of `write`.
        where: conditions of `analysis.fields` on the runs that count.

    Raises:
        ConfigError: if there is no record, or conditions hold for none.
    """
    records, bad = results.scan()
    evaluated, odd = results.scan_evaluated()
    if not records:
        raise no_records(results.folder, bad)
    records, evaluated = selection.of_records(results, records, evaluated, where)
    inputs, gone = gather(
        results,
        records,
        evaluated,
        prices=prices,
        against=against,
        margin=margin,
        selected=bool(where),
    )
    left = [f"left out, unreadable: {reason}" for reason in (bad | odd).values()]
    return inputs, [*left, *gone]


def tuning(
    results: ResultsFolder, folder: Path | None
) -> tuple[list[Table], list[Path], list[str]]:
    """The tables on learning rates that were chosen; with a folder, written with pictures.

    The results folder need not hold records.

    Returns:
        Tables, files, and a line for each choice that cannot be read.

    Raises:
        ConfigError: if no rate was chosen.
    """
    chosen, bad = scan(results)
    left_out = [f"left out, unreadable: {reason}" for reason in bad.values()]
    if not chosen:
        none = f"{results.folder} holds no chosen learning rates; `peftbench tune` makes them"
        raise ConfigError("; ".join([*left_out, none]))
    tables = tuning_tables(chosen, read_warning(results.folder) or "")
    if folder is None:
        return tables, [], left_out
    drawn, _ = registry.draw_figures(Inputs([], chosen=chosen), ["tuning"])
    bodies = {"tuning.md": _markdown(tables).encode()} | registry.files(drawn, "png")
    for name, body in bodies.items():
        write_whole(folder / name, body)
    return tables, [folder / name for name in bodies], left_out


def _make(
    results: ResultsFolder,
    records: list[Record] | None,
    evaluated: list[Evaluated] | None,
    prices: Prices | None,
    against: str | None,
    margin: float,
    where: str = "",
) -> Made:
    whole = records is None  # of the folder: the verb `report`
    bad: dict[str, str] = {}
    if records is None:
        records, bad = results.scan()
        evaluated, odd = results.scan_evaluated()
        bad |= odd
        records, evaluated = selection.of_records(results, records, evaluated, where)
    if not records:
        raise no_records(results.folder, bad)
    inputs, gone = gather(
        results,
        records,
        evaluated or [],
        prices=prices,
        against=against,
        margin=margin,
        predictions=whole or len(records) <= COMPARED,
        selected=bool(where) or not whole,
    )
    quick: list[Table] = []
    more: list[Table] = []
    texts: dict[str, str] = {}
    for report in registry.reports():
        if not (whole or report.after_run):
            continue
        found = report.tables(inputs) if report.tables else []
        (quick if report.after_run else more).extend(
            report.terminal(inputs) if report.terminal else found
        )
        if found:
            texts[f"{report.name}.md"] = _markdown(found)
        if report.csv:
            texts[f"{report.name}.csv"] = report.csv(inputs).csv()
    suites = _suites(inputs)
    texts |= {f"{name}.md": _markdown(tables) for name, tables in suites.items()}
    shown = [*quick, *(table for tables in suites.values() for table in tables)]
    notes = [
        *dict.fromkeys(note for table in shown for note in table.notes),
        *(f"left out, unreadable: {reason}" for reason in bad.values()),
        *gone,
    ]

    def draw() -> dict[str, bytes]:
        if whole:
            return registry.files(registry.draw_figures(inputs)[0], "png")
        named = [one.name for one in registry.reports() if one.after_run and one.figures]
        drawn, _ = registry.draw_figures(inputs, [*named, *suites])
        return {f"{name}.png": picture.file("png") for name, picture in drawn.items()}

    bodies = {name: text.encode() for name, text in texts.items()}
    return Made(shown, more, notes, takeaway.sentence(inputs.pairs), bodies, draw)


def _markdown(tables: list[Table]) -> str:
    return "\n\n".join(table.markdown() for table in tables) + "\n"


def _suites(inputs: Inputs) -> dict[str, list[Table]]:
    """Tables of the evaluations whose runs have a record, by the name of the suite."""
    trained, named = registry.of_suites(inputs)
    return {
        name: registry.of_suite(here[0].evaluation.kind).tables(here, trained)
        for name, here in named.items()
    }


def read_prices(path: Path) -> Prices:
    """What the user pays, from a yaml such as configs/prices.yaml.

    Raises:
        ConfigError: if it holds anything else.
    """
    try:
        data = yaml_files.read_mapping(path, resolve=False)
    except ConfigError as error:
        raise ConfigError(f"--prices {error}") from error
    known = Prices.__dataclass_fields__
    if not data:
        raise ConfigError(f"--prices {path} holds no prices; copy configs/prices.yaml")
    for name in data:
        if name not in known:
            raise ConfigError(f"--prices {path}: {name}; {did_you_mean(name, known)}")
    return Prices(**data)
