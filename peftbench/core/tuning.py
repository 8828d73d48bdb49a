"""How a learning rate is chosen for a method on a task: what is tried, and what was chosen.

Rates are tried on a selection split that is carved out of training examples of the same number as
the run's, so that the reporting split is not read; the rate that scores best is then trained with
on all of a run's own. The examples of trials are drawn with seeds of their own: below the full data
a tuned run rests on up to 1 + seeds times as many labels as it trains on. All rates are tried with
one seed first, the best ones with more (successive halving: Jamieson and Talwalkar 2016, arXiv
1502.07943).
"""

import math
import random
from collections.abc import Container
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from peftbench.core import revisions
from peftbench.core.configs import CheckpointSelection
from peftbench.core.errors import ConfigError, RecordError
from peftbench.core.run import Json, Run, canonical, identity, key_of_text, known
from peftbench.core.text import one_line

#: Said wherever choices are shown.
UNREPORTED = "The reporting split has no part in the choice."

#: The first seed of trials; those that are reported are smaller.
FIRST_SEED = 1000

#: The part of the training examples on which a trial is scored.
FRACTION = 0.25

#: With fewer training examples than this every part is held out in turn.
FEW = 300

#: Where rates are from that a person names.
NAMED = "the command line"

#: The number of figures of a rate: neighbours differ by far more than is rounded off.
_FIGURES = 2

#: How the rates of the first round are found: drawn from equal parts of the range, all before the
#: first trial; or proposed one after the other by Optuna, from the scores of those before.
STRATIFIED, TPE = "stratified", "tpe"


def rounded(rate: float) -> float:
    """A rate with as many digits as files and tables show."""
    return float(f"{rate:.{_FIGURES}g}")


@dataclass(frozen=True)
class SearchSpace:
    """The learning rates among which one is chosen.

    Attributes:
        low, high: the least and the greatest.
        source: where the range is from.
    """

    low: float
    high: float
    source: str

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            raise ConfigError(
                f"recipe.search.lr: [{self.low}, {self.high}] is no range; give a least and a "
                "greatest rate, both above 0"
            )

    def rates(self, count: int) -> list[float]:
        """So many rates, one drawn log-uniformly from each of as many equal parts of the range.

        Raises:
            ConfigError: if the range is too narrow for them to differ.
        """
        draw = random.Random(0)  # every cell with this space tries the same ones
        width = math.log(self.high / self.low) / count
        drawn = [self.low * math.exp((n + draw.random()) * width) for n in range(count)]
        rates = [rounded(rate) for rate in drawn]
        if len(set(rates)) < count:
            raise ConfigError(
                f"recipe.search.lr: [{self.low:g}, {self.high:g}] is too narrow for {count} rates "
                f"of {_FIGURES} digits, of which some would be tried twice; widen it, use "
                "fewer --trials, or name the rates, train.lr=1e-4,3e-4,1e-3"
            )
        return rates


@dataclass(frozen=True)
class Rung:
    """A round of trials.

    Attributes:
        rates: how many of them are tried, the best of the round before.
        seeds: how many each has been tried with at its end.
    """

    rates: int
    seeds: int


@dataclass(frozen=True)
class Search:
    """How many trials a choice takes.

    Attributes:
        trials: rates in the first round, each with one seed.
        finalists: rates in the second round.
        seeds: of each finalist, the first round's included.
        sampler: how the rates of the first round are found, STRATIFIED or TPE.
    """

    trials: int = 6
    finalists: int = 2
    seeds: int = 3
    sampler: str = STRATIFIED

    def __post_init__(self) -> None:
        if not 1 <= self.finalists <= self.trials:
            raise ConfigError(
                f"{self.finalists} finalists of {self.trials} trials; at least 1, at most all"
            )

    @property
    def rungs(self) -> list[Rung]:
        """The rounds."""
        first = Rung(self.trials, 1)
        return [first] if self.seeds == 1 else [first, Rung(self.finalists, self.seeds)]


