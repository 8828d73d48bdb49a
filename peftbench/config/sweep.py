"""Words to distinct runs: Hydra composes each cell, this module says which cells there are.

Beside Hydra's own grammar (commas, `range`, `choice`) the words know `sweep=NAME` (a yaml of words)
and three kinds of grid algebra, on the command line and in that yaml alike:

    zip='size=100,1000 budget.epochs=10,3'         axes that move together
    when='method=lora: train.lr=1e-4,1e-3'         axes for matching cells, in place of theirs
    exclude='method=full size=100'                 cells to leave out
"""

import itertools
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peftbench.config import catalog, checkpoints, method_nodes, old_names, resolve
from peftbench.config.composer import ALGEBRA, Composer, of_suite
from peftbench.core.configs import GENERATE
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluation
from peftbench.core.plan import Plan
from peftbench.core.run import Run
from peftbench.core.tuning import Choice, SearchSpace, other_settings, subject
from peftbench.results import choices
from peftbench.results.store import ResultsFolder

Cell = dict[str, Any]


@old_names.noted_once()
def plan(
    *words: str,
    configs: str | Path | None = None,
    results: str | Path = "results/runs",
    ask_hub: bool = True,
    weights: bool = True,
) -> Plan:
    """Turn Hydra words into distinct runs, without loading torch, data or weights.

    Args:
        words: such as "method=lora,bitfit", "seed=range(0,5)", "sweep=quickstart".
        configs: a folder searched before the packaged one; ./configs by default.
        results: the folder in which a word may name an earlier run by its key.
        ask_hub: whether the hub may be asked about data sets without a known commit.
        weights: whether folders with checkpoints must have weights; else no checkpoint is opened,
            and such runs are good for estimates alone.

    Raises:
        ConfigError: if a word cannot be meant, or a checkpoint that is at hand cannot be used;
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
    cells = _cells(words, sweeps, composer, searched)
    stored = ResultsFolder(results)
    resolver = resolve.Resolver(searched, stored, ask_hub, weights)
    found = _Expansion(composer, resolver, stored)
    for cell in cells:
        found.add(cell)
    unchecked, notes = checkpoints.check_checkpoints(found.runs) if weights else ([], [])
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
    )


def _cells(
    words: Iterable[str], sweeps: list[str], composer: Composer, searched: list[Path]
) -> list[Cell]:
    """The cells of all sweeps that the words name, or of the words alone."""
    own = [word for word in words if not word.startswith("sweep=")]
    named: list[str | None] = [*sweeps] or [None]
    grids = [Grid.read(own, composer, searched, sweep) for sweep in named]
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
                f"asks for texts; leave it out, or say prompt={GENERATE}"
            )
        self._roots.add(config["data"]["root"])
        space = method_nodes.search_space(config)
        if space is not None:
            self.spaces.setdefault(run.method.name, space)
        if not config["tuned"]:
            return run
        if "train.lr" in cell:
            raise ConfigError("tuned=true chooses train.lr; leave one of the two out")
        if self._choices is None:
            self._choices = choices.all_choices(self.results)
        run, choice = choices.tuned(run, self._choices)
        if choice.key != subject(run).key:
            self.notes[_chosen_elsewhere(run, choice)] = None
        return run

    def _ask(self, cell: Cell, run: Run, said: str) -> None:
        if "suite" not in cell:
            raise ConfigError(f"{said}: say which suite is meant, suite=NAME")
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


def spell(cell: Cell) -> str:
    """The words of a cell, as a person would type them."""
    return " ".join(f"{key}={value}" for key, value in cell.items())


@dataclass
class Grid:
    """The axes of a sweep; each algebra holds words that are expanded like any others."""

    axes: dict[str, list[Any]] = field(default_factory=dict)
    zips: list[dict[str, list[Any]]] = field(default_factory=list)
    whens: list[tuple[dict[str, list[Any]], dict[str, list[Any]]]] = field(default_factory=list)
    excludes: list[dict[str, list[Any]]] = field(default_factory=list)
    _replaced: set[str] = field(default_factory=set)

    @classmethod
    def read(
        cls, words: Iterable[str], composer: Composer, searched: list[Path], sweep: str | None
    ) -> "Grid":
        """Sort words into axes and algebra; those of the sweep's yaml come first.

        A key given in the words replaces the sweep's own axis of that key; so does tuned=true the
        learning rates that the sweep names.
        """
        given, named = cls(), cls()
        if sweep is not None:
            named._read_sweep(catalog.find("sweep", sweep, searched), composer)
        for word in words:
            given._read_word(word, composer)
        taken = set(given.axes) | {key for axes in given.zips for key in axes}
        if given.axes.get("tuned") == [True]:
            taken.add("train.lr")
        for axes in [named.axes, *named.zips, *(then for _, then in named.whens)]:
            for key in taken & set(axes):
                del axes[key]
        grid = cls(
            named.axes | given.axes,
            [axes for axes in named.zips + given.zips if axes],
            [(when, then) for when, then in named.whens + given.whens if then],
            named.excludes + given.excludes,
        )
        keys = Counter(key for axes in [grid.axes, *grid.zips] for key in axes)
        for key in (key for key, count in keys.items() if count > 1):
            raise ConfigError(f"{key} is given twice, by itself and in a zip; leave one out")
        return grid

    def _read_sweep(self, path: Path, composer: Composer) -> None:
        for kind, words in composer.sweep(path).items():
            if kind == "grid":
                for word in words:
                    self._read_word(word, composer)
            else:
                for text in words:
                    self._read_algebra(kind, text, composer)

    def _read_word(self, word: str, composer: Composer) -> None:
        kind, _, text = word.partition("=")
        if kind in ALGEBRA:
            self._read_algebra(kind, text, composer)
            return
        key, values = composer.parse(word)
        if key in self.axes:
            raise ConfigError(f"{key} is given twice; write {key}=a,b for two values")
        self.axes[key] = values

    def _read_algebra(self, kind: str, text: str, composer: Composer) -> None:
        if kind == "zip":
            axes = _axes(text, composer)
            counts = {key: len(values) for key, values in axes.items()}
            if len(set(counts.values())) != 1:
                raise ConfigError(f"zip: axes that move together are of one length, got {counts}")
            self.zips.append(axes)
        elif kind == "exclude":
            self.excludes.append(_axes(text, composer))
        else:
            condition, found, then = text.partition(":")
            if not found:
                raise ConfigError(f"when: write 'condition: words', got {text!r}")
            self.whens.append((_axes(condition, composer), _axes(then, composer)))

    def cells(self, composer: Composer) -> Iterator[Cell]:
        """All cells in the order of the axes, the last one fastest."""
        steps = [[{key: value} for value in values] for key, values in self.axes.items()]
        for axes in self.zips:
            rows = zip(*axes.values(), strict=True)
            steps.append([dict(zip(axes, row, strict=True)) for row in rows])
        for parts in itertools.product(*steps):
            cell = {key: value for part in parts for key, value in part.items()}
            for full in self._conditional(cell, composer):
                if not any(composer.matches(full, excluded) for excluded in self.excludes):
                    yield full

    def _conditional(self, cell: Cell, composer: Composer) -> Iterator[Cell]:
        """The cell with the axes of each `when` that it matches; these replace its own."""
        further: dict[str, list[Any]] = {}
        for condition, axes in self.whens:
            if composer.matches(cell, condition):
                further |= axes
        for row in itertools.product(*further.values()):
            full = cell | dict(zip(further, row, strict=True))
            if set(further) & set(cell):  # further values of a replaced axis give the same cells
                if spell(full) in self._replaced:
                    continue
                self._replaced.add(spell(full))
            yield full


def _axes(text: str, composer: Composer) -> dict[str, list[Any]]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"cannot split {text!r} into words: {error}") from error
    if not words:
        raise ConfigError("zip, when and exclude hold words: key=value key=value")
    return dict(composer.parse(word) for word in words)
