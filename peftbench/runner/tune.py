"""Choose learning rates: rounds of trials, each a sweep of runs, and a choice for each cell."""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from statistics import fmean

from peftbench.analysis.convention import counted_trial
from peftbench.analysis.costs import Machine, place_of
from peftbench.analysis.trials import by_rate
from peftbench.core.errors import ConfigError
from peftbench.core.failures import Failure
from peftbench.core.plan import Plan, RunOptions
from peftbench.core.run import Json, Record, Run
from peftbench.core.text import count_of
from peftbench.core.tuning import (
    NAMED,
    TPE,
    Choice,
    Question,
    RateChoice,
    Rung,
    Search,
    Trial,
    rounded,
    subject,
)
from peftbench.data import loading
from peftbench.reports.tables.terminal import print_out
from peftbench.reports.tuning import choice_table
from peftbench.results import choices, status
from peftbench.results.store import ResultsFolder
from peftbench.runner import sweep, tpe
from peftbench.runner.only_one import only_one
from peftbench.runner.progress import note
from peftbench.runner.sharding import share
from peftbench.system import terminal
from peftbench.system.hardware import devices

#: Before the key of a cell: what is claimed while its choice is written. No run has such a key.
_SAVING = "2"


def questions(plan: Plan, search: Search) -> list[Question]:
    """The cells of a plan, each with the rates to choose from.

    These are the ones that the words name, if they name several; else of the method's own space.
    Runs without a step have no rate and are left out.

    Raises:
        ConfigError: for a cell without a space, or with what a search has no use for.
    """
    if plan.evaluations:
        raise ConfigError("tune: a suite asks nothing of trials; leave suite= out")
    trained = [run for run in plan.runs if not run.untrained]
    if not trained:
        raise ConfigError("tune: budget.steps=0 trains nothing; name at least one step")
    cells: dict[Run, list[Run]] = {}
    for run in trained:
        if run.checkpoint_selection.fraction:
            raise ConfigError(
                "tune: trials are scored on a split of their own, at the end of the budget; leave "
                "checkpoint_selection out"
            )
        cells.setdefault(subject(run), []).append(run)
    asked = []
    for run, members in cells.items():
        examples = _examples(run)
        if plan.rates_named:
            if search.sampler == TPE:
                raise ConfigError(
                    "--sampler tpe proposes the rates itself, from the range in the method's file: "
                    "leave train.lr= out, or --sampler"
                )
            rates = sorted({one.train.lr for one in members})
            asked.append(Question(run, rates, NAMED, examples))
            continue
        space = plan.spaces.get(members[0].key)
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
    cells = count_of(len(asked), "learning rate")
    note(f"{cells}: {before} chosen before, {len(due)} to choose")
    code = choose(due, plan, search, options, results, shard) if due else 0
    if options.dry_run and options.as_json:
        planned = [_planned(one, search, one in due) for one in asked]
        terminal.write(json.dumps(planned, indent=1) + "\n")
        return code
    made = [choice for one in asked if (choice := choices.find(results, one.run.key))]
    if options.as_json:
        terminal.write(json.dumps([choice.to_json() for choice in made], indent=1) + "\n")
    elif made and not options.dry_run:
        print_out(choice_table(made).rich())
    return code


def _planned(one: Question, search: Search, is_due: bool) -> Json:
    """What a search makes for a cell, for programs."""
    return {
        "cell": one.run.key,
        "title": one.run.title,
        "due": is_due,
        "source": one.source,
        "rates": one.rates,
        "trials_by_round": one.planned(search),
        "first_round": [run.key for rate in one.rates for run in one.trials(rate, 1)],
    }


