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

from peftbench.config import catalog, checkpoints, method_nodes, resolve
from peftbench.config.composer import ALGEBRA, Composer, of_suite
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluation
from peftbench.core.plan import Plan
from peftbench.core.run import Run
from peftbench.core.tuning import Choice, SearchSpace, subject
from peftbench.results import choices
from peftbench.results.store import Results

Cell = dict[str, Any]


def plan(
    *words: str,
    configs: str | Path | None = None,
    results: str | Path = "results/runs",
    ask_hub: bool = True,
) -> Plan:
    """Turn Hydra words into distinct runs, without loading torch, data or weights.

    Args:
        words: such as "method=lora,bitfit", "seed=range(0,5)", "sweep=quickstart".
        configs: a folder searched before the packaged one; ./configs by default.
        results: the folder in which a word may name an earlier run by its key.
        ask_hub: whether the hub may be asked about data sets without a known commit.

    Raises:
        ConfigError: if a word cannot be meant, or a checkpoint that is at hand cannot be used;
            nothing has been started then.
    """
    searched = catalog.folders(configs)
    composer = Composer(searched)
    resolver = resolve.Resolver(searched, Results(results), ask_hub)
    sweeps = [
        catalog.current("sweep", name, searched)
        for word in words
        if word.startswith("sweep=")
        for name in word[6:].split(",")
    ]
    own = [word for word in words if not word.startswith("sweep=")]
    named: list[str | None] = [*sweeps] or [None]
    grids = [Grid.read(own, composer, searched, sweep) for sweep in named]
    cells = [cell for grid in grids for cell in grid.cells(composer)]
    if not cells:
        raise ConfigError("no runs left: exclude= removes all grid points")
    runs: dict[Run, str] = {}
    evaluations: dict[Evaluation, None] = {}
    repeats = []
    roots = set()
    asked: set[tuple[str, str]] = set()
    own_files: dict[Path, None] = dict.fromkeys(_own_sweeps(sweeps, searched))
    folders = tuple(searched)
    spaces: dict[str, SearchSpace] = {}
    chosen: list[Choice] | None = None
    elsewhere: dict[str, None] = {}
    for cell in cells:
        own_files |= dict.fromkeys(here := catalog.own_files(_chosen(cell, None), folders))
        try:
            config = composer.nodes(cell)
            run = resolver.run(config)
            space = method_nodes.search_space(config)
            if space is not None:
                spaces.setdefault(run.method.name, space)
            if config["tuned"]:
                if "train.lr" in cell:
                    raise ConfigError("tuned=true chooses train.lr; leave one of the two out")
                if chosen is None:
                    chosen = choices.all_choices(Results(results))
                run, choice = choices.tuned(run, chosen)
                if choice.key != subject(run).key:
                    elsewhere[_chosen_elsewhere(run, choice)] = None
        except ConfigError as error:
            if not here:
                raise
            names = ", ".join(map(str, here))
            raise ConfigError(f"{error} (files of your own take part: {names})") from error
        own_files |= dict.fromkeys(catalog.own_files(_chosen(cell, run), folders))
        roots.add(config["data"]["root"])
        of_run, asking = _parted(cell)
        if asking:
            if "suite" not in asking:
                raise ConfigError(f"{spell(asking)}: say which suite is meant, suite=NAME")
            node = composer.suite(cell, run.task.name)
            evaluations[Evaluation(run, resolver.suite(node, run))] = None
        said = spell(of_run)
        if run not in runs:
            runs[run] = said
        elif (said, spell(asking)) in asked or said != runs[run]:
            repeats.append((said, runs[run]))
        asked.add((said, spell(asking)))
    if len(roots) > 1:
        raise ConfigError(f"data.root is one folder for all runs, got {sorted(map(str, roots))}")
    axes = [
        key
        for key in dict.fromkeys(key for cell in cells for key in _parted(cell)[0])
        if _varies(key, cells)
    ]
    count = len(runs) + len(repeats)
    unchecked, notes = checkpoints.check(runs)
    return Plan(
        list(runs),
        count,
        repeats,
        axes,
        roots.pop(),
        list(evaluations),
        list(own_files),
        unchecked,
        [*notes, *elsewhere],
        resolver.revisions,
        spaces,
        resolver.renewed,
        resolver.datasets,
    )


def _chosen_elsewhere(run: Run, choice: Choice) -> str:
    other = choice.run
    return (
        f"train.lr={choice.rate:g} of {run.method.name} on {run.task.name} at size {run.size} was "
        f"chosen at size {other.size}" + " with another budget" * (run.budget != other.budget)
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


def _varies(key: str, cells: list[Cell]) -> bool:
    return len({str(cell.get(key)) for cell in cells}) > 1


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
