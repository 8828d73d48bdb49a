"""Words to distinct runs: the cells of their grid, each composed and resolved."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from peftbench.config import catalog, checkpoints, method_nodes, old_names, resolve
from peftbench.config.composer import Composer
from peftbench.config.grid import Cell, Grid, spell
from peftbench.config.override_parsing import OverrideParser, of_suite
from peftbench.core.configs import GENERATE
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluation
from peftbench.core.plan import Plan
from peftbench.core.run import Run, canonical
from peftbench.core.tuning import Choice, SearchSpace, other_settings, subject
from peftbench.data import loading
from peftbench.results import choices
from peftbench.results.store import ResultsFolder
from peftbench.suites.base import build_suite


@old_names.noted_once()
def plan(
    *words: str,
    configs: str | Path | None = None,
    results: str | Path = "results/runs",
    ask_hub: bool = True,
    weights: bool = True,
) -> Plan:
    """Expand overrides to distinct runs, without loading torch, data or weights.

    Args:
        words: overrides, such as "method=lora,bitfit", "seed=range(0,5)", "sweep=quickstart".
        configs: a folder searched before the packaged one; ./configs by default.
        results: the folder in which an override may name an earlier run by its key.
        ask_hub: whether the hub may be asked about data sets and models without a known commit.
        weights: whether folders with checkpoints must have weights; else no checkpoint is opened,
            and such runs are good for estimates alone.

    Raises:
        ConfigError: if an override cannot be meant, or a checkpoint that is at hand cannot be used;
            nothing has been started then.
    """
    searched = catalog.folders(configs)
    composer = Composer(searched)
    sweeps = [
        catalog.current("sweep", name, searched)
        for word in words
        if word.startswith("sweep=")
        for name in word[6:].split(",")
    ]
    cells = _cells(words, sweeps, composer)
    stored = ResultsFolder(results)
    resolver = resolve.Resolver(searched, stored, ask_hub, weights)
    found = _Expansion(composer, resolver, stored)
    for cell in cells:
        found.add(cell)
    unchecked, notes = checkpoints.check_checkpoints(_asked(found)) if weights else ([], [])
    return Plan(
        runs=list(found.runs),
        cells=len(found.runs) + len(found.repeats),
        repeats=found.repeats,
        axes=_axes_of(cells),
        data_root=found.data_root(),
        evaluations=list(found.evaluations),
        own_files=list(dict.fromkeys([*_own_sweeps(sweeps, searched), *found.own_files])),
        unchecked=unchecked,
        notes=[*notes, *found.notes],
        revisions=resolver.revisions,
        spaces=found.spaces,
        renewed=resolver.renewed,
        datasets=resolver.datasets,
        rates_named=any("train.lr" in cell for cell in cells),
        rows=_rows_of_files(found.runs),
    )


def _asked(found: "_Expansion") -> list[Run]:
    """The runs of a plan, and those as which its suites ask their weights about other tasks."""
    others = (build_suite(one.suite).asked_runs(one.run) for one in found.evaluations)
    return [*found.runs, *chain.from_iterable(others)]


def _rows_of_files(runs: Iterable[Run]) -> dict[str, dict[str, int]]:
    """Examples of each split of a user's own files, which were read to resolve their runs."""
    tasks = {id(run.task): run.task for run in runs if "file" in run.task.source}
    facts = {canonical(one): loading.file_facts(one, one.classes) for one in tasks.values()}
    return {text: {"train": one.train, "validation": one.validation} for text, one in facts.items()}


def _cells(words: Iterable[str], sweeps: list[str], composer: Composer) -> list[Cell]:
    """The cells of all sweeps that the words name, or of the words alone."""
    own = [word for word in words if not word.startswith("sweep=")]
    named: list[str | None] = [*sweeps] or [None]
    parser = OverrideParser(composer.searched)
    grids = [Grid.read(own, parser, sweep) for sweep in named]
    cells = [cell for grid in grids for cell in grid.cells(composer)]
    if not cells:
        raise ConfigError("no runs left: exclude= removes all grid points")
    return cells


