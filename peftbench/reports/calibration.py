"""How sure each method is, and how sure it should be: a table a task, means over seeds."""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

from peftbench.analysis import grouping
from peftbench.analysis.held_out_review import ERRORS
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Json
from peftbench.reports.base import SuiteReport
from peftbench.reports.plotting import page_panels
from peftbench.reports.plotting import style as drawing
from peftbench.reports.plotting.page_panels import Line
from peftbench.reports.plotting.palette import MarkerStyle, Palette
from peftbench.reports.plotting.style import Figure
from peftbench.reports.tables.markdown import Table

REPORT = SuiteReport(
    suite="Calibration",
    tables=lambda found, trained: tables(found, trained),
    figures=lambda found, trained, palette: plot_calibration(found, trained, palette),
    page_plots=lambda found, trained: page_plots(found, trained),
)


def _review(told: Json, key: str, error: float) -> Any:
    found = told.get("held_out_review")
    return None if found is None else found[f"{error:g}"][key]


_SURE: dict[str, Callable[[Json], Any]] = {
    "ECE": lambda told: told["before"]["ece"],
    "ECE by chance": lambda told: told["before"].get("by_chance"),
    "tempered": lambda told: (told["after"] or {}).get("ece"),
    "tempered by chance": lambda told: (told["after"] or {}).get("by_chance"),
    "held": lambda told: told["held"],
    "temperature": lambda told: told["temperature"],
    "NLL": lambda told: told["before"]["nll"],
    "Brier": lambda told: told["before"]["brier"],
    "AURC": lambda told: told["aurc"]["confidence"],
    "by variance": lambda told: told["aurc"].get("variance"),
    "check for 90 %": lambda told: told["to_check"].get("0.9"),
    "for 95 %": lambda told: told["to_check"].get("0.95"),
    **{
        name.format(f"{100 * error:g} %"): partial(_review, key=key, error=error)
        for error in ERRORS
        for name, key in (("reviewed for {}", "reviewed"), ("error at {}", "error"))
    },
    "variance": lambda told: told.get("variance"),
    "MI": lambda told: told.get("mutual_information"),
}

_VALUES: dict[str, Callable[[Json], Any]] = {
    "held": lambda told: told["held"],
    "noise sd": lambda told: None if told["noise"] is None else told["noise"] ** 0.5,
    "NLL": lambda told: told["nll"],
    "inside 50 %": lambda told: (told["coverage"] or {}).get("0.5"),
    "inside 80 %": lambda told: (told["coverage"] or {}).get("0.8"),
    "inside 95 %": lambda told: (told["coverage"] or {}).get("0.95"),
    "RMSE": lambda told: told.get("rmse"),
    "variance": lambda told: told.get("variance"),
}

#: Shown as they are; the others in percent.
_PLAIN = {"temperature", "NLL", "Brier", "noise sd", "RMSE"}

#: Columns only where a method of the table samples, or where predictions could be read.
_SAMPLED = {
    *("by variance", "variance", "MI", "ECE by chance", "tempered by chance"),
    *(name for name in _SURE if name.startswith(("reviewed for", "error at"))),
}


def tables(found: list[Evaluated], trained: dict[str, int]) -> list[Table]:
    """A table for each task and training size; those with classes first, then those with values.

    Args:
        found: evaluations by the suite.
        trained: trained parameters of each run, by key.
    """
    made = []
    for start, columns, regression, notes in (
        ("Calibration", _SURE, False, _NOTES),
        ("Calibration of values", _VALUES, True, _VALUE_NOTES),
    ):
        here = [e for e in found if (e.evaluation.run.task.classes == 1) == regression]
        sections = grouping.sections(here, trained)
        for section in sections:
            shown = {
                name: pick
                for name, pick in columns.items()
                if name not in _SAMPLED or any(pick(e.findings) is not None for e in section.found)
            }
            lines = [
                [
                    *row,
                    *(
                        _cell(name, [pick(e.findings) for e in members])
                        for name, pick in shown.items()
                    ),
                ]
                for row, members in section.rows.items()
            ]
            heads = ["method", *section.split, *shown]
            labels = 1 + len(section.split)
            told = notes if section is sections[-1] else []
            why = {
                e.findings["nothing_held"] for e in section.found if "nothing_held" in e.findings
            }
            told = [*told, *(f"Nothing was fitted: {reason}." for reason in sorted(why))]
            bound = sum("at_bound" in e.findings for e in section.found)
            told += [_AT_BOUND.format(bound, len(section.found))] * bool(bound)
            made.append(Table(f"{start}: {section.title}", heads, lines, labels, told))
    return made


