"""Overrides of runs that would help to decide the claims that are open.

Seeds are counted before the correction over a claim's cells, so that the last ones may need more.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

from peftbench.claims.evidence import MOST_TRAIN, NONE_DIVERGES
from peftbench.claims.matching import Item
from peftbench.claims.verdicts import Verdict, judge_folder
from peftbench.config.derived_overrides import (
    as_arguments,
    evaluation_overrides,
    run_overrides,
)
from peftbench.core.errors import ConfigError
from peftbench.results.store import ResultsFolder


@dataclass(frozen=True)
class MissingRuns:
    """Runs, or evaluations of runs, that overrides give.

    Attributes:
        overrides: as they are typed.
        claims: that they would help to decide.
    """

    overrides: tuple[str, ...]
    claims: list[str]


def wanted(
    tested: list[Verdict], models: set[str], configs: Path | None = None
) -> tuple[list[MissingRuns], list[str]]:
    """Overrides for all claims that are undecided or have no runs, and why some have none.

    Where a cell wants more seeds, its own runs are meant with seeds from 0 on; `peftbench run`
    leaves out those that are there.

    Args:
        tested: claims.
        models: of the records; where it is one, the papers' own overrides are of it.
        configs: a user's own folder.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    seeds: dict[str, tuple[Item, int, list[str]]] = {}
    for one in tested:
        name = f"{one.paper.name} {one.claim.name}"
        if one.verdict in ("supported", "contradicted", "not testable"):
            continue
        if not one.cells or one.why:
            for text in one.claim.runs:
                own = text.split()
                if len(models) == 1 and not any(text.startswith("model=") for text in own):
                    own = [f"model={next(iter(models))}", *own]
                found.setdefault(tuple(own), []).append(name)
        for cell in one.cells:
            if cell.verdict == "undecided" and cell.needed is not None:
                for item in cell.sides:
                    key = item.evaluation.key if item.evaluation else item.run.key
                    _, most, claims = seeds.get(key, (item, 0, []))
                    seeds[key] = (item, max(most, cell.needed), [*claims, name])
    lost = []
    for item, most, claims in seeds.values():
        try:
            given = _overrides(item, configs)
        except ConfigError as error:
            lost.append(str(error))
            continue
        own = as_arguments(given | {"seed": f"range(0,{most})"})
        found.setdefault(tuple(own), []).extend(claims)
    return [
        MissingRuns(overrides, list(dict.fromkeys(claims))) for overrides, claims in found.items()
    ], lost


def untuned(tested: list[Verdict]) -> list[str]:
    """Names of undecided claims with cells that wait for chosen learning rates."""
    return _named(tested, [[cell.untuned for cell in one.cells] for one in tested])


def _named(tested: list[Verdict], waits: list[list[bool]]) -> list[str]:
    """Names of undecided claims of which a cell waits."""
    return [
        f"{one.paper.name} {one.claim.name}"
        for one, cells in zip(tested, waits, strict=True)
        if one.verdict == "undecided" and any(cells)
    ]


def waiting(tested: list[Verdict]) -> list[str]:
    """Comments on what claims wait for that runs at the same rates do not give."""
    found = {"learning rates have to be chosen on the task first": untuned(tested)}
    for rate in (NONE_DIVERGES, MOST_TRAIN):
        waits = [[cell.awaits == rate and not cell.untuned for cell in one.cells] for one in tested]
        found[f"a rate is needed at which {rate}"] = _named(tested, waits)
    return [f"# {what}: {', '.join(names)}" for what, names in found.items() if names]


def _overrides(item: Item, configs: Path | None) -> dict[str, str]:
    if item.evaluation is not None:
        return evaluation_overrides(item.evaluation, configs)
    return run_overrides(item.run, configs)


def commands(
    results: ResultsFolder, conditions: tuple[str, ...], configs: Path | None, where: str = ""
) -> list[str]:
    """Lines for a shell: commands that run what would decide the claims, and comments.

    Raises:
        ConfigError: for conditions that match no paper or no record.
    """
    tested, records, bad = judge_folder(results, conditions, configs, where)
    models = {record.run.model.name for record in records}
    found, lost = wanted(tested, models, configs)
    to = [] if results.folder == Path("results/runs") else ["--results", str(results.folder)]
    if configs is not None:
        to += ["--configs", str(configs)]
    lines = [f"# {reason}" for reason in bad]
    for one in found:
        lines.append(f"# {', '.join(one.claims)}")
        lines.append(shlex.join(["peftbench", "run", *to, *one.overrides]))
    lines += [f"# no words: {reason}" for reason in lost]
    others = waiting(tested)
    lines += others
    nothing = "# nothing: every claim is decided, or more seeds would not decide it"
    return lines if found or lost or others else [*lines, nothing]
