"""The trainings of a pilot in their order: rates inside folds, folds, learning curves, latency.

Everything is an ordinary run, trial or evaluation of the results folder, so a pilot that was
stopped continues, and one that is finished is only read.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache

from peftbench.config import sweep as words
from peftbench.core.evaluation import Evaluated, Evaluation
from peftbench.core.plan import Plan, RunOptions
from peftbench.core.run import Run
from peftbench.core.text import command
from peftbench.core.tuning import Question, Search, subject
from peftbench.data import loading
from peftbench.pilot import baselines, decision, gathering
from peftbench.pilot.baselines import FittedBaselines
from peftbench.pilot.criterion import PilotCriterion
from peftbench.pilot.design import LATENCY, SHARES, PilotDesign, place
from peftbench.pilot.learning_curve import Crossing, Curve, curves
from peftbench.pilot.out_of_fold import OutOfFold
from peftbench.results import choices, status
from peftbench.results.store import ResultsFolder
from peftbench.runner import sweep, tune
from peftbench.runner.progress import note


class Unfinished(Exception):
    """Some trainings are missing; `code` is the exit code."""

    def __init__(self, code: int):
        super().__init__(f"trainings are missing, exit code {code}")
        self.code = code


@dataclass(frozen=True)
class Study:
    """What the trainings of a pilot gave.

    Attributes:
        table: predictions of all candidates, trained on all rows of their folds.
        runs: of each method, one for each repeat and fold.
        left_out: methods that have no predictions for a fold, and why.
        curves: of the best methods.
        crossing: of the best two of these; None where there is one.
        keys: of all trainings.
        latency: by method, of the model of the first fold; where it was measured.
    """

    table: OutOfFold
    runs: dict[str, list[Run]]
    left_out: dict[str, str] = field(default_factory=dict)
    curves: list[Curve] = field(default_factory=list)
    crossing: Crossing | None = None
    keys: frozenset[str] = frozenset()
    latency: dict[str, Evaluated] = field(default_factory=dict)

    @property
    def projected(self) -> dict[str, float]:
        """By method the upper end of its score with further labels."""
        return {curve.name: curve.later.high for curve in self.curves}

    @property
    def gained(self) -> float:
        """The upper end of the largest gain by further labels."""
        return max((curve.gain.high for curve in self.curves), default=0.0)


def carry_out(
    found: PilotDesign, criterion: PilotCriterion, results: ResultsFolder, options: RunOptions
) -> Study:
    """Do what is missing of a pilot, and read what it gave.

    Raises:
        Unfinished: if trainings failed or were stopped.
        ConfigError: for bad input, before anything is trained.
    """
    results.check_writable()
    first = replace(options, stage="choice of learning rates")
    trained = with_chosen_rates(found.plan, found.request.rates, results, first)
    follows = replace(options, follows=found.request.rates > 1)
    latency = _first_fold(found, trained, results, follows)
    follows = replace(options, stage="all folds", follows=True)
    failed = train(found.with_runs(trained), results, follows)
    left_out = {run.method.name: reason for run, reason in failed.items()}
    runs = {
        name: [run for run in trained if run.method.name == name]
        for name in found.methods
        if name not in left_out
    }
    if not runs:
        note("no method has predictions for all folds")
        raise Unfinished(1)
    fitted = _baselines(found, results)
    table = gathering.gather(found, results, runs, _seconds(found, runs, results))
    table = table.beside(_as_table(found, table, fitted))
    ranked = [one.name for one in decision.decide(table, criterion).verdicts if one.name in runs]
    chosen = ranked if found.request.every_curve else ranked[:2]
    sized = _smaller(found, chosen, runs)
    smaller = _flat(sized.values())
    failed = train(found.with_runs(smaller), results, replace(follows, stage="learning curve"))
    tables = (
        {} if failed else {n: gathering.gather(found, results, one, {}) for n, one in sized.items()}
    )
    made, crossing = curves(tables, criterion.metric, chosen) if tables else ([], None)
    keys = frozenset(run.key for run in [*trained, *smaller])
    return Study(table, runs, left_out, made, crossing, keys, latency)


def with_chosen_rates(
    plan: Plan, rates: int, results: ResultsFolder, options: RunOptions
) -> list[Run]:
    """All runs of a plan, each with the rate that was chosen on its own training rows.

    Args:
        plan: of the runs.
        rates: to choose from; 1 takes that of the method's file.
        results: where trials and choices are.
        options: how trials are executed.

    Raises:
        Unfinished: if trials are missing.
    """
    if rates == 1:
        return plan.runs
    search = Search(trials=rates, finalists=1, seeds=1)
    asked = tune.questions(plan, search)
    # a quarter of the training rows is held out once: other folds inside a fold cost four times
    asked = [Question(one.run, one.rates, one.source, None, one.space) for one in asked]
    due = tune.unanswered(asked, search, results)
    if due and (code := tune.choose(due, plan, search, options, results)):
        raise Unfinished(code)
    made = []
    for run in plan.runs:
        choice = choices.find(results, subject(run).key)
        assert choice is not None
        made.append(replace(run, train=replace(run.train, lr=choice.rate)))
    return made


def train(plan: Plan, results: ResultsFolder, options: RunOptions) -> dict[Run, str]:
    """Train what is missing; the runs that diverged, which stay without a record, and why.

    Raises:
        Unfinished: if it was stopped, or others failed.
    """
    is_retried = sweep.retry_filter(options.retry)
    before = status.sweep_status(plan, results).failed
    skipped = {key for key, failure in before.items() if not is_retried(failure.kind)}
    if sweep.do_plan(plan, results, options):
        note(f"stopped; finished trainings are kept; continue with: {command(*sys.argv[1:])}")
        raise Unfinished(130)
    state = status.sweep_status(plan, results)
    diverged = {
        run: state.failed[run.key].reason
        for run in state.missing
        if run.key in state.failed and state.failed[run.key].kind == "diverged"
    }
    if len(diverged) < len(state.missing):
        for line in sweep.missing(state, skipped):
            note(line)
        raise Unfinished(1)
    return diverged


def _first_fold(
    found: PilotDesign, runs: list[Run], results: ResultsFolder, options: RunOptions
) -> dict[str, Evaluated]:
    """Train on the first fold, keep these weights and time them, one method after the other."""
    kept = [run for run in runs if place(run) == (0, 0)]
    request = found.request
    timed = words.plan(
        *request.words(found.metric), *LATENCY, configs=request.configs, results=results.folder
    )
    asked = [Evaluation(run, timed.evaluations[0].suite) for run in kept]
    alone = replace(options, workers=1, save_weights=True, stage="first fold, with latency")
    plan = found.with_runs(kept, asked)
    train(plan, results, alone)
    state = status.sweep_status(plan, results)
    return {one.evaluation.run.method.name: one for one in state.evaluated}


def _seconds(
    found: PilotDesign, runs: dict[str, list[Run]], results: ResultsFolder
) -> dict[str, list[float]]:
    """Of each training, all its phases, with those of the trials of its rate."""
    made: dict[str, list[float]] = {}
    for name, members in runs.items():
        made[name] = []
        for run in members:
            choice = choices.find(results, subject(run).key) if found.request.rates > 1 else None
            own = sum(results.load(run.key).seconds.values())
            made[name].append(own + (0.0 if choice is None else choice.seconds))
    return made


def _baselines(
    found: PilotDesign, results: ResultsFolder
) -> dict[tuple[int, int], FittedBaselines]:
    """The baselines of each repeat and fold; the model is loaded only if some are missing."""
    run = found.plan.runs[0]

    @cache
    def embed() -> baselines.Embed:
        from peftbench.pilot.embeddings import FrozenModel

        return FrozenModel(run).embed

    return {
        (task.fold_seed or 0, task.fold or 0): baselines.fit(
            replace(run, task=task), results, lambda texts: embed()(texts)
        )
        for task in found.tasks
    }


def _as_table(
    found: PilotDesign, beside: OutOfFold, fitted: dict[tuple[int, int], FittedBaselines]
) -> OutOfFold:
    names = baselines.NAMES
    return replace(
        beside,
        probability={
            name: gathering.whole(found, {at: one.probability[name] for at, one in fitted.items()})
            for name in names
        },
        seconds={name: [one.seconds[name] for one in fitted.values()] for name in names},
    )


def _smaller(
    found: PilotDesign, names: list[str], runs: dict[str, list[Run]]
) -> dict[float, dict[str, list[Run]]]:
    """By mean number of training rows the runs of methods on parts of the first repeat's folds.

    The rates are those of the whole folds.
    """
    first = {name: [run for run in runs[name] if place(run)[0] == 0] for name in names}
    sized: dict[float, dict[str, list[Run]]] = {}
    for share in (*SHARES, 1.0):
        by_name = {
            name: [run if share == 1 else replace(run, size=share) for run in members]
            for name, members in first.items()
        }
        rows = [_rows(run, found, share) for run in first[names[0]]]
        sized[sum(rows) / len(rows)] = by_name
    return sized


def _rows(run: Run, found: PilotDesign, share: float) -> int:
    """Training rows of a run with a share of those of its fold."""
    return max(1, round(share * (found.rows - len(loading.held_rows(run.task)))))


def _flat(tables: Iterable[dict[str, list[Run]]]) -> list[Run]:
    return [run for by_name in tables for members in by_name.values() for run in members]
