"""What the plots of evaluations show, as numbers: one panel a task and size, one line a row."""

import statistics
from collections.abc import Callable
from itertools import accumulate
from typing import Any

from peftbench.analysis import grouping
from peftbench.analysis.grouping import Section
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Json

#: A line of a plot before it has a label: x and y.
Line = list[tuple[float, float]]


def curves(by_suite: dict[str, list[Evaluated]], trained: dict[str, int]) -> list[Json]:
    """The plots of each suite's evaluations.

    Args:
        by_suite: evaluations by the name of what made them.
        trained: trained parameters of each run, by key.
    """
    made = []
    for name, found in by_suite.items():
        kind = found[0].evaluation.suite["_target_"].rpartition(".")[2].lower()
        plots = _PLOTS.get(kind)
        if plots is not None:
            made += [plot | {"suite": name} for plot in plots(found, trained)]
    return [plot for plot in made if any(panel["lines"] for panel in plot["panels"])]


def _panel(part: Section, draw: Callable[[list[Evaluated]], Line], **more: Any) -> Json:
    labels = grouping.labels(part.rows, part.split)
    lines = [
        {"label": labels[row], "method": row[0], "seeds": len(members), "points": points}
        for row, members in part.rows.items()
        if (points := draw(members))
    ]
    return {"title": part.title, "task": part.task["name"], "lines": lines, **more}


