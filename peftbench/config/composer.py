"""All use of Hydra: words parsed, cells composed to nodes and matched with conditions.

Hydra needs a tenth of a second for a composition, and a plan has thousands of cells. Groups are
therefore composed and resolved one by one, and each result is shared by the cells that agree on
the group's option, its overrides and the groups that it interpolates from.
"""

import copy
import json
import math
import random
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser import types
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from peftbench.config import aliases, catalog, old_names, schema
from peftbench.core.errors import ConfigError
from peftbench.core.run import ROLES, Json, canonical
from peftbench.core.text import close_names, did_you_mean
from peftbench.methods import peft_effects
from peftbench.system import yaml_files

#: Words that say how cells come from axes.
ALGEBRA = ("zip", "when", "exclude")

#: What a sweep's yaml may hold, each a list of words.
SWEEP = ("grid", *ALGEBRA)

#: How the keys of the seeds of single roles start.
_ROLE = "seed."

#: A key whose value is a method inside another one.
_BASE_METHOD = re.compile(r"method(\.\w+)*\.base_method")

_own: list[Path] = []  # the folders that the plug-in below puts in front


class OwnSource(FileConfigSource):
    """A folder of the user's own, in which names of the release before are understood."""

    @staticmethod
    def scheme() -> str:
        """What paths of such folders start with."""
        return "own"

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file."""
        path = self._path(self._normalize_file_name(config_path))
        if not path.is_file():
            raise ConfigLoadError(f"Config not found : {path}")
        text = old_names.read(path, config_path.strip("/").partition("/")[0])
        return ConfigResult(
            config=yaml_files.parse(path, text),
            path=f"{self.scheme()}://{self.path}",
            provider=self.provider,
            header=ConfigSource._get_header_dict(text[:512]),
        )

    def is_group(self, config_path: str) -> bool:
        """Whether there is such a group."""
        return self._path(config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        """Whether there is such a file."""
        return self._path(self._normalize_file_name(config_path)).is_file()

    def _path(self, config_path: str) -> Path:
        """Where something is: in the folder of its group, or in one of the group's old name."""
        group, _, rest = config_path.strip("/").partition("/")
        olds = [old for old, new in old_names.GROUPS.items() if new == group]
        places = [Path(self.path, name, rest) for name in (group, *olds)]
        return next((place for place in places if place.exists()), places[0])


class OwnConfigs(SearchPathPlugin):
    """Hydra's official way to search more folders: a user's own come first."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Put the folders of `_own` before the packaged one."""
        for folder in reversed(_own):
            search_path.prepend("own", f"own://{folder}")


OmegaConf.register_new_resolver("times", lambda a, b: float(f"{a * b:.12g}"), replace=True)
OmegaConf.register_new_resolver("peft_roles", peft_effects.default_roles, replace=True)


