"""Choose learning rates: rounds of trials, each a sweep of runs, and a choice for each cell."""

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from statistics import fmean

from peftbench.analysis.convention import counted_trial
from peftbench.analysis.trials import by_rate
from peftbench.core.errors import ConfigError
from peftbench.core.failures import FAILURE_KINDS
from peftbench.core.plan import Plan, RunOptions
from peftbench.core.run import Json, Record, Run
from peftbench.core.text import command
from peftbench.core.tuning import TPE, Choice, Question, RateChoice, Rung, Search, Trial, subject
from peftbench.data import loading
from peftbench.reports.tables.terminal import print_out
from peftbench.reports.tuning import choice_table
from peftbench.results import choices, status
from peftbench.results.store import ResultsFolder
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
    results: ResultsFolder,
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


def first_round(
    plan: Plan, search: Search, results: ResultsFolder
) -> tuple[Plan, list[RateChoice]]:
    """The trials of the first round, and what is chosen after it, of what is not chosen yet.

    Raises:
        ConfigError: as of `questions`.
    """
    due = unanswered(questions(plan, search), search, results)
    runs = [run for one in due for rate in one.rates for run in one.trials(rate, 1)]
    trials = replace(plan, runs=runs, cells=len(runs), repeats=[], evaluations=[])
    return trials, [RateChoice(one, search) for one in due]


def unanswered(asked: list[Question], search: Search, results: ResultsFolder) -> list[Question]:
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
    results: ResultsFolder,
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
    cells = [_CellSearch.begin(one, search) for one in due]
    asked: set[str] = set()  # in earlier rounds
    for number, rung, step in _steps(search):
        if step:
            for cell in cells:
                cell.propose()
        runs = [run for cell in cells for run in cell.runs(rung)]
        wanted = replace(plan, runs=runs, cells=len(runs), repeats=[], evaluations=[])
        before = status.sweep_status(wanted, trials)
        if not options.quiet:
            seeds = f"{rung.seeds} seed{'s' * (rung.seeds > 1)}"
            part = f", rate {step} of {rung.rates}" if step else ""
            told = f"round {number} of {len(search.rungs)}{part}, {seeds} a rate"
            note(
                f"{options.stage}, {told}: {before.left()}"
                if options.stage
                else f"{told}: {before.summary()}"
            )
        mine = before
        if shard:
            new = [run for run in runs if run.key not in asked]
            mine = status.sweep_status(share(replace(wanted, runs=new), *shard), trials)
        asked |= {run.key for run in runs}
        todo = replace(sweep.select_jobs(mine, is_retried), trials=True)
        if todo.runs and sweep.execute(todo, trials, options, gpus, halted):
            if halted is None:
                same = command(*sys.argv[1:])
                note(f"stopped; finished trials are kept; resume with: {same}")
            return 130
        if options.dry_run:
            note(f"{len(todo.runs)} trials of the first round are ready to train")
            return 0
        after = status.sweep_status(wanted, trials)
        code = _missing(after, number, sharded=shard is not None)
        if code is not None:
            return code
        records = {record.run.key: record for record in after.records}
        for cell in cells:
            cell.take(records, number, rung)
            if step:
                cell.tell_proposer()
            if step in (None, rung.rates):
                cell.halve(rung)
    for cell in cells:
        choices.save(results, cell.choice())
    return 0


def _missing(after: status.SweepStatus, number: int, sharded: bool) -> int | None:
    """The exit code where trials of a round are missing, which is said; None where none are."""
    bad = [failure for failure in after.failed.values() if failure.kind != "diverged"]
    for failure in bad:
        note(f"failed: {failure.job.title}: {failure.kind}: {failure.reason}")
    done = {record.run.key for record in after.records}
    absent = sum(run.key not in done and run.key not in after.failed for run in after.plan.runs)
    if sharded and absent and not bad:
        note(
            f"round {number}: {absent} trials of other shards are not there yet; when they "
            "are, each shard's command again makes the next round"
        )
        return 0
    if bad or absent:
        note("nothing is chosen while trials are missing; the same command makes them")
        return 1
    return None


@dataclass
class _CellSearch:
    """How far the search for a cell's rate is.

    Attributes:
        left: rates that are in the current round.
        trials: of all rounds, by key of their runs.
        proposals: where the rates of the first round come from; None where they are known.
        environment: of the trials.
    """

    question: Question
    search: Search
    left: list[float]
    proposals: tpe.Proposals | None
    trials: dict[str, Trial] = field(default_factory=dict)
    environment: Json = field(default_factory=dict)

    @classmethod
    def begin(cls, question: Question, search: Search) -> "_CellSearch":
        """Before the first round."""
        space = question.space
        return cls(question, search, list(question.rates), tpe.Proposals(space) if space else None)

    def propose(self) -> None:
        """Add the next rate."""
        assert self.proposals is not None
        self.left.append(self.proposals.ask())

    def runs(self, rung: Rung) -> list[Run]:
        """The trials of the current round."""
        return [run for rate in self.left for run in self.question.trials(rate, rung.seeds)]

    def take(self, records: dict[str, Record], number: int, rung: Rung) -> None:
        """Note what the trials of a round gave."""
        for run in self.runs(rung):
            record = records.get(run.key)
            self.trials.setdefault(run.key, _trial(run, record, number))
            if record is not None:
                self.environment = record.environment

    def tell_proposer(self) -> None:
        """Tell the latest rate's score, from which the next one is proposed."""
        assert self.proposals is not None
        rate = self.left[-1]
        self.proposals.tell(rate, mean_scores(self.trials.values())[rate][0])

    def halve(self, rung: Rung) -> None:
        """Leave the rates that go on to the next round, the best first."""
        means = mean_scores(one for one in self.trials.values() if one.rate in self.left)
        order = sorted(means, key=lambda rate: means[rate], reverse=True)
        more = rung.seeds == 1 and self.search.seeds > 1
        self.left = order[: self.search.finalists] if more else order[:1]

    def choice(self) -> Choice:
        """The best rate, after the last round."""
        rate = self.left[0]
        rates = {trial.rate for trial in self.trials.values()}
        ends = {min(rates): "lowest", max(rates): "highest"}
        return Choice(
            run=self.question.run,
            rate=rate,
            metric=self.question.run.task.metric,
            source=self.question.source,
            trials=list(self.trials.values()),
            edge=ends.get(rate) if len(rates) > 1 else None,
            environment=self.environment,
            sampler=self.search.sampler,
        )


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
        score=counted_trial(record),
        collapsed=score is None,
        seconds=sum(record.seconds.values()),
        loss=(record.selection or {}).get("loss"),
    )


def mean_scores(trials: Iterable[Trial]) -> dict[float, tuple[float, float]]:
    """The mean of each rate's trials; smaller rates first.

    Behind it stands what decides between equal means, such as those of rates at which all trials
    collapsed: the mean training loss, its sign turned.
    """
    return {
        rate: (
            fmean(-math.inf if one.score is None else one.score for one in made),
            fmean(-math.inf if one.loss is None else -one.loss for one in made),
        )
        for rate, made in by_rate(trials).items()
    }
