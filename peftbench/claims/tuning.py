"""Which learning rates were chosen, and what a claim may conclude at one that was not.

A rate is chosen on a selection split, among several, for a model, a method with its settings and a
task: by `peftbench tune`, which stores a `core.tuning.Choice`, or by a sweep over rates, as those
of results/tuning, which stores none. `TunedRate` is what claims need of either. Rates that were
taken over from another task decide nothing about a method: it may only have been trained badly.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from peftbench.analysis.convention import counted_trial
from peftbench.claims.matching import Found, Side
from peftbench.claims.schema import Claim
from peftbench.core.run import Record, Run, canonical, identity
from peftbench.core.tuning import Choice
from peftbench.results.choices import scan
from peftbench.results.store import ResultsFolder

#: Fewer rates are no search.
_FEWEST = 3

#: The smallest rate within this much of the best score is chosen (configs/sweep/tuning_*.yaml).
_WITHIN = 0.01

#: Folder of trials, beside other results folders.
_FOLDER = "tuning"

#: Quantities that a better rate can only raise, as it raises the score it is chosen by.
_OF_SCORE = ("score", "after_rounds")


@dataclass(frozen=True)
class TunedRate:
    """A learning rate, and among how many it was chosen.

    Attributes:
        model, task: names.
        method: canonical text of the method with its settings.
        rate: learning rate.
        size: training examples of the trials, those of the selection split among them; 0 if the
            task does not say how many it has.
        trials: rates that were tried.
        edge: whether it is the smallest or largest of them.
        collapsed: whether every trial of the rate collapsed or diverged: at this size no rate
            scores above a collapse, and of another size nothing is known.
    """

    model: str
    method: str
    task: str
    rate: float
    size: int
    trials: int
    edge: bool
    collapsed: bool = False


@dataclass(frozen=True)
class TunedRates:
    """Choices that are known."""

    known: tuple[TunedRate, ...] = ()

    @classmethod
    def from_records(cls, records: Iterable[Record]) -> "TunedRates":
        """The choices that trials among these records give.

        Trials are runs with a score on a selection split that agree in all but rate and seed. Of
        one rate the mean over seeds counts, a constant prediction as elsewhere.
        """
        grids: dict[str, list[Record]] = {}
        for record in records:
            if record.selection is not None:
                grids.setdefault(_grid(record.run), []).append(record)
        return cls(tuple(one for grid in grids.values() if (one := _chosen(grid)) is not None))

    def of_run(self, run: Run) -> TunedRate | None:
        """The choice of a run's rate, with the most trials; None where it was not chosen."""
        same = (run.model.name, _method(run), run.task.name, run.train.lr)
        found = [c for c in self.known if (c.model, c.method, c.task, c.rate) == same]
        return max(found, key=lambda choice: (choice.trials, choice.size), default=None)


def beside(results: ResultsFolder, records: list[Record]) -> TunedRates:
    """Choices of a folder: those in its files, and those that records of trials give.

    These are its own and those in the folder `tuning` beside it.
    """
    trials = ResultsFolder(results.folder.resolve().parent / _FOLDER).scan()[0]
    made = [_of_file(one) for one in scan(results)[0] if len(one.rates) >= _FEWEST]
    return TunedRates((*made, *TunedRates.from_records([*records, *trials]).known))


def _of_file(made: Choice) -> TunedRate:
    size = made.run.counted_size
    return TunedRate(
        model=made.run.model.name,
        method=_method(made.run),
        task=made.run.task.name,
        rate=made.rate,
        size=size if isinstance(size, int) else 0,
        trials=len(made.rates),
        edge=made.edge is not None,
        collapsed=made.collapsed,
    )


def _method(run: Run) -> str:
    return canonical(identity(run.method.to_json()))


def _grid(run: Run) -> str:
    node = {name: value for name, value in run.to_json().items() if name != "seed"}
    train = {name: value for name, value in node["train"].items() if name != "lr"}
    return canonical(identity(node | {"train": train}))


def _chosen(grid: list[Record]) -> TunedRate | None:
    scores: dict[float, list[float]] = {}
    for record in grid:
        scores.setdefault(record.run.train.lr, []).append(counted_trial(record))
    if len(scores) < _FEWEST:
        return None
    means = {rate: sum(found) / len(found) for rate, found in scores.items()}
    best = max(means.values())
    rate = min(rate for rate, mean in means.items() if mean >= best - _WITHIN)
    run = grid[0].run
    return TunedRate(
        model=run.model.name,
        method=_method(run),
        task=run.task.name,
        rate=rate,
        size=grid[0].work["train_size"],
        trials=len(scores),
        edge=rate in (min(scores), max(scores)),
        collapsed=all(record.collapsed for record in grid if record.run.train.lr == rate),
    )


def why_not(claim: Claim, one: Found, choices: TunedRates, *, toward: bool | None) -> str:
    """Why rates leave a verdict open; empty where they do not.

    Tuning can only raise the score of a method. So one that is ahead of another at a rate that
    was not chosen is ahead all the more at a better one, and only the side that is behind has to
    be tuned. Of other quantities, and of spreads, both have to be. Two sides of one method at
    one rate need no choice.

    Args:
        claim: of the cell.
        one: its rows.
        choices: that are known.
        toward: whether the cell supports the claim; None if it has no score to tell.
    """
    if claim.rates == "given":
        return ""
    if claim.rates == "alike":
        rates = [_rate(side) for side in one.sides]
        found = [choices.of_run(_run(side)) for side in one.sides]
        trials = {None if choice is None else choice.trials for choice in found}
        if len(set(rates)) == 1 or (len(trials) == 1 and None not in trials):
            return ""
        told = " and ".join(f"{rate:g}" for rate in rates)
        return f"learning rates {told} are neither equal nor chosen from as many"
    needed = [(side, choices.of_run(_run(side))) for side in _needed(claim, one, toward)]
    if waiting := [side for side, choice in needed if choice is None]:
        return f"rate not chosen for {one.place[0]} here: {_named(waiting)}"
    for side, choice in needed:
        if choice and choice.collapsed and choice.size != _run(side).counted_size:
            size = f"{choice.size:,} examples"
            return f"rate chosen at {size}, where all its trials collapsed: {_named([side])}"
    return ""


def at_edge(claim: Claim, one: Found, choices: TunedRates, *, toward: bool) -> str:
    """Which choices a verdict rests on that lie at the edge of their grid; empty for none."""
    found = [(side, choices.of_run(_run(side))) for side in _needed(claim, one, toward)]
    edge = [side for side, choice in found if choice is not None and choice.edge]
    return f"rate at the edge of its grid: {_named(edge)}" if edge else ""


def _needed(claim: Claim, one: Found, toward: bool | None) -> list[Side]:
    """The sides whose rate has to be chosen."""
    methods = {_run(side).method.name for side in one.sides}
    rates = {_rate(side) for side in one.sides}
    if len(one.sides) > 1 and len(methods) == len(rates) == 1:
        return []
    of_score = claim.measure in _OF_SCORE and claim.kind in ("better", "not_worse")
    if of_score and toward is not None:
        return one.sides[1:] if toward else one.sides[:1]
    return one.sides


def _named(sides: list[Side]) -> str:
    return ", ".join(f"{_run(side).method.name} {_rate(side):g}" for side in sides)


def _run(side: Side) -> Run:
    return next(iter(side.items.values())).run


def _rate(side: Side) -> float:
    return _run(side).train.lr