class Composer:
    """Composition over a list of configuration folders, the last being the packaged one."""

    def __init__(self, searched: list[Path]):
        self.searched = searched
        self._parser = OverridesParser.create()
        self._nodes: dict[str, Json] = {}
        self._suites: dict[str, Any] = {}
        self._options: dict[tuple[str, _Words], Any] = {}
        self._parts: dict[_Key, _Part] = {}
        self._resolved: dict[tuple[_Key, ...], Any] = {}
        self._open: dict[Path, set[str]] = {}

    def parse(self, word: str) -> tuple[str, list[Any]]:
        """Split a word into its key and its one or more values.

        Raises:
            ConfigError: if it is no Hydra override, or names no known key or option.
        """
        try:
            override: types.Override = self._parser.parse_overrides([word])[0]
        except HydraException as error:
            raise ConfigError(self._unread(word, str(error).splitlines()[0])) from None
        given = override.key_or_group
        text = word.partition("=")[2]
        key = aliases.current_key(given, text)
        added = override.is_add() or override.is_force_add()
        if added or override.is_delete() or override.package is not None:
            raise ConfigError(f"{word}: write plain key=value words, without +, ~ or @")
        group = "method" if _BASE_METHOD.fullmatch(key) else key
        values = aliases.current_values(given, key, self._values(word, group, override))
        if not values:
            raise ConfigError(f"{word}: no value is left of this")
        for value in values:
            old_names.check_value(given, value)
        old_key = old_names.renamed_key(given) != given
        if group in (*catalog.GROUPS, "suite"):
            if group == "method" and values == ["all"]:
                values = list(catalog.options(group, tuple(self.searched)))
            now = [catalog.current(group, str(value), self.searched, given) for value in values]
            for value in now:
                catalog.find(group, value, self.searched)
            olds = old_names.OPTIONS.get(group, {})
            if old_key and not any(str(value) in olds for value in values):
                old_names.note(given, key)
            return key, now
        if old_key:
            old_names.note(given, key)
        if key.startswith(_ROLE):
            role = key.removeprefix(_ROLE)
            if role not in ROLES:
                near = did_you_mean(key, [_ROLE + one for one in ROLES])
                raise ConfigError(f"{word}: unknown role of seeds {role}; {near}")
        elif key == "tuned":
            if not all(isinstance(value, bool) for value in values):
                raise ConfigError(f"{word}: tuned is true or false")
        elif key.partition(".")[0] not in (*catalog.GROUPS, "suite", "size", "seed", "data"):
            raise ConfigError(f"{word}: unknown key {key}; {self._nearest(key)}")
        return key, values

    def _nearest(self, key: str) -> str:
        """What an unknown key probably means; it may be one of a group, without the group."""
        first = (*catalog.GROUPS, "suite", "size", "seed", "tuned", "sweep", *ALGEBRA, "data.root")
        inner = [
            f"{group}.{name}"
            for group in (*catalog.GROUPS, "suite")
            for path in catalog.options(group, tuple(self.searched)).values()
            for name in catalog.keys(path)
        ]
        if "." in key:
            return did_you_mean(key, first if not close_names(key, inner) else inner)
        same = [name for name in dict.fromkeys(inner) if name.partition(".")[2] == key]
        near = same or close_names(key, first)
        if not near:
            tails = {name.partition(".")[2]: name for name in reversed(inner)}
            near = [tails[tail] for tail in close_names(key, tails)]
        return f"did you mean {' or '.join(near)}?" if near else did_you_mean(key, first)

    def _unread(self, word: str, reason: str) -> str:
        """Why a word is no override, and what to write."""
        start = f"cannot read the override {word!r}"
        if word.endswith((",", "=")):
            return f"{start}: a value is missing after the last {word[-1]!r}"
        for group in (*catalog.GROUPS, "suite", "sweep"):
            for name in word.split(","):
                options = catalog.options(group, tuple(self.searched))
                if name in options or aliases.same_name(name, options):
                    return f"{start}: write {group}={word}"
        reason = reason.partition(" expecting ")[0]  # dozens of tokens follow
        return (
            f"{start}: {reason}; write key=value, and quotes around a value with commas, brackets "
            "or quotes of its own"
        )

    def _values(self, word: str, group: str, override: types.Override) -> list[Any]:
        given = override.value()
        if isinstance(given, types.Glob):
            names = list(given.filter(list(catalog.options(group, tuple(self.searched)))))
            old = old_names.OPTIONS.get(group, {})
            return names + [name for name in given.filter(list(old)) if old[name] not in names]
        if not override.is_sweep_override():
            values = [_plain(given)]
        elif isinstance(given, types.RangeSweep):
            values = _range(word, given)
        else:
            try:
                found = list(override.sweep_iterator(types.Transformer.identity))
            except HydraException as error:
                raise ConfigError(f"{word}: {error}") from None
            values = []
            for value in found:  # Hydra leaves the range of `range(0,3),7` as it is
                if isinstance(value, types.RangeSweep):
                    values += _range(word, value)
                else:
                    values.append(_plain(value))
        for value in values:
            if isinstance(value, types.Sweep):
                raise ConfigError(f"{word}: write this choice by itself")
            if not _finite(value):
                raise ConfigError(f"{word}: {value} is not a finite number")
        return values

    def sweep(self, path: Path) -> dict[str, list[str]]:
        """Read a sweep's yaml; `when` entries as `condition: words` texts.

        Raises:
            ConfigError: if it holds anything but lists of words under the names in `SWEEP`.
        """
        data = OmegaConf.to_container(yaml_files.parse(path, yaml_files.read_utf8(path)))
        if not isinstance(data, dict):
            raise ConfigError(f"{path} holds no {', '.join(SWEEP)}")
        data.pop("about", None)
        for name, words in data.items():
            if name not in SWEEP:
                raise ConfigError(f"{path}: {name!s}; {did_you_mean(str(name), SWEEP)}")
            if not isinstance(words, list):
                raise ConfigError(f"{path}: {name!s} must be a list of words")
        if not any(data.values()):  # else it would be one run of all defaults
            raise ConfigError(f"{path} is empty; write words under grid: - seed=0,1,2")
        return {str(name): [_text(word) for word in words] for name, words in data.items()}

    def nodes(self, cell: dict[str, Any]) -> Json:
        """Compose a cell to plain data with every interpolation resolved.

        The result is shared between cells: it must not be written to.

        Raises:
            ConfigError: for an unknown key (with the near matches) or a value of the wrong type.
        """
        own: Json = {key: cell[key] for key in ("seed", "size", "tuned") if key in cell}
        own["role_seeds"] = {
            key.removeprefix(_ROLE): value for key, value in cell.items() if key.startswith(_ROLE)
        }
        rest = {
            key: value
            for key, value in cell.items()
            if key not in own and not key.startswith(_ROLE) and not of_suite(key)
        }
        name = json.dumps(rest)
        if name not in self._nodes:
            try:
                found = self._resolve(self._overridden(rest))
            except OmegaConfBaseException as error:
                chosen = " ".join(f"{k}={v}" for k, v in rest.items() if k in catalog.GROUPS)
                raise ConfigError(f"{chosen}: {_first_line(error)}".lstrip(": ")) from error
            self._nodes[name] = found
        return self._nodes[name] | own

    def suite(self, cell: dict[str, Any], task: str) -> Json:
        """The node of a cell's suite: its yaml, over that what it says of the task, then words.

        Raises:
            ConfigError: for an unknown key or a value of the wrong type.
        """
        overrides = {key: value for key, value in cell.items() if key.startswith("suite.")}
        name = json.dumps([cell["suite"], task, overrides])
        if name not in self._suites:
            path = catalog.find("suite", str(cell["suite"]), self.searched)
            try:
                loaded = yaml_files.parse(path, old_names.read(path, "suite"))
                assert isinstance(loaded, DictConfig)
                config = OmegaConf.create({"suite": _of_task(loaded, task)})
            except (yaml.YAMLError, OmegaConfBaseException, AssertionError) as error:
                raise ConfigError(f"{path} is not a yaml file of a suite: {error}") from error
            for key, value in overrides.items():
                _set(config, key, value, self.searched)
            self._suites[name] = OmegaConf.to_container(config.suite, resolve=True)
        return dict(self._suites[name])

    def matches(self, cell: dict[str, Any], condition: dict[str, list[Any]]) -> bool:
        """Whether every key of the condition has one of its values in the cell or by default."""
        return all(
            canonical(self._value(cell, key)) in map(canonical, allowed)
            for key, allowed in condition.items()
        )

    def _value(self, cell: dict[str, Any], key: str) -> Any:
        if key in cell:
            return cell[key]
        if key.startswith(_ROLE):
            return self.nodes(cell)["seed"]
        node: Any = self.nodes(cell)
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return node.get("name") if isinstance(node, dict) else node

    def _overridden(self, cell: dict[str, Any]) -> dict[str, "_Part"]:
        """The groups of a cell with its overrides, interpolations not resolved yet."""
        choices = {
            key: f"method@{key}={value}" if _BASE_METHOD.fullmatch(key) else f"{key}={value}"
            for key, value in cell.items()
            if key in catalog.GROUPS or _BASE_METHOD.fullmatch(key)
        }
        overrides: dict[str, dict[str, Any]] = {}
        for key, value in cell.items():
            if key not in choices:
                overrides.setdefault(key.partition(".")[0], {})[key] = value
        composed = self._composed(choices)
        named = cell.get("task.dataset")  # ORG/NAME
        task = cell.get("task.name") or str(named or "").rpartition("/")[2]
        task = task or Path(str(cell.get("task.path"))).stem
        if not OmegaConf.is_missing(composed["task"][1], "name"):
            task = composed["task"][1].name or task
        parts = {}
        for group in [*overrides, *(group for group in composed if group not in overrides)]:
            words, node = composed[group]
            own = overrides.get(group, {})
            part = (group, words, task if group in catalog.LATER else "", json.dumps(own))
            if part not in self._parts:
                chosen = group in schema.SCHEMAS and group in cell
                left_open = self._left_open(group, str(cell[group])) if chosen else set()
                changed = _changed(group, node, task, own, self.searched, left_open)
                self._parts[part] = _Part(part, changed, _references(changed, composed))
            parts[group] = self._parts[part]
        return {group: parts[group] for group in composed}

    def _resolve(self, parts: dict[str, "_Part"]) -> Json:
        """Plain data of the groups of a cell, each resolved beside those that it refers to."""
        found = {}
        for group in parts:
            beside = {group}
            while further := {ref for name in beside for ref in parts[name].references} - beside:
                beside |= further
            key = (parts[group].key, *(parts[name].key for name in sorted(beside - {group})))
            if key not in self._resolved:
                config = OmegaConf.create(flags={"no_deepcopy_set_nodes": True})
                for name in beside:
                    config[name] = parts[name].node
                OmegaConf.set_struct(config, True)
                node: Any = config[group]
                if OmegaConf.is_config(node):
                    node = OmegaConf.to_container(node, resolve=True)
                if group in schema.SCHEMAS:
                    node = {k: v for k, v in node.items() if v != "???"}
                self._resolved[key] = node
            found[group] = self._resolved[key]
        return found

    def _composed(self, choices: dict[str, str]) -> dict[str, tuple["_Words", Any]]:
        """By group the words that chose its option, and its node.

        Each group is composed by itself, unless a user's own files may tie one to another. Where
        one cannot be, the error is that of the whole composition.
        """
        by_group: dict[str, _Words] = {}
        for key, word in choices.items():
            group = key.partition(".")[0]
            by_group[group] = (*by_group.get(group, ()), word)
        if self._separable:
            try:
                return {
                    str(group): (by_group.get(str(group), ()), self._option(str(group), by_group))
                    for group in self._base(())
                }
            except (ConfigError, OmegaConfBaseException, yaml.YAMLError):
                pass
        words = tuple(choices.values())
        whole = self._base(words)
        return {str(group): (words, whole[group]) for group in whole}

    @cached_property
    def _separable(self) -> bool:
        """Whether no file can choose or change another group: the packaged ones do not."""
        own = self.searched[:-1]
        files = (path for folder in own for path in folder.rglob("*.yaml"))
        return not any((folder / "run.yaml").exists() for folder in own) and not any(
            _HYDRA.search(path.read_text(encoding="utf-8", errors="replace")) for path in files
        )

    def _option(self, group: str, by_group: dict[str, "_Words"]) -> Any:
        """The node of a group by itself; most files need no Hydra for it."""
        words = by_group.get(group, ())
        if (group, words) not in self._options:
            node = None
            if len(words) == 1:
                path = catalog.find(group, words[0].partition("=")[2], self.searched)
                loaded = yaml_files.parse(path, old_names.read(path, group))
                if isinstance(loaded, DictConfig) and "defaults" not in loaded:
                    root = OmegaConf.create({group: schema.SCHEMAS.get(group, {})})
                    root[group].merge_with(loaded)
                    node = root[group]
            self._options[group, words] = self._base(words)[group] if node is None else node
        return self._options[group, words]

    def _base(self, words: "_Words") -> DictConfig:
        try:
            return _compose(tuple(self.searched), self._state, words)
        except yaml.YAMLError as error:
            raise ConfigError(f"{' '.join(words)}: a yaml file is broken: {error}") from error
        except RecursionError:
            raise ConfigError(
                f"{' '.join(words)}: a yaml file refers to itself, in its defaults or by an alias"
            ) from None
        except AssertionError:
            raise ConfigError(
                f"{' '.join(words)}: a yaml file must hold key: value lines, got one value"
            ) from None
        except (HydraException, OmegaConfBaseException) as error:
            inner = [word for word in words if "@" in word]
            if inner and "Could not override" in str(error):
                raise ConfigError(
                    f"{inner[0].partition('@')[2]}: this method takes no other one inside; "
                    "`peftbench list methods` says which are around another one"
                ) from error
            raise ConfigError(_reason(error)) from error
        except ValueError as error:  # of Hydra, about a list of defaults
            raise ConfigError(_first_line(error)) from error

    @cached_property
    def _state(self) -> tuple[tuple[str, int, int], ...]:
        """What tells whether a configuration file changed since an earlier composition."""
        paths = (path for folder in self.searched for path in folder.rglob("*.yaml"))
        stats = [(str(path), path.stat()) for path in paths]
        return tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in stats)

    def _left_open(self, group: str, option: str) -> set[str]:
        """Keys for which the file of an option says ???: an override has to give them."""
        path = catalog.find(group, option, self.searched)
        if path not in self._open:
            found = yaml_files.parse(path, old_names.read(path, group))
            assert isinstance(found, DictConfig)
            missing = [str(key) for key in found if OmegaConf.is_missing(found, key)]
            self._open[path] = {f"{group}.{key}" for key in missing}
        return self._open[path]