@dataclass
class _Expansion:
    """Cells as runs and evaluations, and what else a plan says of them.

    Attributes:
        runs: each with the words of the first cell that is this run.
        notes: which rates were chosen for another cell than theirs.
    """

    composer: Composer
    resolver: resolve.Resolver
    results: ResultsFolder
    runs: dict[Run, str] = field(default_factory=dict)
    evaluations: dict[Evaluation, None] = field(default_factory=dict)
    repeats: list[tuple[str, str]] = field(default_factory=list)
    own_files: dict[Path, None] = field(default_factory=dict)
    spaces: dict[str, SearchSpace] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    _roots: set[str | None] = field(default_factory=set)
    _asked: set[tuple[str, str]] = field(default_factory=set)
    _choices: list[Choice] | None = None

    def add(self, cell: Cell) -> None:
        """Resolve one more cell.

        Raises:
            ConfigError: for what no run or suite can have; it names the user's own files in it.
        """
        if cell.get("suite", "") is None:  # of this cell no question is asked
            cell = _parted(cell)[0]
        folders = tuple(self.resolver.searched)
        own = catalog.own_files(_chosen(cell, None), folders)
        try:
            run = self._run(cell)
        except ConfigError as error:
            if not own:
                raise
            names = ", ".join(map(str, own))
            raise ConfigError(f"{error} (files of your own take part: {names})") from error
        self.own_files |= dict.fromkeys([*own, *catalog.own_files(_chosen(cell, run), folders)])
        of_run, asking = map(spell, _parted(cell))
        if asking:
            self._ask(cell, run, asking)
        if run not in self.runs:
            self.runs[run] = of_run
        elif (of_run, asking) in self._asked or of_run != self.runs[run]:
            self.repeats.append((of_run, self.runs[run]))
        self._asked.add((of_run, asking))

    def _run(self, cell: Cell) -> Run:
        config = self.composer.nodes(cell)
        run = self.resolver.run(config)
        if run.task.generation and cell.get("prompt") == catalog.LATER["prompt"]:
            raise ConfigError(
                f"prompt={cell['prompt']} answers with classes or a value, and {run.task.name} "
                f"needs texts; leave it out, or set prompt={GENERATE}"
            )
        self._roots.add(config["data"]["root"])
        space = method_nodes.search_space(config)
        if space is not None:
            self.spaces[run.key] = space
        if not config["tuned"]:
            return run
        if "train.lr" in cell:
            raise ConfigError("tuned=true chooses train.lr; leave one of the two out")
        if run.untrained:
            return run
        if self._choices is None:
            self._choices = choices.all_choices(self.results)
        run, choice = choices.tuned(run, self._choices)
        if choice.key != subject(run).key:
            self.notes[_chosen_elsewhere(run, choice)] = None
        return run

    def _ask(self, cell: Cell, run: Run, said: str) -> None:
        if "suite" not in cell:
            raise ConfigError(f"{said}: no suite is named; set suite=NAME")
        node = self.composer.suite(cell, run.task.name)
        self.evaluations[Evaluation(run, self.resolver.suite(node, run))] = None

    def data_root(self) -> str | None:
        """The one of all runs.

        Raises:
            ConfigError: if there are several.
        """
        if len(self._roots) > 1:
            names = sorted(map(str, self._roots))
            raise ConfigError(f"data.root is one folder for all runs, got {names}")
        return next(iter(self._roots))


def _chosen_elsewhere(run: Run, choice: Choice) -> str:
    other = choice.run
    settings = other_settings(run, other)
    return (
        f"train.lr={choice.rate:g} of {run.method.name} on {run.task.name} at size {run.size} was "
        f"chosen at size {other.size}"
        + " with another budget" * (run.budget != other.budget)
        + f" with {', '.join(settings)}" * bool(settings)
    )


def _chosen(cell: Cell, run: Run | None) -> tuple[tuple[str, str], ...]:
    """The groups and options of a cell, and the family of its model."""
    groups = (*catalog.GROUPS, "suite")
    found = [(group, str(cell[group])) for group in groups if group in cell]
    found += [
        ("method", str(option)) for key, option in cell.items() if key.endswith("base_method")
    ]
    return tuple(found if run is None else [*found, ("model_family", run.model.family)])


def _own_sweeps(names: list[str], searched: list[Path]) -> list[Path]:
    found = [catalog.find("sweep", name, searched) for name in names]
    return [path for path in found if not path.is_relative_to(searched[-1])]


def _parted(cell: Cell) -> tuple[Cell, Cell]:
    """What a cell says of the run, and what of the suite."""
    suite = {key: value for key, value in cell.items() if of_suite(key)}
    return {key: value for key, value in cell.items() if key not in suite}, suite


def _axes_of(cells: list[Cell]) -> list[str]:
    """Keys of runs in which cells differ."""
    keys = dict.fromkeys(key for cell in cells for key in _parted(cell)[0])
    return [key for key in keys if len({str(cell.get(key)) for cell in cells}) > 1]
