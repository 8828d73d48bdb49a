"""Choose learning rates: rounds of trials, each a sweep of runs, and a choice for each cell."""

import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import fmean

from peftbench.analysis.convention import CONSTANT
from peftbench.analysis.trials import by_rate
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import FAILURE_KINDS
from peftbench.core.plan import Plan, RunOptions
from peftbench.core.run import Record, Run
from peftbench.core.text import command
from peftbench.core.tuning import TPE, Choice, Question, RateChoice, Rung, Search, Trial, subject
from peftbench.data import loading
from peftbench.metrics import task_metrics
from peftbench.reports.tables.terminal import print_out
from peftbench.reports.tuning import choice_table
from peftbench.results import choices, status
from peftbench.results.store import Results
from peftbench.runner import sweep, tpe
from peftbench.runner.progress import note
from peftbench.runner.sharding import share
from peftbench.system import terminal
from peftbench.system.hardware import devices


def questions(plan: Plan, search: Search) -> list[Question]:
    """The cells of a plan, each with the rates to choose from.

    These are the ones that the words name, if they name several; else of the method's own space.

    Raises:
        ConfigError: for a cell without a space, or with what a search has no use for.
    """
    if plan.evaluations:
        raise ConfigError("tune: a suite asks nothing of trials; leave suite= out")
    cells: dict[Run, set[float]] = {}
    for run in plan.runs:
        if run.checkpoint_selection.fraction:
            raise ConfigError(
                "tune: trials are scored on a split of their own, at the end of the budget; leave "
                "checkpoint_selection out"
            )
        cells.setdefault(subject(run), set()).add(run.train.lr)
    asked = []
    for run, rates in cells.items():
        examples = _examples(run)
        if "train.lr" in plan.axes:
            if search.sampler == TPE:
                raise ConfigError(
                    "--sampler tpe proposes the rates itself, from the range in the method's file: "
                    "leave train.lr= out, or --sampler"
                )
            asked.append(Question(run, sorted(rates), "the command line", examples))
            continue
        space = plan.spaces.get(run.method.name)
        if space is not None and search.sampler == TPE:
            asked.append(Question(run, [], space.source, examples, space))
            continue
        if space is None:
            raise ConfigError(
                f"method={run.method.name} names no rates to choose from; name several, "
                "train.lr=1e-4,3e-4,1e-3, or write recipe.search.lr into its file"
            )
        asked.append(Question(run, space.rates(search.trials), space.source, examples))
    return asked


def _examples(run: Run) -> int | None:
    size, total = run.counted_size, run.task.examples.get("train")
    if total is None and "file" in run.task.source:
        total = loading.file_facts(run.task, run.task.classes).train
        return None if total is None else run.train_size(total)
    return size if isinstance(size, int) else None


def tune(
    plan: Plan,
    results: Results,
    search: Search,
    options: RunOptions,
    shard: tuple[int, int] | None = None,
) -> int:
    """Choose what has not been chosen yet, print the choices, and return the exit code.

    Trials are runs in `trials/` of the results folder: a search that is stopped goes on.

    Args:
        shard: number and count, to make a share of the round that is due, and no more unless the
            other shares of it are there.

    Raises:
        ConfigError: for bad input, before anything is done.
    """
    results.check_writable()
    asked = questions(plan, search)
    if search.sampler == TPE:
        tpe.optuna()
        if shard:
            raise ConfigError("--sampler tpe makes one trial after the other: leave --shard out")
    due = unanswered(asked, search, results)
    before = len(asked) - len(due)
    note(f"{len(asked)} learning rates: {before} chosen before, {len(due)} to choose")
    code = choose(due, plan, search, options, results, shard) if due else 0
    made = [choice for one in asked if (choice := choices.find(results, one.run.key))]
    if options.as_json:
        terminal.write(json.dumps([choice.to_json() for choice in made], indent=1) + "\n")
    elif made and not options.dry_run:
        print_out(choice_table(made).rich())
    return code


def first_round(plan: Plan, search: Search, results: Results) -> tuple[Plan, list[RateChoice]]:
    """The trials of the first round, and what is chosen after it, of what is not chosen yet.

    Raises:
        ConfigError: as of `questions`.
    """
    due = unanswered(questions(plan, search), search, results)
    runs = [run for one in due for rate in one.rates for run in one.trials(rate, 1)]
    trials = replace(plan, runs=runs, cells=len(runs), repeats=[], evaluations=[])
    return trials, [RateChoice(one, search) for one in due]


def unanswered(asked: list[Question], search: Search, results: Results) -> list[Question]:
    """Those without a choice among the rates that are asked for, by as many trials."""
    due = []
    for one in asked:
        choice = choices.find(results, one.run.key)
        if choice is None or choice.answer_key != RateChoice(one, search).key:
            due.append(one)
    return due


