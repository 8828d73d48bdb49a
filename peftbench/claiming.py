"""The verb `report claims`: which papers, which records, what is told of them."""

import shlex
from pathlib import Path

from peftbench import catalog, claims, deciding, papers, places
from peftbench.claims import Judged
from peftbench.comparison import Resamples
from peftbench.reports import claims as told
from peftbench.run import ConfigError, Record
from peftbench.store import Results
from peftbench.table import Table


def tables(results: Results, words: tuple[str, ...], configs: Path | None) -> list[Table]:
    """Verdicts, cells, sources, published figures.

    Raises:
        ConfigError: for words that mean no paper or no record.
    """
    tested, records = _tested(results, words, configs)
    return told.tables(tested, records)


def missing(results: Results, words: tuple[str, ...], configs: Path | None) -> list[str]:
    """Lines for a shell: commands that run what would decide the claims, and comments.

    Raises:
        ConfigError: for words that mean no paper or no record.
    """
    tested, records = _tested(results, words, configs)
    models = {record.run.model["name"] for record in records}
    found, lost = deciding.wanted(tested, models, configs)
    to = [] if results.folder == Path("results/runs") else ["--results", str(results.folder)]
    lines = []
    for one in found:
        lines.append(f"# {', '.join(one.claims)}")
        lines.append(shlex.join(["peftbench", "run", *to, *one.words]))
    lines += [f"# no words: {reason}" for reason in lost]
    return lines or ["# nothing: every claim is decided, or more seeds would not decide it"]


def _tested(
    results: Results, words: tuple[str, ...], configs: Path | None
) -> tuple[list[Judged], list[Record]]:
    asked: dict[str, list[str]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals and value):
            raise ConfigError(f"{word}: write paper=NAME, task=NAME and the like")
        asked[key] = value.split(",")
    known = papers.read(asked.pop("paper", None), catalog.folders(configs))
    records, _ = results.scan()
    if not records:
        raise ConfigError(
            f"{results.folder} holds no records; `peftbench run` makes them, "
            "--results results/reference has those of the repository"
        )
    records = places.narrowed(records, asked)
    evaluated, _ = results.scan_evaluated()
    return claims.test(known, records, evaluated, Resamples(results.predictions)), records