@dataclass(frozen=True)
class Question:
    """A cell whose learning rate is to be chosen.

    Attributes:
        run: the run without what is chosen and what is averaged over; see `subject`.
        rates: to choose from, ascending; none where they are proposed one after the other.
        source: where they are from.
        examples: to train on; None where that is not known before.
        space: in which rates are proposed; None where they are given.
    """

    run: Run
    rates: list[float]
    source: str
    examples: int | None
    space: SearchSpace | None = None

    @property
    def folds(self) -> list[int | None]:
        """Which parts are held out, one after the other."""
        few = self.examples is not None and self.examples < FEW
        return list(range(round(1 / FRACTION))) if few else [None]

    def trials(self, rate: float, seeds: int) -> list[Run]:
        """The runs that try a rate."""
        trials = [
            replace(
                self.run,
                seed=FIRST_SEED + seed,
                train=replace(self.run.train, lr=rate),
                checkpoint_selection=CheckpointSelection(fraction=FRACTION, patience=1, fold=fold),
            )
            for seed in range(seeds)
            for fold in self.folds
        ]
        return [replace(run, loss_revision=revisions.loss_revision(run)) for run in trials]

    def rungs(self, search: Search) -> list[Rung]:
        """The rounds of a search among these rates: all of them in the first."""
        first, *rest = search.rungs
        count = len(self.rates) or first.rates
        return [Rung(count, 1), *(replace(one, rates=min(one.rates, count)) for one in rest)]

    def planned(self, search: Search) -> list[int]:
        """How many trials a search makes in each of its rounds."""
        rungs = zip(self.rungs(search), (0, 1), strict=False)
        return [rung.rates * (rung.seeds - before) * len(self.folds) for rung, before in rungs]


def subject(run: Run) -> Run:
    """The run without what a choice is made of or averaged over: one rate, one seed, one point.

    Its key names the cell.
    """
    train = replace(run.train, lr=1.0, num_evals=1)
    return replace(run, seed=0, role_seeds=None, train=train)


def other_settings(run: Run, cell: Run) -> list[str]:
    """What a cell has otherwise than a run, beside size and budget: names with its values."""
    mine, its = (_settings(subject(one)) for one in (run, cell))
    names = [name for name in {**its, **mine} if its.get(name) != mine.get(name)]
    return [f"{name}={_shown(its.get(name))}" for name in names]


def _settings(run: Run) -> Json:
    found = {f"train.{name}": value for name, value in identity(run.train.json).items()}
    held = run.checkpoint_selection.fraction
    more = {"checkpoint_selection.fraction": held, "loss_revision": run.loss_revision}
    return found | more | {"protocol": run.protocol}


def _shown(value: Any) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Trial:
    """What a trial gave.

    Attributes:
        key: of its run, whose record need not be kept.
        score: of the primary metric on what was held out; None if the training diverged.
        collapsed: whether one class or value was predicted throughout.
        seconds: of all phases.
        loss: in training, the mean since the evaluation before; None if it diverged.
    """

    key: str
    rate: float
    seed: int
    fold: int | None
    rung: int
    score: float | None
    collapsed: bool
    seconds: float
    loss: float | None = None


@dataclass(frozen=True)
class Choice:
    """A learning rate that was chosen, and all that it rests on.

    Attributes:
        run: the cell; see `subject`.
        rate: the chosen one.
        metric: by which.
        source: where the rates are from.
        trials: all that were made.
        edge: "lowest" or "highest" if the chosen rate is at an end of those that were tried.
        environment: of the trials, as records have it.
        sampler: how the rates were found, as in `Search`.
        elsewhere: environments of the trials on other machines, one for each.
        searches: keys of the searches whose trials these are, see `RateChoice.keys`; none in files
            that are older than this field, of one search.
    """

    run: Run
    rate: float
    metric: str
    source: str
    trials: list[Trial]
    edge: str | None
    environment: Json = field(default_factory=dict)
    sampler: str = STRATIFIED
    elsewhere: list[Json] = field(default_factory=list)
    searches: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        """Of the cell."""
        return self.run.key

    @property
    def rates(self) -> list[float]:
        """Those that were tried, ascending."""
        return sorted({trial.rate for trial in self.trials})

    @property
    def answer_keys(self) -> list[str]:
        """Of each search that it answers."""
        return self.searches or [_old_key(self.key, self.sampler, self.rates, len(self.trials))]

    @property
    def seconds(self) -> float:
        """Of all trials."""
        return sum(trial.seconds for trial in self.trials)

    @property
    def collapsed(self) -> bool:
        """Whether every trial of the chosen rate collapsed or diverged: no rate trained better."""
        gone = [t.collapsed or t.score is None for t in self.trials if t.rate == self.rate]
        return bool(gone) and all(gone)

    def to_json(self) -> Json:
        """Plain data that `from_json` reads."""
        return vars(self) | {
            "run": self.run.to_json(),
            "trials": [vars(trial) for trial in self.trials],
        }

    @classmethod
    def from_json(cls, data: Json) -> "Choice":
        """Read what `to_json` gave.

        Raises:
            RecordError: if a field is missing or unknown.
        """
        try:
            given = data | {
                "run": Run.from_json(data["run"]),
                "trials": [Trial(**trial) for trial in data["trials"]],
            }
            return cls(**given)
        except (KeyError, TypeError) as error:
            raise RecordError(f"a choice of other fields: {error}") from error

    def is_of(self, run: Run) -> bool:
        """Whether it was chosen for a run's model, method and task, whatever the size."""
        return _names(self.run) == _names(run) and _cell(self.run) == _cell(run)


