"""The reports of this package, found by listing it, and the figures of a results folder."""

import html
import pkgutil
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module

import peftbench.reports
from peftbench.config import catalog
from peftbench.core.configs import class_name
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluated
from peftbench.core.text import did_you_mean, file_stem
from peftbench.reports.base import Inputs, Report, SuiteReport
from peftbench.reports.plotting.style import Figure


@cache
def reports() -> list[Report]:
    """Reports on records, in order."""
    found = [one for one in _declared() if isinstance(one, Report)]
    return sorted(found, key=lambda one: (one.order, one.name))


def of_suite(kind: str) -> SuiteReport:
    """The report on evaluations of a kind, see `Evaluation.kind`."""
    known = _suite_reports()
    return known.get(kind, known[""])


@cache
def _suite_reports() -> dict[str, SuiteReport]:
    return {one.suite: one for one in _declared() if isinstance(one, SuiteReport)}


def _declared() -> Iterator[Report | SuiteReport]:
    """Reports that modules of this package declare; its packages hold none."""
    for module in pkgutil.iter_modules(peftbench.reports.__path__):
        if not module.ispkg:
            named = vars(import_module(f"{peftbench.reports.__name__}.{module.name}"))
            yield from (one for one in named.values() if isinstance(one, Report | SuiteReport))


def drawn_suites() -> list[str]:
    """Names of the packaged suites whose evaluations have pictures."""
    targets = catalog.packaged_targets("suite")
    return [name for name, target in targets.items() if of_suite(class_name(target)).figures]


def draw_figures(inputs: Inputs, names: Iterable[str] = ()) -> tuple[dict[str, Figure], list[str]]:
    """Pictures by file name without its end, and what could not be drawn for want of what.

    Args:
        inputs: what there is.
        names: of reports and suites; all that can be drawn if there are none.

    Raises:
        ConfigError: if a name is unknown.
    """
    trained, by_suite = of_suites(inputs)
    drawn = {one.name: one for one in reports() if one.figures is not None}
    pictured = {
        name: (draw, here)
        for name, here in by_suite.items()
        if (draw := of_suite(here[0].evaluation.kind).figures)
    }
    known = list(dict.fromkeys([*drawn, *drawn_suites(), *pictured]))
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        if name not in known:
            raise ConfigError(f"report plots {name}: {did_you_mean(name, known)}")
    made: dict[str, Figure] = {}
    missing = []
    for name in wanted or known:
        found: list[Figure] = []
        needs = f"evaluations by suite={name} of a kind that has a picture"
        if name in drawn:
            figures, needs = drawn[name].figures, drawn[name].needs
            found = figures(inputs) if figures else []
        elif name in pictured:
            draw, here = pictured[name]
            found = draw(here, trained, inputs.palette)
        if not found:
            missing.append(f"{name}: not drawn; it takes {needs}")
        for picture in found:
            file = _file(name, picture.part, made)
            made[file] = picture
    return made, missing


def of_suites(inputs: Inputs) -> tuple[dict[str, int], dict[str, list[Evaluated]]]:
    """Trained parameters by key of a run; evaluations whose runs have a record, by suite.

    A suite that is called like a report is `suite_NAME`: both name files.
    """
    taken = {one.name for one in reports()}
    trained = {record.run.key: record.parameters["trained"] for record in inputs.records}
    named: dict[str, list[Evaluated]] = {}
    for found in inputs.evaluated:
        if found.evaluation.run.key in trained:
            stem = file_stem(found.evaluation.suite["name"])
            named.setdefault(f"suite_{stem}" if stem in taken else stem, []).append(found)
    return trained, dict(sorted(named.items()))


def files(pictures: dict[str, Figure], kind: str) -> dict[str, bytes]:
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