def _mean(values: list[float | None]) -> float | None:
    """Of all of them; None where one is undefined."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if values and len(known) == len(values) else None


def _along(places: list[float], columns: list[list[float | None]]) -> Line:
    """Means over seeds at each place, where all seeds have a value."""
    means = zip(places, map(_mean, columns), strict=True)
    return [(place, mean) for place, mean in means if mean is not None]


# calibration


def _calibration(found: list[Evaluated], trained: dict[str, int]) -> list[Json]:
    here = [e for e in found if e.evaluation.run.task["classes"] > 1]
    parts = grouping.sections(here, trained)
    return [
        {
            "kind": "reliability",
            "panels": [_panel(part, _reliability, metric="accuracy") for part in parts],
        },
        {"kind": "risk", "panels": [_panel(part, _risk, metric="error") for part in parts]},
    ]


def _reliability(members: list[Evaluated]) -> Line:
    """Confidence and accuracy by tenths of confidence, the examples of all seeds together."""
    tenths: dict[int, list[dict[str, float]]] = {}
    for e in members:
        for bin_ in e.findings["reliability"]:
            tenths.setdefault(min(9, int(bin_["confidence"] * 10)), []).append(bin_)
    line = []
    for _, bins in sorted(tenths.items()):
        share = sum(bin_["share"] for bin_ in bins)
        sure = sum(bin_["share"] * bin_["confidence"] for bin_ in bins) / share
        right = sum(bin_["share"] * bin_["accuracy"] for bin_ in bins) / share
        line.append((sure, right))
    return line


def _risk(members: list[Evaluated]) -> Line:
    places = list(members[0].findings["risk"])
    columns = [[e.findings["risk"].get(place) for e in members] for place in places]
    return _along([float(place) for place in places], columns)


# noise


def _noise(found: list[Evaluated], trained: dict[str, int]) -> list[Json]:
    """The score over intensity: the mean of all kinds, and each kind alone."""
    parts = grouping.sections(found, trained)
    kinds = list(dict.fromkeys(kind for e in found for kind in e.findings["kinds"]))
    panels = []
    for part in parts:
        metric = part.found[0].findings["metric"]
        panels.append(_panel(part, _under(None), metric=metric, choice="all kinds"))
        panels += [_panel(part, _under(kind), metric=metric, choice=kind) for kind in kinds]
    return [{"kind": "noise", "panels": [panel for panel in panels if panel["lines"]]}]


def _under(kind: str | None) -> Callable[[list[Evaluated]], Line]:
    def draw(members: list[Evaluated]) -> Line:
        here = [e for e in members if kind is None or kind in e.findings["kinds"]]
        if not here:
            return []
        places = [0.0, *here[0].findings["intensities"]]
        return _along(places, [[_at(e, kind, n) for e in here] for n in range(len(places))])

    return draw


def _at(e: Evaluated, kind: str | None, number: int) -> float | None:
    """The clean score, then that at each intensity; the mean over kinds where none is named."""
    if number == 0:
        clean: float | None = e.findings["clean"]
        return clean
    told = e.findings["kinds"]
    asked = told.values() if kind is None else [told[kind]]
    return _mean([one["scores"][number - 1] for one in asked])


# demonstrations


def _in_context(found: list[Evaluated], trained: dict[str, int]) -> list[Json]:
    """The score by how many solved examples stand in front of a text."""

    def draw(members: list[Evaluated]) -> Line:
        counts = members[0].findings["counts"]
        columns = [[e.findings["scores"][n] for e in members] for n in range(len(counts))]
        return _along([float(count) for count in counts], columns)

    parts = grouping.sections(found, trained)
    panels = [_panel(part, draw, metric=part.found[0].findings["metric"]) for part in parts]
    return [{"kind": "demonstrations", "panels": panels}]


# shift


def _shift(found: list[Evaluated], trained: dict[str, int]) -> list[Json]:
    """A heat map: rows by targets, mean scores."""
    panels = []
    for part in grouping.sections(found, trained):
        targets: dict[str, str] = {}
        for e in part.found:
            targets |= {name: told["metric"] for name, told in e.findings["targets"].items()}
        labels = grouping.labels(part.rows, part.split)
        lines = []
        for row, members in part.rows.items():
            scores = [
                _mean(
                    [
                        e.findings["targets"][name]["scores"][metric]
                        for e in members
                        if name in e.findings["targets"]
                    ]
                )
                for name, metric in targets.items()
            ]
            line = {"label": labels[row], "method": row[0], "seeds": len(members)}
            lines.append(line | {"cells": scores})
        heads = [f"{name} {metric}" for name, metric in targets.items()]
        told = {
            name: [e.findings["targets"][name] for e in part.found if name in e.findings["targets"]]
            for name in targets
        }
        trivial = [_mean([one["trivial"] for one in told[name]]) for name in targets]
        lines.append({"label": "constant answer", "method": None, "cells": trivial})
        if len({e.evaluation.run.model["name"] for e in part.found}) == 1:
            before = [
                _mean([one["untrained"][metric] for one in told[name]])
                for name, metric in targets.items()
            ]
            lines.append({"label": "before training", "method": None, "cells": before})
        panels.append(
            {"title": part.title, "task": part.task["name"], "heads": heads, "lines": lines}
        )
    return [{"kind": "shift", "panels": panels}]


# rounds


def _rounds(found: list[Evaluated], trained: dict[str, int]) -> list[Json]:
    """The score after each round, and what was forgotten by then."""
    divided: dict[tuple[str, ...], list[Evaluated]] = {}
    for e in found:
        divided.setdefault(tuple(map(str, e.findings["names"])), []).append(e)
    scores, forgotten = [], []
    for names, members in sorted(divided.items()):
        for part in grouping.sections(members, trained):
            chunks = part.found[0].findings["validation"] is not None
            seen = [*accumulate(map(int, names))] if chunks else [*range(1, len(names) + 1)]
            places = [float(place) for place in seen]
            title = f"{part.title}: {'rounds of' if chunks else ''} {', '.join(names)}"
            x = "training examples so far" if chunks else "tasks so far"
            more = {"x": x, "metric": part.task["metrics"][0] if chunks else "mean score"}
            panel = _panel(part, _after(places), **more)
            scores.append(panel | {"title": title})
            panel = _panel(part, _lost(places), x=x, metric="forgotten")
            forgotten.append(panel | {"title": title})
    return [{"kind": "rounds", "panels": scores}, {"kind": "forgetting", "panels": forgotten}]


def _after(places: list[float]) -> Callable[[list[Evaluated]], Line]:
    def score(e: Evaluated, number: int) -> float | None:
        if e.findings["validation"] is None:
            return _mean(e.findings["scores"][number])
        after: float | None = e.findings["validation"][number]
        return after

    return lambda members: _along(
        places, [[score(e, number) for e in members] for number in range(len(places))]
    )


def _lost(places: list[float]) -> Callable[[list[Evaluated]], Line]:
    """The mean, over earlier rounds, of their best score so far less that after this round."""

    def lost(e: Evaluated, number: int) -> float | None:
        matrix = e.findings["scores"]
        best = [[matrix[t][j] for t in range(j, number)] for j in range(number)]
        if any(value is None for past in best for value in past):
            return None
        now = matrix[number]
        return _mean(
            [None if now[j] is None else max(past) - now[j] for j, past in enumerate(best)]
        )

    return lambda members: _along(
        places[1:], [[lost(e, number) for e in members] for number in range(1, len(places))]
    )


_PLOTS: dict[str, Callable[[list[Evaluated], dict[str, int]], list[Json]]] = {
    "calibration": _calibration,
    "incontext": _in_context,
    "noise": _noise,
    "shift": _shift,
    "rounds": _rounds,
}
