"""The grid of a sweep: axes from words, and which of their cells there are.

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

from omegaconf import OmegaConf

from peftbench.config import catalog
from peftbench.config.composer import Composer
from peftbench.config.override_parsing import ALGEBRA, OverrideParser, override_value
from peftbench.core.errors import ConfigError
from peftbench.core.text import did_you_mean
from peftbench.system import yaml_files

Cell = dict[str, Any]

#: What a sweep's yaml may hold, each a list of words.
SWEEP = ("grid", *ALGEBRA)


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
    def read(cls, words: Iterable[str], parser: OverrideParser, sweep: str | None) -> "Grid":
        """Sort words into axes and algebra; those of the sweep's yaml come first.

        A key given in the words replaces the sweep's own axis of that key; so does tuned=true the
        learning rates that the sweep names. A model, method, task or size, and the first key of a
        zip, pick the rows of the zip that have the given values, each with its own values of the
        other keys.

        Raises:
            ConfigError: for a word that does not parse or is given twice, and for values that
                pick no row of a zip.
        """
        given, named = cls(), cls()
        if sweep is not None:
            path = catalog.find("sweep", sweep, parser.searched)
            try:
                named._read_sweep(path, parser)
            except ConfigError as error:
                raise ConfigError(f"{path}: {error}") from error
        for word in words:
            given._read_word(word, parser)
        taken = set(given.axes) | {key for axes in given.zips for key in axes}
        if given.axes.get("tuned") == [True]:
            taken.add("train.lr")
        picked: set[str] = set()
        for axes in named.zips:
            picked |= _pick(axes, given.axes, taken)
        for key in picked:
            del given.axes[key]
        for axes in [named.axes, *named.zips]:
            for key in (taken - picked) & set(axes):
                del axes[key]
        for _, then in named.whens:  # these come after the zip whose rows were picked
            for key in taken & set(then):
                del then[key]
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

    def _read_sweep(self, path: Path, parser: OverrideParser) -> None:
        for kind, words in _sweep_words(path).items():
            if kind == "grid":
                for word in words:
                    self._read_word(word, parser)
            else:
                for text in words:
                    self._read_algebra(kind, text, parser)

    def _read_word(self, word: str, parser: OverrideParser) -> None:
        kind, _, text = word.partition("=")
        if kind in ALGEBRA:
            self._read_algebra(kind, text, parser)
            return
        key, values = parser.parse(word)
        if key in self.axes:
            raise ConfigError(f"{key} is given twice; write {key}=a,b for two values")
        self.axes[key] = values

    def _read_algebra(self, kind: str, text: str, parser: OverrideParser) -> None:
        if kind == "zip":
            axes = _axes(text, parser)
            counts = {key: len(values) for key, values in axes.items()}
            if len(set(counts.values())) != 1:
                raise ConfigError(f"zip: axes that move together are of one length, got {counts}")
            self.zips.append(axes)
        elif kind == "exclude":
            self.excludes.append(_condition(text, parser))
        else:
            condition, found, then = text.partition(":")
            if not found:
                raise ConfigError(f"when: write 'condition: words', got {text!r}")
            self.whens.append((_condition(condition, parser), _axes(then, parser)))

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


#: Keys that pick rows of a zip wherever they stand in it: what a row is about, and not its recipe.
_PICKING = ("model", "method", "task", "size")


def _pick(axes: dict[str, list[Any]], given: dict[str, list[Any]], taken: set[str]) -> set[str]:
    """Leave the rows of a sweep's zip that have the given values; the keys that picked them.

    Args:
        axes: of the zip.
        given: axes of the user's words.
        taken: keys that these words, their zips included, set.

    Raises:
        ConfigError: if a combination of the given values has no row, or they are another zip's.
    """
    others = [key for key in axes if key not in taken]
    keys = [key for key in axes if key in taken and key in (next(iter(axes)), *_PICKING)]
    if not (others and keys):
        return set()
    known = list(zip(*(axes[key] for key in keys), strict=True))
    offered = dict.fromkeys(spell(dict(zip(keys, row, strict=True))) for row in known)
    hint = (
        f"the sweep sets {', '.join(others)} together with {', '.join(keys)} (zip), for "
        f"{'; '.join(offered)}; give your own as well: "
        + " ".join(f"{key}=VALUE" for key in others)
    )
    for key in (key for key in keys if key not in given):
        raise ConfigError(f"a zip of {key}: {hint}")
    for wanted in itertools.product(*(given[key] for key in keys)):
        if wanted not in known:
            raise ConfigError(f"{spell(dict(zip(keys, wanted, strict=True)))}: {hint}")
    kept = [
        at
        for at, row in enumerate(known)
        if all(value in given[key] for key, value in zip(keys, row, strict=True))
    ]
    for key, values in axes.items():
        axes[key] = [values[at] for at in kept]
    return set(keys)


def _axes(text: str, parser: OverrideParser) -> dict[str, list[Any]]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"cannot split {text!r} into words: {error}") from error
    if not words:
        raise ConfigError("zip, when and exclude hold words: key=value key=value")
    axes: dict[str, list[Any]] = {}
    for word in words:
        key, values = parser.parse(word)
        if key in axes:
            raise ConfigError(f"{text!r}: {key} is given twice; write {key}=a,b for two values")
        axes[key] = values
    return axes


def _condition(text: str, parser: OverrideParser) -> dict[str, list[Any]]:
    """Axes that a cell may match.

    Raises:
        ConfigError: for a key that no option of its group has: no cell would match.
    """
    axes = _axes(text, parser)
    for key in axes:
        group, _, name = key.partition(".")
        known = catalog.all_keys(group, tuple(parser.searched))
        first = name.partition(".")[0]
        if name and known and first not in (*known, *catalog.FIXED, "base_method"):
            near = did_you_mean(key, [f"{group}.{one}" for one in known])
            raise ConfigError(f"{text!r}: no {group} has a key {key}; {near}")
    return axes


def _sweep_words(path: Path) -> dict[str, list[str]]:
    """The words of a sweep's yaml by their kind; `when` entries as `condition: words` texts.

    Raises:
        ConfigError: if it holds anything but lists of words under the names in `SWEEP`.
    """
    data = OmegaConf.to_container(yaml_files.parse(path, yaml_files.read_utf8(path)))
    if not isinstance(data, dict):
        raise ConfigError(f"it holds no {', '.join(SWEEP)}")
    data.pop("about", None)
    for name, words in data.items():
        if name not in SWEEP:
            raise ConfigError(f"{name!s}; {did_you_mean(str(name), SWEEP)}")
        if not isinstance(words, list):
            raise ConfigError(f"{name!s} must be a list of words")
    if not any(data.values()):  # else it would be one run of all defaults
        raise ConfigError("it is empty; write words under grid: - seed=0,1,2")
    return {str(name): [_text(str(name), word) for word in words] for name, words in data.items()}


def _text(kind: str, word: Any) -> str:
    """A word of a sweep; yaml reads `method=lora: train.lr=1e-4` as a mapping of one.

    Raises:
        ConfigError: for a mapping where a word is meant, with the word.
    """
    if not isinstance(word, dict):
        return str(word)
    if kind == "when" and len(word) == 1:
        ((condition, then),) = word.items()
        return f"{condition}: {then}"
    words = {key: value if isinstance(value, list) else [value] for key, value in word.items()}
    lines = "".join(f"\n  - {k}={','.join(map(override_value, v))}" for k, v in words.items())
    if kind == "when":
        lines = "".join(f"\n  - '{condition}: {then}'" for condition, then in word.items())
    raise ConfigError(f"{kind} holds words, one in a line, and not mappings; write{lines}")