#: What chose an option: `method=lora`, and words for the methods inside it.
_Words = tuple[str, ...]

#: Group, words, task and overrides: all that a group's node is made of.
_Key = tuple[str, _Words, str, str]

#: What a file may use to change more than the group it is in.
_HYDRA = re.compile(r"defaults|@package")


@dataclass(frozen=True)
class _Part:
    """A group's node with overrides, and the groups that its interpolations name."""

    key: _Key
    node: Any
    references: frozenset[str]


@lru_cache(maxsize=256)
def _compose(searched: tuple[Path, ...], state: object, words: _Words) -> DictConfig:
    """Compose with Hydra, once for all plans of a process while no file changes.

    The result is shared: it must not be written to.
    """
    _own[:] = searched[:-1]
    for plugin in (OwnConfigs, OwnSource):
        Plugins.instance().register(plugin)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(searched[-1]), version_base="1.3"):
        return compose("run", overrides=list(words))


def _changed(
    group: str,
    node: Any,
    task: str,
    overrides: dict[str, Any],
    searched: list[Path],
    left_open: Collection[str],
) -> Any:
    """A copy of a group's node with what it says of the task, then with overrides.

    Raises:
        ConfigError: for an unknown key or a value of the wrong type.
    """
    config = OmegaConf.create(flags={"no_deepcopy_set_nodes": True})
    config[group] = copy.deepcopy(node)
    OmegaConf.set_struct(config, True)
    if group in catalog.LATER:
        config[group].merge_with(config[group].tasks.get(task) or {})
    given: dict[str, str] = {}
    for name, asked in overrides.items():
        key, value = _current(config, name, asked)
        if given.setdefault(key, name) != name:
            raise ConfigError(f"{name} and {given[key]} are the same key; leave one out")
        _set(config, key, value, searched, left_open)
    return config[group]


