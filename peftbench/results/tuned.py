"""Which runs of a folder have a learning rate that was chosen, and how tables tell it.

That is looked up in the folder's choices and never in a record, which may be older than the choice:
a run is tuned if its rate is the one that `tuned=true` would give it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Record, Run
from peftbench.core.text import count_of
from peftbench.core.tuning import UNREPORTED, Choice, other_settings, subject
from peftbench.results import choices

#: Behind a score whose runs have the rate that was chosen for their cell.
MARK = "§"

#: The same where the rate was chosen at another size, for another budget or with other settings.
MARK_ELSEWHERE = "¶"

#: Columns of `Tuned.figures`.
FIGURES = ("tuned", "tuning_trials", "tuning_size")


@dataclass(frozen=True)
class Tuned:
    """Tuned runs of a folder.

    Attributes:
        runs: those for whose model, method and task there is a choice, by key.
        choices: of the tuned ones, by key.
        left_out: how many untuned runs tables leave out beside them, see `untuned`.
    """

    runs: dict[str, Run] = field(default_factory=dict)
    choices: dict[str, Choice] = field(default_factory=dict)
    left_out: int = 0

    @classmethod
    def from_runs(cls, runs: Iterable[Run], known: list[Choice]) -> "Tuned":
        """Look up the choice of each run."""
        found, tuned = {}, {}
        for run in runs:
            choice = None if run.untrained else choices.nearest(run, known)
            if choice is not None:
                found[run.key] = run
                if choice.rate == run.train.lr:
                    tuned[run.key] = choice
        return cls(found, tuned)

    def untuned(self, keys: Iterable[str]) -> set[str]:
        """Runs that have another rate than a tuned one which is the same but for rate and seed."""
        here = [key for key in keys if key in self.runs]
        cells = {key: subject(self.runs[key]).key for key in here}
        tuned = {cells[key] for key in here if key in self.choices}
        return {key for key in here if key not in self.choices and cells[key] in tuned}

    def without_untuned(
        self, records: list[Record], evaluated: list[Evaluated]
    ) -> tuple[list[Record], list[Evaluated], "Tuned"]:
        """What is left without the runs of `untuned`, and how many these are."""
        gone = self.untuned(record.run.key for record in records)
        return (
            [record for record in records if record.run.key not in gone],
            [e for e in evaluated if e.evaluation.run.key not in gone],
            replace(self, left_out=len(gone)),
        )

    def choice(self, keys: Iterable[str]) -> Choice | None:
        """The one that all of these runs have their rate from; None if there is none."""
        found = {choice and choice.key: choice for choice in map(self.choices.get, keys)}
        return next(iter(found.values())) if len(found) == 1 else None

    def mark(self, keys: Iterable[str]) -> str:
        """What stands behind the figures of a cell with these runs; empty if they are not tuned."""
        every = list(keys)
        if self._share(every) != "true":
            return ""
        return f" {MARK_ELSEWHERE if any(map(self._elsewhere, every)) else MARK}"

    def figures(self, keys: Iterable[str]) -> list[str]:
        """The same for programs: true, false or some; over how many trials, at which size."""
        every = list(keys)
        choice = self.choice(every)
        told = [str(len(choice.trials)), str(choice.run.counted_size)] if choice else ["", ""]
        return [self._share(every), *told]

    def _share(self, keys: list[str]) -> str:
        """Whether all of these runs are tuned, or some, where a person asked to pool them."""
        known = [key in self.choices for key in keys]
        return "true" if known and all(known) else "some" if any(known) else "false"

    def notes(self, keys: Iterable[str]) -> list[str]:
        """What the marks mean, and what is left out; for a table of these runs."""
        tuned = [key for key in keys if key in self.choices]
        elsewhere = {key: where for key in tuned if (where := self._elsewhere(key))}
        own = [key for key in tuned if key not in elsewhere]
        told = []
        if own:
            told.append(f"{MARK} learning rate tuned over {self._trials(own)}.")
        if elsewhere:
            sizes = " or ".join(sorted({size for size, _ in elsewhere.values()}))
            others = {other for _, other in elsewhere.values()}
            part = ", in part" if "" in others else ","
            apart = f"{part} {' or '.join(sorted(others - {''}))}," if others != {""} else ""
            told.append(
                f"{MARK_ELSEWHERE} learning rate tuned over {self._trials(elsewhere)}, chosen at "
                f"{sizes}{apart} and used here."
            )
        if told:
            told[-1] += f" {UNREPORTED}"
        if self.left_out:
            told.append(
                f"{self.left_out:,} untuned run{'s are' if self.left_out > 1 else ' is'} left out, "
                "which other runs equal in all but seed and a tuned learning rate; "
                "`peftbench report table rows=method,tuned` shows both."
            )
        return told

    def _trials(self, keys: Iterable[str]) -> str:
        known = [self.choices[key] for key in keys]
        trials, rates = {len(one.trials) for one in known}, {len(one.rates) for one in known}
        return f"{_counted(trials, 'trial')} ({_counted(rates, 'rate')})"

    def _elsewhere(self, key: str) -> tuple[str, str] | None:
        """Where the rate of a run was chosen: examples, and what else was otherwise there.

        None where it was chosen for the run's own cell.
        """
        run, chosen = self.runs[key], self.choices[key].run
        if self.choices[key].key == subject(run).key:
            return None
        size = chosen.counted_size
        told = f"{size:,} examples" if isinstance(size, int) else f"size {size}"
        budget = ["for another budget"] * (run.budget != chosen.budget)
        settings = other_settings(run, chosen)
        return told, " ".join([*budget, *([f"with {', '.join(settings)}"] if settings else [])])


def _counted(counts: set[int], noun: str) -> str:
    least, most = min(counts), max(counts)
    return count_of(most, noun) if least == most else f"{least:,} to {most:,} {noun}s"