def choose(
    due: list[Question],
    plan: Plan,
    search: Search,
    options: RunOptions,
    results: Results,
    shard: tuple[int, int] | None = None,
    halted: Callable[[], bool] | None = None,
) -> int:
    """Make what is missing of the rounds, and write a choice for each cell; the exit code.

    Args:
        plan: what it says of data is used; its runs are not.
        halted: see `sweep.execute`.
    """
    # what diverged would diverge again; without any other trial nothing can be chosen
    again = ",".join(kind for kind in FAILURE_KINDS if kind != "diverged")
    is_retried = sweep.retry_filter(options.retry or again)
    trials, gpus = results.trials(), devices(options.device)
    left = {one.run.key: list(one.rates) for one in due}
    proposals = {one.run.key: tpe.Proposals(one.space) for one in due if one.space}
    tried: dict[str, dict[str, Trial]] = {one.run.key: {} for one in due}
    environments = {}
    asked: set[str] = set()  # in earlier rounds
    for number, rung, step in _steps(search):
        if step:
            for key, proposed in proposals.items():
                left[key].append(proposed.ask())
        runs = [
            run for one in due for rate in left[one.run.key] for run in one.trials(rate, rung.seeds)
        ]
        wanted = replace(plan, runs=runs, cells=len(runs), repeats=[], evaluations=[])
        before = status.sweep_status(wanted, trials)
        if not options.quiet:
            seeds = f"{rung.seeds} seed{'s' * (rung.seeds > 1)}"
            part = f", rate {step} of {rung.rates}" if step else ""
            told = f"round {number} of {len(search.rungs)}{part}, {seeds} a rate"
            note(f"{told}: {before.summary()}")
        mine = before
        if shard:
            new = [run for run in runs if run.key not in asked]
            mine = status.sweep_status(share(replace(wanted, runs=new), *shard), trials)
        asked |= {run.key for run in runs}
        todo = sweep.select_jobs(mine, is_retried)
        if todo.runs and sweep.execute(todo, trials, options, gpus, halted):
            if halted is None:
                same = command(*sys.argv[1:])
                note(f"stopped; finished trials are kept; resume with: {same}")
            return 130
        if options.dry_run:
            note(f"{len(todo.runs)} trials of the first round are ready to train")
            return 0
        after = status.sweep_status(wanted, trials)
        bad = [failure for failure in after.failed.values() if failure.kind != "diverged"]
        for failure in bad:
            note(f"failed: {failure.job.title}: {failure.kind}: {failure.reason}")
        records = {record.run.key: record for record in after.records}
        lacking = sum(run.key not in records and run.key not in after.failed for run in runs)
        if shard and lacking and not bad:
            note(
                f"round {number}: {lacking} trials of other shards are not there yet; when they "
                "are, each shard's command again makes the next round"
            )
            return 0
        if bad or lacking:
            note("nothing is chosen while trials are missing; the same command makes them")
            return 1
        for one in due:
            key = one.run.key
            for rate in left[key]:
                for run in one.trials(rate, rung.seeds):
                    record = records.get(run.key)
                    tried[key].setdefault(run.key, _trial(run, record, number))
                    if record is not None:
                        environments[key] = record.environment
            found = list(tried[key].values())
            if step:
                rate = left[key][-1]
                proposals[key].tell(rate, mean_scores(one.run.task.metric, found)[rate][0])
            if step in (None, rung.rates):
                left[key] = _best(one, left[key], rung, found, search)
    for one in due:
        key = one.run.key
        rate = left[key][0]
        rates = {trial.rate for trial in tried[key].values()}
        ends = {min(rates): "lowest", max(rates): "highest"}
        choices.save(
            results,
            Choice(
                run=one.run,
                rate=rate,
                metric=one.run.task.metric,
                source=one.source,
                trials=list(tried[key].values()),
                edge=ends.get(rate) if len(rates) > 1 else None,
                environment=environments.get(key, {}),
                sampler=search.sampler,
            ),
        )
    return 0


def _steps(search: Search) -> Iterator[tuple[int, Rung, int | None]]:
    """The rounds with their numbers; one whose rates are proposed is a step for each rate."""
    for number, rung in enumerate(search.rungs, 1):
        if number == 1 and search.sampler == TPE:
            yield from ((number, rung, step) for step in range(1, rung.rates + 1))
        else:
            yield number, rung, None


def _trial(run: Run, record: Record | None, rung: int) -> Trial:
    """What a trial gave; one that diverged has no record."""
    fold = run.checkpoint_selection.fold
    if record is None:
        return Trial(run.key, run.train.lr, run.seed, fold, rung, None, False, 0.0)
    score = (record.selection or {}).get(run.task.metric)
    return Trial(
        key=run.key,
        rate=run.train.lr,
        seed=run.seed,
        fold=fold,
        rung=rung,
        score=CONSTANT if score is None else score,
        collapsed=score is None,
        seconds=sum(record.seconds.values()),
        loss=(record.selection or {}).get("loss"),
    )


def mean_scores(metric: str, trials: list[Trial]) -> dict[float, tuple[float, float]]:
    """The mean of each rate's trials, larger for better; smaller rates first.

    Behind it stands what decides between equal means, such as those of rates at which all trials
    collapsed: the mean training loss, its sign turned.
    """
    sign = 1.0 if task_metrics.factor(metric) == 100 else -1.0  # of an error less is better
    return {
        rate: (
            fmean(-math.inf if one.score is None else sign * one.score for one in made),
            fmean(-math.inf if one.loss is None else -one.loss for one in made),
        )
        for rate, made in by_rate(trials).items()
    }


def _best(
    question: Question, rates: list[float], rung: Rung, trials: list[Trial], search: Search
) -> list[float]:
    """The rates that go on to the next round, the best first."""
    means = mean_scores(question.run.task.metric, [one for one in trials if one.rate in rates])
    order = sorted(means, key=lambda rate: means[rate], reverse=True)
    return order[: search.finalists] if rung.seeds == 1 and search.seeds > 1 else order[:1]
