"""The verb `report claims`: which papers, which records, what is told of them."""

import shlex
from dataclasses import replace
from pathlib import Path

from peftbench import catalog, claims, deciding, papers, places
from peftbench.claims import Judged
from peftbench.comparison import Resamples
from peftbench.reports import claims as told
from peftbench.run import ConfigError, Record
from peftbench.stacked import readable
from peftbench.store import Results
from peftbench.table import Table


def tables(results: Results, words: tuple[str, ...], configs: Path | None) -> list[Table]:
    """Verdicts, cells, sources, published figures.

    Raises:
        ConfigError: for words that mean no paper or no record.
    """
    tested, records, bad = _tested(results, words, configs)
    made = told.tables(tested, records, narrow=True)
    return [replace(made[0], notes=[*made[0].notes, *bad]), *made[1:]]


def missing(results: Results, words: tuple[str, ...], configs: Path | None) -> list[str]:
    """Lines for a shell: commands that run what would decide the claims, and comments.

    Raises:
        ConfigError: for words that mean no paper or no record.
    """
    tested, records, bad = _tested(results, words, configs)
    models = {record.run.model["name"] for record in records}
    found, lost = deciding.wanted(tested, models, configs)
    to = [] if results.folder == Path("results/runs") else ["--results", str(results.folder)]
    lines = [f"# {reason}" for reason in bad]
    for one in found:
        lines.append(f"# {', '.join(one.claims)}")
        lines.append(shlex.join(["peftbench", "run", *to, *one.words]))
    lines += [f"# no words: {reason}" for reason in lost]
    nothing = "# nothing: every claim is decided, or more seeds would not decide it"
    return lines if found or lost else [*lines, nothing]


def _tested(
    results: Results, words: tuple[str, ...], configs: Path | None
) -> tuple[list[Judged], list[Record], list[str]]:
    """The claims, the records they were tested on, and what had to be left out."""
    asked: dict[str, list[str]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals and value):
            raise ConfigError(f"{word}: write paper=NAME, task=NAME and the like")
        asked[key] = value.split(",")
    known = papers.read(asked.pop("paper", None), catalog.folders(configs))
    records, bad = results.scan()
    if not records:
        raise ConfigError(
            f"{results.folder} holds no records; `peftbench run` makes them, "
            "--results results/reference has those of the repository"
        )
    records = places.narrowed(records, asked)
    evaluated, odd = results.scan_evaluated()
    left = [f"left out, unreadable: {reason}" for reason in (bad | odd).values()]
    whole, gone = readable(records, results.predictions)
    tested = claims.test(known, whole, evaluated, Resamples(results.predictions))
    return tested, records, [*left, *gone]