_CAPTION = (
    "Above: accuracy by confidence, in tenths, all seeds of a row together; marks grow with the "
    "share of the answers, and tenths with fewer than {few} answers in a hundred are left out. "
    "Dotted: as sure as right. Below: error by coverage, the most confident answers first; means "
    "over seeds.{apart}"
)

#: Tenths of confidence with less than this part of the answers say nothing.
_FEW = 0.01

#: Rows of one picture.
_MOST = 8


def plot_calibration(
    found: list[Evaluated], trained: dict[str, int], palette: Palette
) -> list[Figure]:
    """Reliability above, risk over coverage below; a panel for each task with classes and size.

    More than eight rows go to several pictures.
    """
    here = [e for e in found if e.evaluation.run.task.classes > 1]
    sections = grouping.sections(here, trained)
    names = grouping.series(sections, trained)
    looks = palette.looks(names)
    made: list[Figure] = []
    for start in range(0, len(names), _MOST):
        shown = names[start : start + _MOST]
        parted = [
            (section, {row: label for row, label in _labels(section).items() if label in shown})
            for section in sections
        ]
        parted = [(section, labels) for section, labels in parted if labels]
        for page in range(0, len(parted), 3):
            part = f"{len(made) + 1}" if made else ""
            apart = " Rows of more than eight stand in several pictures." * (len(names) > _MOST)
            caption = _CAPTION.format(few=round(100 * _FEW), apart=apart)
            made.append(Figure(_page(parted[page : page + 3], looks, shown), caption, part))
    return made


def _labels(section: grouping.TableSection) -> dict[grouping.Row, str]:
    return grouping.labels(section.rows, section.split)


def _page(
    parted: list[tuple[grouping.TableSection, dict[grouping.Row, str]]],
    looks: dict[str, MarkerStyle],
    shown: list[str],
) -> Any:
    figure, axes = drawing.panels(len(parted), height=1.9, rows=2)
    for (above, below), (section, labels) in zip(axes, parted, strict=True):
        above.plot([0, 100], [0, 100], color=drawing.REFERENCE, linestyle=":", linewidth=0.9)
        low = low_right = 100.0
        for row, label in labels.items():
            told = [e.findings for e in section.rows[row]]
            sure, right, share = _pooled([bin_ for one in told for bin_ in one["reliability"]])
            low, low_right = min([low, *sure]), min([low_right, *right])
            look = looks[label]
            above.plot(sure, right, **look | {"marker": "none"})
            sizes = [8 + 60 * part for part in share]
            above.scatter(
                sure, right, s=sizes, c=look["color"], marker=look["marker"], zorder=3, linewidths=0
            )
            places = list(told[0]["risk"])
            risk = [sum(one["risk"][place] for one in told) / len(told) for place in places]
            below.plot(
                [100 * float(p) for p in places], [100 * r for r in risk], label=label, **look
            )
        above.set_xlim(min(50, low) - 2, 101)
        above.set_ylim(min(50, low_right) - 2, 101)
        drawing.plain(above, section.title, "confidence (%)", "accuracy (%)")
        drawing.plain(below, "", "coverage, surest first (%)", "error (%)")
        below.set_ylim(bottom=0)
    drawing.legend(figure, [below for _, below in axes], shown)
    return figure


def _pooled(bins: list[dict[str, float]]) -> tuple[list[float], list[float], list[float]]:
    """Confidence, accuracy (percent) and share of bins of several seeds, put together by tenths."""
    every = sum(bin_["share"] for bin_ in bins)
    sure, right, share = [], [], []
    for whole, confident, accurate in _tenths(bins):
        if whole < _FEW * every:
            continue
        sure.append(100 * confident / whole)
        right.append(100 * accurate / whole)
        share.append(whole / every)
    return sure, right, share


