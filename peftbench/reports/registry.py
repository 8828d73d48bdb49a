"""Which pictures a results folder gives, by the question that each answers."""

import html
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from peftbench.analysis.comparison import Pair
from peftbench.config import catalog
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Record
from peftbench.core.text import did_you_mean
from peftbench.reports import (
    calibration,
    continual,
    in_context,
    learning_curves,
    noise,
    paired,
    pareto,
    score_vs_time,
    seeds,
    shift,
    sizes,
)
from peftbench.reports.plotting.palette import Palette
from peftbench.reports.plotting.style import Picture
from peftbench.reports.spending import Prices

#: What is told of evaluations, by the suite that made them.
SUITES = {module.SUITE: module for module in (calibration, in_context, noise, continual, shift)}


@dataclass(frozen=True)
class Shown:
    """What is drawn.

    Attributes:
        records, evaluated: of a folder.
        prices: for money.
        pairs: comparisons of rows; asked for only where they are drawn, for they take a moment.
    """

    records: list[Record]
    evaluated: list[Evaluated]
    prices: Prices = field(default_factory=Prices)
    pairs: Callable[[], list[Pair]] = list

    @property
    def palette(self) -> Palette:
        """One for all pictures of the folder."""
        runs = [r.run for r in self.records] + [e.evaluation.run for e in self.evaluated]
        return Palette.of(run.method["name"] for run in runs)


_DRAWN: dict[str, tuple[Callable[[Shown], list[Picture]], str]] = {
    "sizes": (lambda s: sizes.plot(s.records, s.palette), sizes.NEEDS),
    "anytime": (lambda s: score_vs_time.plot(s.records, s.palette), score_vs_time.NEEDS),
    "pareto": (
        lambda s: pareto.plot(
            s.records,
            s.palette,
            s.prices.money if s.prices.known() else None,
            s.prices.currency or "",
        ),
        pareto.NEEDS,
    ),
    "seeds": (lambda s: seeds.plot(s.records, s.palette), seeds.NEEDS),
    "learning": (lambda s: learning_curves.plot(s.records, s.palette), learning_curves.NEEDS),
    "paired": (lambda s: paired.plot(s.pairs()), paired.NEEDS),
}


def offered() -> list[str]:
    """Questions that have pictures, whatever the folder holds."""
    return [*_DRAWN, *catalog.options("suite", (catalog.packaged(),))]


def draw(shown: Shown, names: Iterable[str] = ()) -> tuple[dict[str, Picture], list[str]]:
    """Pictures by file name without its end, and what could not be drawn for want of what.

    Args:
        shown: what there is.
        names: of questions; all that can be drawn if there are none.

    Raises:
        ConfigError: if a name is unknown.
    """
    trained, by_suite = of_suites(shown.records, shown.evaluated)
    known = list(dict.fromkeys([*offered(), *by_suite]))
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        if name not in known:
            raise ConfigError(f"report plots {name}: {did_you_mean(name, known)}")
    made: dict[str, Picture] = {}
    missing = []
    for name in wanted or known:
        if name in _DRAWN:
            found, needs = _DRAWN[name][0](shown), _DRAWN[name][1]
        else:
            here = by_suite.get(name, [])
            module = SUITES[here[0].evaluation.suite["_target_"]] if here else None
            found = module.plot(here, trained, shown.palette) if module else []
            needs = f"evaluations by suite={name} of a kind that has a picture"
        if not found:
            missing.append(f"{name}: not drawn; it takes {needs}")
        for picture in found:
            file = _file(name, picture.part, made)
            made[file] = picture
    return made, missing


def of_suites(
    records: list[Record], evaluated: list[Evaluated]
) -> tuple[dict[str, int], dict[str, list[Evaluated]]]:
    """Trained parameters by key of a run; evaluations whose runs have a record, by suite."""
    trained = {record.run.key: record.parameters["trained"] for record in records}
    named: dict[str, list[Evaluated]] = {}
    for found in evaluated:
        if found.evaluation.run.key in trained and found.evaluation.suite["_target_"] in SUITES:
            named.setdefault(found.evaluation.suite["name"], []).append(found)
    return trained, dict(sorted(named.items()))


def files(pictures: dict[str, Picture], kind: str) -> dict[str, bytes]:
    """Files by name: the pictures, and `plots.md` with their captions."""
    made = {f"{name}.{kind}": picture.file(kind) for name, picture in pictures.items()}
    sign = "" if kind == "pdf" else "!"
    told = [
        f"### {name}\n\n{sign}[{name}]({name}.{kind})\n\n{html.escape(picture.caption, False)}\n"
        for name, picture in pictures.items()
    ]
    return made | {"plots.md": "\n".join(["## Plots\n", *told]).encode()}


def _file(name: str, part: str, taken: Iterable[str]) -> str:
    """A name that none has; tasks may be called alike but for signs that no file name has."""
    file = "_".join(filter(None, [name, part]))
    number = 2
    while file in taken:
        file = "_".join(filter(None, [name, part, str(number)]))
        number += 1
    return file