def first_round(
    plan: Plan, search: Search, results: ResultsFolder
) -> tuple[Plan, list[RateChoice]]:
    """The trials of the first round, and what is chosen after it, of what is not chosen yet.

    Raises:
        ConfigError: as of `questions`.
    """
    due = unanswered(questions(plan, search), search, results)
    cells = [_CellSearch.begin(one, search, results) for one in due]
    runs = [run for cell in cells for run in cell.runs(search.rungs[0])]
    trials = replace(plan, runs=runs, cells=len(runs), repeats=[], evaluations=[])
    return trials, [RateChoice(one, search) for one in due]


def unanswered(asked: list[Question], search: Search, results: ResultsFolder) -> list[Question]:
    """Those without a choice among the rates that are asked for, by the same rounds.

    Raises:
        ConfigError: for one rate that a person names where there are no others to compare with.
    """
    due = []
    for one in asked:
        choice = choices.find(results, one.run.key)
        if choice is None and one.source == NAMED and len(one.rates) == 1:
            raise ConfigError(
                f"train.lr={one.rates[0]:g} is the only rate for {one.run.title}: name several, "
                "train.lr=1e-4,3e-4,1e-3, or leave it out for those of the method's file"
            )
        if choice is None or not RateChoice(one, search).is_answered(choice.answer_keys):
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

    It is 1 where a cell has none: trials of it are missing, or no rate trains without diverging.

    Args:
        plan: what it says of data is used; its runs are not.
        halted: see `sweep.execute`.
    """
    # without any one trial nothing can be chosen
    is_retried = sweep.retry_filter(options.retry or sweep.BUT_DIVERGED)
    trials, gpus = results.trials(), devices(options.device)
    cells = [_CellSearch.begin(one, search, results) for one in due]
    code = 0
    for number, rung, step in _steps(search):
        if step:
            for cell in cells:
                cell.propose()
        if not any(cell.left for cell in cells):  # every rate diverged
            break
        runs = [run for cell in cells for run in cell.runs(rung)]
        wanted = replace(plan, runs=runs, cells=len(runs), repeats=[], evaluations=[])
        before = status.sweep_status(wanted, trials)
        if not options.quiet:
            seeds = count_of(rung.seeds, "seed")
            part = f", rate {step} of {rung.rates}" if step else ""
            told = f"round {number} of {len(search.rungs)}{part}, {seeds} a rate"
            note(
                f"{options.stage}, {told}: {before.left()}"
                if options.stage
                else f"{told}: {before.summary()}"
            )
        mine = before
        if shard:
            mine = status.sweep_status(share(wanted, *shard), trials)
        todo = replace(sweep.select_jobs(mine, is_retried), trials=True)
        if todo.runs and sweep.execute(todo, trials, options, gpus, halted):
            if halted is None:
                sweep.note_stopped("trials", options)
            return 130
        if options.dry_run:
            over = {key for key, failure in before.failed.items() if failure.kind == "diverged"}
            if todo.runs or any(run.key not in over for run in before.missing):
                note(f"ready to train: {count_of(len(todo.runs), 'trial')} of round {number}")
                return 0
        after = status.sweep_status(wanted, trials)
        bad, absent = _missing(after)
        if shard and absent and not bad:
            note(
                f"round {number} waits for {count_of(len(absent), 'trial')} of other shards; "
                "after that, each shard's command again makes the next round"
            )
            return code
        if bad or absent:
            left = [cell for cell in cells if not cell.keys(rung) & (bad | absent)]
            note(
                f"not chosen while trials are missing: {len(cells) - len(left)} of "
                f"{count_of(len(cells), 'rate')}; the same command makes them"
            )
            cells, code = left, 1
            tried = bad & {run.key for run in todo.runs}
            full = any(after.failed[key].kind == "disk" for key in tried)
            more = number < len(search.rungs) or step not in (None, rung.rates)
            if more and (full or (options.fail_fast and tried)):  # which ended `execute` too
                return code
        for cell in cells:
            cell.take(after, number, rung)
            if step:
                cell.tell_proposer()
            if step in (None, rung.rates):
                cell.halve(rung)
    if options.dry_run:
        note("no trial is left to train; without --dry-run the rates are chosen")
        return 0
    for cell in cells:
        if not cell.save(results):
            note(cell.refusal())
            code = 1
    return code


def _missing(after: status.SweepStatus) -> tuple[set[str], set[str]]:
    """Keys of trials that failed, each of which is said, and of those that were not made."""
    bad = {key: failure for key, failure in after.failed.items() if failure.kind != "diverged"}
    for failure in bad.values():
        note(f"failed: {failure.job.title}: {failure.kind}: {failure.reason}")
    done = {record.run.key for record in after.records}
    return set(bad), {run.key for run in after.plan.runs} - done - set(after.failed)


@dataclass
class _CellSearch:
    """How far the search for a cell's rate is.

    Attributes:
        left: rates that are in the current round.
        stored: what earlier searches chose; None where there were none.
        proposals: where the rates of the first round come from; None where they are known.
        trials: of all rounds and of earlier searches, by key of their runs.
        places: environments of the trials, by machine.
    """

    question: Question
    search: Search
    left: list[float]
    stored: Choice | None
    proposals: tpe.Proposals | None
    trials: dict[str, Trial]
    places: dict[Machine, Json]

    @classmethod
    def begin(cls, question: Question, search: Search, results: ResultsFolder) -> "_CellSearch":
        """Before the first round, with the trials that are stored."""
        space = question.space
        cell = cls(
            question=question,
            search=search,
            left=list(question.rates),
            stored=None,
            proposals=tpe.Proposals(space) if space else None,
            trials={},
            places={},
        )
        cell.add_stored(results)
        return cell

    def add_stored(self, results: ResultsFolder) -> None:
        """Add the choice that is stored by now, with its trials."""
        stored = choices.find(results, self.question.run.key)
        if stored is None:
            return
        self.stored = stored
        self.trials = {trial.key: trial for trial in stored.trials} | self.trials
        known = [stored.environment, *stored.elsewhere]
        self.places = {place_of(one): one for one in known if one} | self.places

    def propose(self) -> None:
        """Add the next rate."""
        assert self.proposals is not None
        self.left.append(self.proposals.ask())

    def keys(self, rung: Rung) -> set[str]:
        """Those of `runs`."""
        return {run.key for run in self.runs(rung)}

    def runs(self, rung: Rung) -> list[Run]:
        """The trials of the current round that no choice and no earlier round has."""
        every = [run for rate in self.left for run in self.question.trials(rate, rung.seeds)]
        return [run for run in every if run.key not in self.trials]

    def take(self, after: status.SweepStatus, number: int, rung: Rung) -> None:
        """Note what the trials of a round gave."""
        records = {record.run.key: record for record in after.records}
        for run in self.runs(rung):
            record = records.get(run.key)
            self.trials[run.key] = _trial(run, record, after.failed.get(run.key), number)
            if record is not None:
                self.places.setdefault(place_of(record.environment), record.environment)

    def tell_proposer(self) -> None:
        """Tell the latest rate's score, from which the next one is proposed.

        Of the first round alone: later rounds, of an earlier search, would change what is proposed.
        """
        assert self.proposals is not None
        rate = self.left[-1]
        first = [self.trials[run.key] for run in self.question.trials(rate, 1)]
        self.proposals.tell(rate, mean_scores(first)[rate][0])

    def halve(self, rung: Rung) -> None:
        """Leave the rates that go on to the next round, the best first; none that diverged."""
        more = rung.seeds == 1 and self.search.seeds > 1
        order = self._ordered(self.left, rung.seeds)
        self.left = order[: self.search.finalists] if more else order[:1]

    def _ordered(self, rates: Iterable[float], seeds: int) -> list[float]:
        """The rates without a diverged trial by their means over so many seeds, the best first."""
        chosen = {run.key for rate in rates for run in self.question.trials(rate, seeds)}
        means = mean_scores(one for key, one in self.trials.items() if key in chosen)
        whole = [rate for rate in means if math.isfinite(means[rate][0])]
        return sorted(whole, key=lambda rate: means[rate], reverse=True)

    def _best(self) -> float | None:
        """The rate that is chosen; None if each diverged in some trial.

        Where all of the last round did, it is the best of the others. What was chosen before is
        compared on the seeds and parts that both were tried with.
        """
        made = by_rate(self.trials.values())
        whole = {rate for rate, some in made.items() if None not in [one.score for one in some]}
        best = next(
            (rate for rate in [*self.left, *self._ordered(whole, 1)] if rate in whole), None
        )
        before = self.stored.rate if self.stored else None
        if best is None or before is None or before not in whole:
            return best
        both = {(one.seed, one.fold) for one in made[best]}
        both &= {(one.seed, one.fold) for one in made[before]}
        pairs = [one for rate in (best, before) for one in made[rate]]
        means = mean_scores(one for one in pairs if (one.seed, one.fold) in both)
        return best if not means or means[best] > means[before] else before

    def save(self, results: ResultsFolder) -> bool:
        """Write the choice, together with what other searches stored meanwhile; whether it is one.

        These may have begun with other rates of the cell and ended hours ago.
        """
        with only_one(results, _SAVING + self.question.run.key, "saves a choice into"):
            self.add_stored(results)
            made = self.choice()
            if made is not None:
                choices.save(results, made)
        return made is not None

    def choice(self) -> Choice | None:
        """The best rate, after the last round, as `_best` has it."""
        rate, before = self._best(), self.stored
        if rate is None:
            return None
        rates = {trial.rate for trial in self.trials.values()}
        ends = {min(rates): "lowest", max(rates): "highest"}
        sources = [*(before.source.split("; ") if before else []), self.question.source]
        samplers = {before.sampler if before else self.search.sampler, self.search.sampler}
        first, *others = [*self.places.values()] or [{}]
        return Choice(
            run=self.question.run,
            rate=rate,
            metric=self.question.run.task.metric,
            source="; ".join(dict.fromkeys(sources)),
            trials=list(self.trials.values()),
            edge=ends.get(rate) if len(rates) > 1 else None,
            environment=first,
            sampler=TPE if TPE in samplers else self.search.sampler,
            elsewhere=others,
            searches=self._answered(),
        )

    def _answered(self) -> list[str]:
        before = self.stored.answer_keys if self.stored else []
        return list(dict.fromkeys([*before, *RateChoice(self.question, self.search).keys]))

    def refusal(self) -> str:
        """Why there is no choice, and what to do."""
        least = min(trial.rate for trial in self.trials.values())
        lower = ",".join(f"{rounded(least / by):g}" for by in (100, 30, 10))
        return (
            f"no rate is chosen for {self.question.run.title}: every one of those that were tried, "
            f"the least {least:g}, diverged; name lower ones, train.lr={lower}"
        )


def _steps(search: Search) -> Iterator[tuple[int, Rung, int | None]]:
    """The rounds with their numbers; one whose rates are proposed is a step for each rate."""
    for number, rung in enumerate(search.rungs, 1):
        if number == 1 and search.sampler == TPE:
            yield from ((number, rung, step) for step in range(1, rung.rates + 1))
        else:
            yield number, rung, None


def _trial(run: Run, record: Record | None, failure: Failure | None, rung: int) -> Trial:
    """What a trial gave; one that diverged has no record."""
    fold = run.checkpoint_selection.fold
    if record is None:
        spent = (failure.seconds if failure else None) or 0.0
        return Trial(run.key, run.train.lr, run.seed, fold, rung, None, False, spent)
    return Trial(
        key=run.key,
        rate=run.train.lr,
        seed=run.seed,
        fold=fold,
        rung=rung,
        score=counted_trial(record),
        collapsed=record.collapsed,
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