def _tenths(bins: list[dict[str, float]]) -> list[tuple[float, float, float]]:
    """Share of the bins of each tenth of confidence; sums of confidence and accuracy, by share."""
    tenths: dict[int, list[dict[str, float]]] = {}
    for bin_ in bins:
        tenths.setdefault(min(9, int(bin_["confidence"] * 10)), []).append(bin_)
    return [
        (
            sum(bin_["share"] for bin_ in here),
            sum(bin_["share"] * bin_["confidence"] for bin_ in here),
            sum(bin_["share"] * bin_["accuracy"] for bin_ in here),
        )
        for _, here in sorted(tenths.items())
    ]


def _by_chance(values: list[dict[str, float] | None]) -> str:
    """Means over seeds of the mean and the ends of the interval."""
    known = [one for one in values if one is not None]
    if not known:
        return ""
    mean, low, high = (
        100 * statistics.fmean(one[name] for one in known) for name in ("mean", "low", "high")
    )
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def _cell(name: str, values: list[Any]) -> str:
    if name.endswith("by chance"):
        return _by_chance(values)
    defined = [value for value in values if value is not None]
    if not defined:
        return ""
    if name == "held":  # one number, unless runs differ
        ends = sorted({min(defined), max(defined)})
        return " to ".join(f"{end:,}" for end in ends)
    if name in ("variance", "MI"):  # anything from tenths to a hundred-thousandth
        return f"{statistics.fmean(defined):.2g} ({len(defined)})"
    return grouping.spread(values, 1, 2) if name in _PLAIN else grouping.spread(values)


_AT_BOUND = (
    "Temperature at an end of its range, e^-4 or e^4, in {} of {} evaluations: the held examples "
    "are all answered rightly, or no better than by chance; tempered figures say little there."
)

_NOTES = [
    "Mean ± standard deviation over seeds (number of seeds); percent but for temperature, NLL "
    "(nats), Brier, variance and MI. ECE: 15 bins of equal width; tempered: after dividing the "
    "log odds by the temperature, which was fitted on training examples that the run did not use "
    "(held: how many). "
    "By chance: the ECE of such a model whose probabilities are right, mean [95 %] over 200 draws "
    "of the labels from them, for one run (the mean over seeds varies less); the ECE of a run "
    "inside says nothing against its calibration. Equally sure "
    "examples count as in all their orders. "
    "AURC: mean error over all coverages, most confident first, or by the variance of the samples "
    "where the method has some. Check: the share that a person must look at, least sure first, "
    "for this accuracy, found with the labels of this split: what the best threshold would need. "
    "Reviewed: the share below a threshold that examples which the run did not use show to leave "
    "at most so many wrong answers, with 90 % probability if rows are independent "
    "(all where they show none); error: of the answers above it. "
    "Of methods that sample, means over examples: variance, that of the samples' "
    "probabilities, summed over classes; MI: mutual information of sample and class in "
    "nats, which is the mean KL divergence of the samples from their average."
]
_VALUE_NOTES = [
    "Labels under a Gaussian around the prediction: its variance is that of the method's samples "
    "(0 where it has none) and one noise, fitted on training examples that the run did not use "
    "(held: how many). "
    "Inside 95 %: how many labels lie in the central interval of that probability, in percent. "
    "Variance: mean variance of the samples of methods that sample."
]


def page_plots(found: list[Evaluated], trained: dict[str, int]) -> list[Json]:
    """Reliability and risk of tasks with classes."""
    here = [e for e in found if e.evaluation.run.task.classes > 1]
    parts = grouping.sections(here, trained)
    return [
        {
            "kind": "reliability",
            "panels": [page_panels.panel(part, _reliability, metric="accuracy") for part in parts],
        },
        {
            "kind": "risk",
            "panels": [page_panels.panel(part, _risk, metric="error") for part in parts],
        },
    ]


def _reliability(members: list[Evaluated]) -> Line:
    """Confidence and accuracy by tenths of confidence, the examples of all seeds together."""
    bins = [bin_ for e in members for bin_ in e.findings["reliability"]]
    return [(sure / share, right / share) for share, sure, right in _tenths(bins)]


def _risk(members: list[Evaluated]) -> Line:
    places = list(members[0].findings["risk"])
    columns = [[e.findings["risk"].get(place) for e in members] for place in places]
    return page_panels.along([float(place) for place in places], columns)
