"""What a report declares: its name, its question, and functions for its tables and figures.

A module of this package declares its report as a module-level value; `registry` lists the package,
and the folder of reports, the HTML page and the help of `report plots` follow from it. Nothing
else has to be edited for a new report:

    REPORT = Report(
        name="steps",
        question="how many steps did each method take?",
        order=20,
        tables=lambda inputs: [table(inputs.records)],
    )
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from peftbench.analysis import convention, failures
from peftbench.analysis.chance_level import with_chance_level
from peftbench.analysis.comparison import MARGIN, PairedComparison, Resamples, compare
from peftbench.analysis.costs import Prices, read_warning
from peftbench.analysis.held_out_review import with_review
from peftbench.claims import schema, tuning, verdicts
from peftbench.claims.evidence import LoadEvaluated
from peftbench.claims.tuning import TunedRates
from peftbench.config import catalog
from peftbench.core.errors import RecordError
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Json, Record
from peftbench.core.tuning import Choice
from peftbench.reports.plotting.palette import Palette
from peftbench.reports.plotting.style import Figure
from peftbench.reports.tables.markdown import Table
from peftbench.results.choices import scan
from peftbench.results.predictions import Load, readable
from peftbench.results.store import ResultsFolder
from peftbench.results.tuned import Tuned


def _no_predictions(record: Record) -> dict[str, np.ndarray]:
    raise RecordError(f"predictions of {record.run.key} were not given to the reports")


@dataclass(frozen=True, eq=False)
class Inputs:
    """Records of a folder, and what reports derive from them; each is computed once.

    Attributes:
        records, evaluated: of the folder.
        prices: of hours, energy and storage.
        against: the baseline of comparisons; None is what trains most.
        tested: the records whose predictions can be read.
        load: reads the predictions of a record.
        load_evaluated: reads those of an evaluation; None where examples are not resampled.
        choices: learning rates that were chosen; None is what the tested records tell.
        margin: a loss of so much is not worse.
        warning: what must be said wherever costs are shown; empty if nothing.
        tuned: records with a learning rate that was chosen in this folder.
        chosen: every such choice.
        diverged: runs without a record whose training diverged.
    """

    records: list[Record]
    evaluated: list[Evaluated] = field(default_factory=list)
    prices: Prices = field(default_factory=Prices)
    against: str | None = None
    tested: list[Record] = field(default_factory=list)
    load: Load = _no_predictions
    choices: TunedRates | None = None
    margin: float = MARGIN
    warning: str = ""
    tuned: Tuned = field(default_factory=Tuned)
    chosen: list[Choice] = field(default_factory=list)
    load_evaluated: LoadEvaluated | None = None
    diverged: failures.Diverged = field(default_factory=failures.Diverged)

    @cached_property
    def palette(self) -> Palette:
        """One look for each method, the same in all figures of the folder."""
        runs = [r.run for r in self.records] + [e.evaluation.run for e in self.evaluated]
        runs += [choice.run for choice in self.chosen]
        return Palette.for_methods(run.method.name for run in runs)

    @cached_property
    def resamples(self) -> Resamples:
        """Resampled examples, shared by comparisons and claims."""
        return Resamples(self.load)

    @cached_property
    def comparison(self) -> tuple[list[PairedComparison], list[str]]:
        """Each row against the baseline, and the settings that tell rows of a method apart."""
        return compare(
            self.tested, self.load, self.against, self.resamples, self.margin, self.diverged
        )

    @property
    def pairs(self) -> list[PairedComparison]:
        """The comparisons alone; none where no predictions were given."""
        return self.comparison[0] if self.tested else []

    @cached_property
    def judged(self) -> list[verdicts.Verdict]:
        """Claims of the papers, tested on these records."""
        known = schema.read(None, catalog.folders())
        return verdicts.test(
            known,
            self.tested,
            self.evaluated,
            self.resamples,
            self.choices,
            self.load_evaluated,
            self.diverged,
        )


def gather(
    results: ResultsFolder,
    records: list[Record],
    evaluated: list[Evaluated],
    *,
    prices: Prices | None = None,
    against: str | None = None,
    margin: float = MARGIN,
    predictions: bool = True,
    selected: bool = False,
) -> tuple[Inputs, list[str]]:
    """Records and evaluations of a folder as reports count them.

    Untuned runs are left out beside tuned ones that are the same but for rate and seed.

    Args:
        results: the folder.
        records, evaluated: of it, as they were read.
        prices, against, margin: see `Inputs`.
        predictions: whether to read them, which takes longest; without them nothing is tested.
        selected: whether the records are some of the folder's.

    Returns:
        The inputs, and a line for each choice, and each record's predictions, that cannot be read.
    """
    chosen, bad = scan(results)
    tuned = Tuned.from_runs((record.run for record in records), chosen)
    records, evaluated, tuned = tuned.without_untuned(records, evaluated)
    records = convention.counted_records(records)
    diverged = results.diverged()
    if selected:
        diverged = failures.Diverged.from_runs(diverged).beside(record.run for record in records)
    tested, gone = readable(records, results.predictions) if predictions else ([], [])
    evaluated = convention.counted_evaluations(evaluated)
    evaluated = with_review(evaluated, tested, results.predictions, results.evaluated_predictions)
    inputs = Inputs(
        records,
        with_chance_level(evaluated, tested, results.predictions),
        prices or Prices(),
        against,
        tested,
        results.predictions,
        tuning.beside(results, records) if predictions else None,
        margin,
        read_warning(results.folder) or "",
        tuned,
        chosen,
        results.evaluated_predictions if predictions else None,
        failures.Diverged.from_runs(diverged),
    )
    return inputs, [*(f"left out, unreadable: {reason}" for reason in bad.values()), *gone]


@dataclass(frozen=True, kw_only=True)
class Report:
    """A question to all records of a folder.

    Attributes:
        name: of its files, and on the command line.
        question: one line for lists and help.
        order: place among the other reports, of tables and of figures.
        tables: written to `NAME.md` and printed; an empty list where there is nothing to show.
        terminal: printed in their place, if a terminal needs narrower ones.
        csv: written to `NAME.csv`.
        figures: written to `NAME.png`, or `NAME_PART.png`; an empty list if the records lack
            what `needs` names.
        needs: what the figures take, in words.
        after_run: whether it is also made at the end of `peftbench run`, which must be quick.
        page: section of the HTML page (scores, differences or costs) and the place of its tables
            there; None leaves them out.
    """

    name: str
    question: str
    order: int
    tables: Callable[[Inputs], list[Table]] | None = None
    terminal: Callable[[Inputs], list[Table]] | None = None
    csv: Callable[[Inputs], Table] | None = None
    figures: Callable[[Inputs], list[Figure]] | None = None
    needs: str = ""
    after_run: bool = False
    page: tuple[str, int] | None = ("differences", 100)


#: Trained parameters of each run, by key.
Trained = dict[str, int]


@dataclass(frozen=True, kw_only=True)
class SuiteReport:
    """What the evaluations by one kind of suite found; its files have the suite's name.

    Attributes:
        suite: class path of the suite; empty for suites without a report of their own.
        tables: of evaluations by one suite.
        figures: of the same; an empty list where there is nothing to draw, None of a suite that
            never has a picture.
        page_plots: figures of the HTML page, as numbers; see `plotting.page_panels`.
    """

    suite: str
    tables: Callable[[list[Evaluated], Trained], list[Table]]
    figures: Callable[[list[Evaluated], Trained, Palette], list[Figure]] | None
    page_plots: Callable[[list[Evaluated], Trained], list[Json]]


def listed(table: Table | None) -> list[Table]:
    """A list of the table, empty if there is none."""
    return [] if table is None else [table]
