"""The report of a results folder: which tables and plots there are, and where they are written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from peftbench.analysis.comparison import Pair, Resamples, compare
from peftbench.claims import schema, verdicts
from peftbench.config import catalog
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Record
from peftbench.core.text import did_you_mean
from peftbench.reports import claims as claimed
from peftbench.reports import ensembles, paired, ranking, ranks, registry, scores, spending
from peftbench.reports.registry import SUITES, Shown
from peftbench.reports.spending import Prices
from peftbench.reports.tables.markdown import Table
from peftbench.results.predictions import readable
from peftbench.results.store import Results
from peftbench.system.io import write_whole


@dataclass(frozen=True)
class Made:
    """A report.

    Attributes:
        tables: for the terminal.
        more: those that only the verb `report` shows.
        notes: lines below them.
        texts: files by name.
        draw: makes the pictures' files, which takes longer than all else.
    """

    tables: list[Table]
    more: list[Table]
    notes: list[str]
    texts: dict[str, bytes]
    draw: Callable[[], dict[str, bytes]]


def write(
    results: Results,
    records: list[Record] | None = None,
    evaluated: list[Evaluated] | None = None,
    prices: Prices | None = None,
    against: str | None = None,
    show: Callable[[Made], None] = lambda made: None,
) -> list[Path]:
    """Make the report of records and evaluations (by default all of the folder) and write it.

    Args:
        show: given the report before its pictures are drawn.

    Returns:
        The files.

    Raises:
        ConfigError: if there is no record, or no row is called like `against`, the baseline.
    """
    made = _make(results, records, evaluated, prices, against)
    show(made)
    paths = []
    for name, body in (made.texts | made.draw()).items():
        paths.append(results.reports() / name)
        results.write(paths[-1], body)
    return paths


def stale(results: Results, prices: Prices | None = None, against: str | None = None) -> list[Path]:
    """Files of the report that are not what the records give; plots only if they are missing."""
    made = _make(results, None, None, prices, against)
    folder = results.reports()
    return [
        folder / name
        for name, body in (made.texts | made.draw()).items()
        if not (folder / name).exists()
        or (not name.endswith(".png") and (folder / name).read_bytes() != body)
    ]


def plots(
    results: Results,
    folder: Path,
    names: Sequence[str] = (),
    kind: str = "png",
    prices: Prices | None = None,
    against: str | None = None,
) -> tuple[list[Path], list[str]]:
    """Write pictures of all records and evaluations, and their captions, into a folder.

    Returns:
        The files, and what was not drawn and why.

    Raises:
        ConfigError: if there is no record, a name is unknown, or what was named cannot be drawn.
    """
    records, bad = results.scan()
    evaluated, odd = results.scan_evaluated()
    if not records:
        raise ConfigError(f"{results.folder} holds no records; `peftbench run` makes them")
    tested, gone = readable(records, results.predictions)
    shown = Shown(
        records,
        evaluated,
        prices or Prices(),
        lambda: compare(tested, results.predictions, against)[0],
    )
    drawn, missing = registry.draw(shown, names)
    if names and missing:
        raise ConfigError("; ".join(missing))
    made = registry.files(drawn, kind)
    for name, body in made.items():
        write_whole(folder / name, body)
    left = [f"left out, unreadable: {reason}" for reason in (bad | odd).values()]
    return [folder / name for name in made], [*left, *gone, *missing]


def _make(
    results: Results,
    records: list[Record] | None,
    evaluated: list[Evaluated] | None,
    prices: Prices | None,
    against: str | None,
) -> Made:
    whole = records is None  # of the folder: the verb `report`
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
    more: dict[str, list[Table]] = {}
    gone: list[str] = []
    below: list[Table] = []
    pairs: list[Pair] = []
    if whole:
        tested, gone = readable(records, results.predictions)
        more = _more(records, tested, results, prices or Prices())
        resamples = Resamples(results.predictions)
        pairs, split = compare(tested, results.predictions, against, resamples)
        if pairs:
            more["paired"] = [paired.table(pairs, split)]
        known = schema.read(None, catalog.folders())
        judged = verdicts.test(known, tested, evaluated or [], resamples)
        if any(one.cells for one in judged):
            more["claims"] = claimed.tables(judged, records)
            below = claimed.tables(judged, records, narrow=True)
    notes = [
        *main.notes,
        *costs.notes,
        *(f"left out, unreadable: {reason}" for reason in bad.values()),
        *gone,
    ]
    texts = {
        "scores.md": main.markdown(),
        "costs.md": costs.markdown(),
        "scores.csv": scores.figures(records).csv(),
    }
    if others:
        texts["metrics.md"] = others.markdown()
    texts |= {
        f"{name}.md": "\n\n".join(table.markdown() for table in made)
        for name, made in (more | suites).items()
    }
    bodies = {name: text.encode() + b"\n" * name.endswith(".md") for name, text in texts.items()}
    shown = Shown(records, evaluated or [], prices or Prices(), lambda: pairs)

    def draw() -> dict[str, bytes]:
        if whole:
            return registry.files(registry.draw(shown)[0], "png")
        drawn, _ = registry.draw(shown, ["sizes", *suites])
        return {f"{name}.png": picture.file("png") for name, picture in drawn.items()}

    shown_too = [table for name, made in more.items() if name != "claims" for table in made]
    return Made(tables, [*shown_too, *below], notes, bodies, draw)


def _more(
    records: list[Record], tested: list[Record], results: Results, prices: Prices
) -> dict[str, list[Table]]:
    """What is told of a whole folder only: it takes the predictions, or a moment."""
    made: dict[str, list[Table | None]] = {
        "spending": [spending.table(records, prices)],
        "validation": [ranking.table(tested, results.predictions)],
        "ensembles": [*ensembles.tables(tested, results.predictions)],
        "ranks": [ranks.table(records)],
    }
    there = {name: [table for table in tables if table] for name, tables in made.items()}
    return {name: tables for name, tables in there.items() if tables}


def _suites(records: list[Record], evaluated: list[Evaluated]) -> dict[str, list[Table]]:
    """Tables of the evaluations whose runs have a record, by the name of the suite."""
    trained, named = registry.of_suites(records, evaluated)
    return {
        name: SUITES[here[0].evaluation.suite["_target_"]].tables(here, trained)
        for name, here in named.items()
    }


def read_prices(path: Path) -> Prices:
    """What the user pays, from a yaml such as configs/prices.yaml.

    Raises:
        ConfigError: if it holds anything else.
    """
    import yaml

    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--prices {path}: {error}") from error
    known = Prices.__dataclass_fields__
    if not isinstance(data, dict):
        raise ConfigError(f"--prices {path} holds no prices; copy configs/prices.yaml")
    for name in data:
        if name not in known:
            raise ConfigError(f"--prices {path}: {name}; {did_you_mean(str(name), known)}")
    return Prices(**data)