def _references(node: Any, groups: Collection[str]) -> frozenset[str]:
    """The groups that interpolations of a node may name; too many do no harm."""
    plain = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
    texts = [text for text in _texts(plain) if "${" in text]
    if any("${${" in text for text in texts):
        return frozenset(groups)
    words = {word for text in texts for word in re.findall(r"\w+", text)}
    return frozenset(words & set(groups))


def _texts(node: Any) -> Iterator[str]:
    """All strings of plain data."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for inner in node.values() if isinstance(node, dict) else node:
            yield from _texts(inner)


def of_suite(key: str) -> bool:
    """Whether a key says something of a suite, not of a run."""
    return key.partition(".")[0] == "suite"


def _of_task(node: DictConfig, task: str | None) -> Any:
    """A node with what it says of a task by name, under `tasks`, over the rest."""
    rest = OmegaConf.masked_copy(node, [str(key) for key in node if key != "tasks"])
    return OmegaConf.merge(rest, (node.get("tasks") or {}).get(task) or {})


def _current(config: DictConfig, key: str, value: Any) -> tuple[str, Any]:
    """A key and its value as they are called now; of a method, only the composed config knows."""
    path = key.split(".")[:-1]
    node = OmegaConf.select(config, ".".join(path)) if path[:1] == ["method"] else None
    if not isinstance(node, DictConfig):
        return key, value
    name, value = old_names.hyperparameter(key, value, [str(known) for known in node])
    return ".".join([*path, name]), value


def _set(
    config: DictConfig,
    key: str,
    value: Any,
    searched: list[Path],
    open_keys: Collection[str] = (),
) -> None:
    """Set one value that is there already; `method.rank=4` of a method that has a rank.

    Args:
        config: composed.
        key: with dots.
        value: for it.
        searched: the configuration folders.
        open_keys: keys that are missing and wait for a value; others that are missing are of
            another option of the group, such as budget.steps of budget=epochs.

    Raises:
        ConfigError: if there is no such key, or the value is of another type.
    """
    node: Any = config
    *path, last = key.split(".")
    for depth, part in enumerate([*path, last]):
        there = isinstance(node, DictConfig) and part in node.keys()  # noqa: SIM118 - or ???
        if there and depth == 1 and path[0] in schema.SCHEMAS and OmegaConf.is_missing(node, part):
            there = key in open_keys
        if not there:
            if path[-1:] == ["config"] and depth == len(path) and isinstance(node, DictConfig):
                with open_dict(node):  # the arguments of another library: that checks them
                    node[part] = value
                return
            raise _unknown(config, key, value, depth, node, searched)
        before = OmegaConf.is_missing(node, part) or OmegaConf.is_interpolation(node, part)
        if depth == len(path):
            if path[:1] != ["method"] and path[:1] != ["suite"]:
                _assign(node, part, key, value)
                return
            if not before:
                _same_kind(key, node[part], value)
            node[part] = value
        else:
            node = node[part]


def _unknown(
    config: DictConfig, key: str, value: Any, depth: int, node: Any, searched: list[Path]
) -> ConfigError:
    """An error that says what a key that is not there probably means.

    Args:
        config: composed.
        key: with dots.
        value: that it was to have.
        depth: of the part that is not there.
        node: in which it is not.
        searched: the configuration folders.
    """
    group, *_ = parts = key.split(".")
    options = catalog.options(group, tuple(searched)) if depth == 1 else {}
    having = [name for name, path in options.items() if parts[1] in catalog.keys(path)]
    if group in ("task", "model"):  # of the others a key says what the data or the weights are
        having = [name for name in having if name in _OPEN]
    if having and group in schema.SCHEMAS:
        needed = " or ".join(f"{group}={name}" for name in having)
        write = f"; write {needed} {key}={value}" if len(having) == 1 else ""
        return ConfigError(f"{key}={value} needs {needed}{write}")
    known = [str(name) for name in node] if isinstance(node, DictConfig) else []
    known += [name for name, own in old_names.SYNONYMS.items() if own in known]
    if group in schema.SCHEMAS and depth == 1:
        known = [name for path in options.values() for name in catalog.keys(path)]
    where = ".".join(parts[:depth])
    named = group in ("method", "task", "model", "suite", *catalog.LATER)
    start = f"{group}={config[group].get('name')} has no" if named else "unknown key"
    if having:
        return ConfigError(f"{start} {key}, which is a key of {group}={','.join(having)}")
    offered = [name for name in dict.fromkeys(known) if name not in catalog.FIXED]
    near = [f"{where}.{name}" for name in close_names(parts[depth], offered)]
    if near:
        return ConfigError(f"{start} {key}; did you mean {' or '.join(near)}?")
    told = did_you_mean(key, [f"{where}.{name}" for name in offered])
    return ConfigError(f"{start} {key}; {told if offered else f'see `peftbench list {group}s`'}")


#: Options that are a data set or a checkpoint of the user's own.
_OPEN = ("file", "hub", "auto")


def _assign(node: DictConfig, part: str, key: str, value: Any) -> None:
    """Set a value of a structured config, which checks its type.

    Raises:
        ConfigError: if it is of another type.
    """
    try:
        node[part] = value
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key}={value!r}: {_first_line(error)}") from error


def _same_kind(key: str, default: Any, value: Any) -> None:
    if default is None or value is None:
        return
    names = {DictConfig: "a mapping", ListConfig: "a list", str: "a word", bool: "true or false"}
    kinds: dict[type, type] = {dict: DictConfig, list: ListConfig}
    was = next((k for k in names if isinstance(default, k)), float)
    now = kinds.get(type(value)) or next((k for k in names if isinstance(value, k)), float)
    if was is not now and not (was is str and now is float):
        raise ConfigError(f"{key} is {names.get(was, 'a number')} ({default}), got {value!r}")


def _finite(value: Any) -> bool:
    if isinstance(value, list | dict):
        return all(map(_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def _plain(value: Any) -> Any:
    if isinstance(value, types.QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, dict):
        return {_plain(name): _plain(inner) for name, inner in value.items()}
    return value


def _range(word: str, given: types.RangeSweep) -> list[Any]:
    """The numbers of `range(start,stop,step)` without the end, counted as decimals.

    Hydra adds the binary fractions behind them, by which 0.1 to 0.4 would reach 0.4, and 0.3 would
    be 0.30000000000000004, which is another run.
    """
    ends = (given.start, given.stop, given.step)
    if given.step == 0 or not all(math.isfinite(end or 0) for end in ends):
        raise ConfigError(f"{word}: a range has finite ends and a step that is not 0")
    if all(isinstance(end, int) for end in ends):
        made: list[Any] = list(given.range())
    else:
        start, stop, step = (Decimal(str(end)) for end in ends)
        count = max(0, math.ceil((stop - start) / step))
        made = [float(start + number * step) for number in range(count)]
    if given.shuffle:
        random.shuffle(made)
    return made


def _text(word: Any) -> str:
    """A word of a sweep; yaml reads `method=lora: train.lr=1e-4` as a mapping of one."""
    whole = word.items() if isinstance(word, dict) else ()
    return "; ".join(f"{condition}: {then}" for condition, then in whole) or str(word)


def _reason(error: Exception) -> str:
    """Why a composition failed: which file, and which key or type was wrong in it."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, ConfigKeyError):
        fields = [str(name) for name in getattr(cause.object_type, "__dataclass_fields__", ())]
        near = f"; {did_you_mean(str(cause.key), fields)}" if fields else ""
        return f"{_first_line(error).partition(':')[0]}: {_first_line(cause)}{near}"
    if isinstance(cause, OmegaConfBaseException):
        return f"{_first_line(error).partition(':')[0]}: {cause.full_key}: {_first_line(cause)}"
    return _first_line(error)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