@dataclass(frozen=True)
class RateChoice:
    """A job of a cluster: what is left of a search once its first round is there.

    Its trials of the second round, and the choice.
    """

    question: Question
    search: Search

    @property
    def run(self) -> Run:
        """The cell; see `subject`."""
        return self.question.run

    @property
    def key(self) -> str:
        """Of the cell, the rates or their range, and the rounds; no run has such a key."""
        asked, space = self.question, self.question.space
        rates = sorted(asked.rates) if space is None else [space.low, space.high]
        rungs = [[rung.rates, rung.seeds] for rung in asked.rungs(self.search)]
        parts = ["choice", self.run.key, rates, self.search.sampler, len(asked.folds), rungs]
        return key_of_text(canonical(parts))

    @property
    def keys(self) -> list[str]:
        """Those by which a choice answers it; one of them is among its `answer_keys`.

        The second is that of files which count all trials alone; they answer the search with the
        default finalists and seeds, and one of a single round.
        """
        rungs = self.question.rungs(self.search)
        usual = [Rung(min(Search.finalists, rungs[0].rates), Search.seeds)]
        if self.search.sampler == TPE or rungs[1:] not in ([], usual):
            return [self.key]
        planned = sum(self.question.planned(self.search))
        return [self.key, _old_key(self.run.key, STRATIFIED, self.question.rates, planned)]

    def is_answered(self, answers: Container[str]) -> bool:
        """Whether one of its keys is among those of a choice, or of all of a folder."""
        return any(key in answers for key in self.keys)

    @property
    def last_trials(self) -> int:
        """How many trials are made after the first round."""
        return sum(self.question.planned(self.search)[1:])

    @property
    def one_trial(self) -> Run:
        """One of the trials; the others differ in rate and seed."""
        return self.question.trials(self.question.rates[0], 1)[0]

    @property
    def title(self) -> str:
        """A line that names the job to a person; not unique."""
        return one_line(f"learning rate of {self.run.title}")

    def to_json(self) -> Json:
        """Plain data that `from_json` reads."""
        question = vars(self.question) | {"run": self.run.to_json()}
        return {"question": question, "search": asdict(self.search)}

    @classmethod
    def from_json(cls, data: Json) -> "RateChoice":
        """Read what `to_json` gave.

        Raises:
            RecordError: if a field is missing or unknown.
        """
        given = known(cls, data)
        question = known(Question, given["question"])
        return cls(
            Question(**question | {"run": Run.from_json(question["run"])}),
            Search(**known(Search, given["search"])),
        )


def _old_key(cell: str, sampler: str, rates: list[float], trials: int) -> str:
    """The key of files that count all trials alone, without finalists, seeds or a range."""
    text = canonical(["choice", cell, [] if sampler == TPE else sorted(rates), sampler, trials])
    return key_of_text(text)


def _names(run: Run) -> tuple[str, ...]:
    """What differs in most cells, without hashing anything."""
    return run.model.name, run.method.name, run.task.name


def _cell(run: Run) -> list[Any]:
    parts: list[Any] = [run.model, run.method, run.task, run.prompt, run.augmentation]
    return [None if part is None else identity(part.json) for part in parts]
