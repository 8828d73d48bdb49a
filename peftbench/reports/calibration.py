"""How sure each method is, and how sure it should be: method × task, means over seeds."""

from collections.abc import Callable
from typing import Any

from peftbench import figure as drawing
from peftbench import rows
from peftbench.evaluation import Evaluated
from peftbench.run import Json
from peftbench.table import Table

#: The suite whose findings these are.
SUITE = "peftbench.suites.calibration.Calibration"

_SURE: dict[str, Callable[[Json], Any]] = {
    "ECE": lambda told: told["before"]["ece"],
    "tempered": lambda told: (told["after"] or {}).get("ece"),
    "temperature": lambda told: told["temperature"],
    "NLL": lambda told: told["before"]["nll"],
    "Brier": lambda told: told["before"]["brier"],
    "AURC": lambda told: told["aurc"]["confidence"],
    "by variance": lambda told: told["aurc"].get("variance"),
    "check for 90 %": lambda told: told["to_check"].get("0.9"),
    "for 95 %": lambda told: told["to_check"].get("0.95"),
}

_VALUES: dict[str, Callable[[Json], Any]] = {
    "noise sd": lambda told: None if told["noise"] is None else told["noise"] ** 0.5,
    "NLL": lambda told: told["nll"],
    "inside 50 %": lambda told: (told["coverage"] or {}).get("0.5"),
    "inside 80 %": lambda told: (told["coverage"] or {}).get("0.8"),
    "inside 95 %": lambda told: (told["coverage"] or {}).get("0.95"),
    "RMSE": lambda told: told.get("rmse"),
}

#: Shown as they are; the others in percent.
_PLAIN = {"temperature", "NLL", "Brier", "noise sd", "RMSE"}


def tables(found: list[Evaluated], trained: dict[str, int]) -> list[Table]:
    """One table for tasks with classes and one for those with values, where there are such.

    Args:
        found: evaluations by the suite.
        trained: trained parameters of each run, by key.
    """
    made = []
    for title, columns, regression, notes in (
        ("Calibration", _SURE, False, _NOTES),
        ("Calibration of values", _VALUES, True, _VALUE_NOTES),
    ):
        here = [e for e in found if (e.evaluation.run.task["classes"] == 1) == regression]
        if not here:
            continue
        by_row, split = rows.grouped(
            here,
            lambda e: e.evaluation.run,
            lambda e: (e.evaluation.run.task["name"], e.evaluation.run.size),
            lambda e: trained[e.evaluation.run.key],
        )
        lines = []
        for row, members in by_row.items():
            for task in sorted({e.evaluation.run.task["name"] for e in members}):
                told = [e.findings for e in members if e.evaluation.run.task["name"] == task]
                lines.append(
                    [
                        *row,
                        task,
                        *(
                            _cell(name, [pick(one) for one in told])
                            for name, pick in columns.items()
                        ),
                    ]
                )
        lines.sort(key=lambda line: line[1 + len(split)])
        made.append(
            Table(title, ["method", *split, "task", *columns], lines, 2 + len(split), notes)
        )
    return made


def plot(found: list[Evaluated], trained: dict[str, int]) -> bytes | None:
    """Reliability above, risk over coverage below, a panel for each task with classes."""
    here = [e for e in found if e.evaluation.run.task["classes"] > 1]
    tasks = sorted({e.evaluation.run.task["name"] for e in here})
    if not tasks:
        return None
    methods = rows.methods(
        (e.evaluation.run.method["name"], trained[e.evaluation.run.key]) for e in here
    )
    figure, axes = drawing.panels(len(tasks), rows=2)
    for column, task in enumerate(tasks):
        above, below = axes[0][column], axes[1][column]
        above.plot([0, 100], [0, 100], color="#777777", linestyle=":", label="as sure as right")
        for number, method in enumerate(methods):
            told = [
                e.findings
                for e in here
                if (e.evaluation.run.task["name"], e.evaluation.run.method["name"])
                == (task, method)
            ]
            if not told:
                continue
            look = drawing.look(number) | {"markersize": 4, "linewidth": 1.4, "label": method}
            above.plot(*_pooled([bin_ for one in told for bin_ in one["reliability"]]), **look)
            places = list(told[0]["risk"])
            risk = [sum(one["risk"][place] for one in told) / len(told) for place in places]
            below.plot([100 * float(p) for p in places], [100 * r for r in risk], **look)
        low = min((line.get_xdata().min() for line in above.get_lines()[1:]), default=50)
        above.set_xlim(min(50, low) - 2, 101)
        drawing.plain(above, task, "confidence (%)", "accuracy (%)")
        drawing.plain(below, "", "coverage, surest first (%)", "error (%)")
        below.set_ylim(bottom=0)
    drawing.legend(figure, axes, [*methods, "as sure as right"])
    return drawing.png(figure)


def _pooled(bins: list[dict[str, float]]) -> tuple[list[float], list[float]]:
    """Confidence and accuracy in percent, bins of several seeds put together by tenths."""
    tenths: dict[int, list[dict[str, float]]] = {}
    for bin_ in bins:
        tenths.setdefault(min(9, int(bin_["confidence"] * 10)), []).append(bin_)
    sure, right = [], []
    for _, here in sorted(tenths.items()):
        whole = sum(bin_["share"] for bin_ in here)
        sure.append(100 * sum(bin_["share"] * bin_["confidence"] for bin_ in here) / whole)
        right.append(100 * sum(bin_["share"] * bin_["accuracy"] for bin_ in here) / whole)
    return sure, right


def _cell(name: str, values: list[float | None]) -> str:
    if all(value is None for value in values):
        return ""
    return rows.spread(values, 1, 2) if name in _PLAIN else rows.spread(values)


_NOTES = [
    "Mean ± standard deviation over seeds (number of seeds); percent but for temperature, NLL "
    "(nats) and Brier. ECE: 15 bins of equal width; tempered: after dividing the log odds by the "
    "temperature, which was fitted on training examples that the run did not use. AURC: mean error "
    "over all coverages, most confident first, or by the variance of the samples where the method "
    "has some. Check: the share that a person must look at, least sure first, for this accuracy."
]
_VALUE_NOTES = [
    "Labels under a Gaussian around the prediction: its variance is that of the method's samples "
    "(0 where it has none) and one noise, fitted on training examples that the run did not use. "
    "Inside 95 %: how many labels lie in the central interval of that probability, in percent."
]
