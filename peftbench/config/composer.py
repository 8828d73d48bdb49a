"""Cells composed to nodes and matched with conditions.

Hydra needs a tenth of a second for a composition, and a plan has thousands of cells. Groups are
therefore composed and resolved one by one, and each result is shared by the cells that agree on
the group's option, its overrides and the groups that it interpolates from.
"""

import copy
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from peftbench.config import catalog, old_names, overriding, schema
from peftbench.config.hydra_composition import HydraFolders, Words
from peftbench.config.made_once import MadeOnce
from peftbench.config.override_parsing import BASE_METHOD, ROLE_SEED, of_suite
from peftbench.core.errors import ConfigError
from peftbench.core.run import Json, canonical
from peftbench.methods import peft_effects
from peftbench.system import yaml_files

OmegaConf.register_new_resolver("times", lambda a, b: float(f"{a * b:.12g}"), replace=True)
OmegaConf.register_new_resolver("peft_roles", peft_effects.default_roles, replace=True)

#: What a file may use to change more than the group it is in.
_TIES = re.compile(r"defaults|@package")


@dataclass(frozen=True)
class _Part:
    """A group's node with overrides, and the words of its interpolations; None: any group's."""

    group: str
    node: Any
    names: frozenset[str] | None


class Composer:
    """Composition over a list of configuration folders, the last being the packaged one."""

    def __init__(self, searched: list[Path]):
        self.searched = searched
        self._once = MadeOnce()

    def nodes(self, cell: dict[str, Any]) -> Json:
        """Compose a cell to plain data with every interpolation resolved.

        The result is shared between cells: it must not be written to.

        Raises:
            ConfigError: for an unknown key (with the near matches) or a value of the wrong type.
        """
        own: Json = {key: cell[key] for key in ("seed", "size", "tuned") if key in cell}
        own["role_seeds"] = {
            key.removeprefix(ROLE_SEED): value
            for key, value in cell.items()
            if key.startswith(ROLE_SEED)
        }
        rest = {
            key: value
            for key, value in cell.items()
            if key not in own and not key.startswith(ROLE_SEED) and not of_suite(key)
        }
        return self._once(self._nodes, rest) | own

    def suite(self, cell: dict[str, Any], task: str) -> Json:
        """The node of a cell's suite: its yaml, over that what it says of the task, then words.

        Raises:
            ConfigError: for an unknown key or a value of the wrong type.
        """
        overrides = {key: value for key, value in cell.items() if key.startswith("suite.")}
        return dict(self._once(self._suite, str(cell["suite"]), task, overrides))

    def matches(self, cell: dict[str, Any], condition: dict[str, list[Any]]) -> bool:
        """Whether every key of the condition has one of its values in the cell or by default."""
        return all(
            canonical(self._value(cell, key)) in map(canonical, allowed)
            for key, allowed in condition.items()
        )

    def _value(self, cell: dict[str, Any], key: str) -> Any:
        if key in cell:
            return cell[key]
        if key in self._defaults:  # not every option says its name
            return self._defaults[key]
        if key.startswith(ROLE_SEED):
            return self.nodes(cell)["seed"]
        node: Any = self.nodes(cell)
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return node.get("name") if isinstance(node, dict) else node

    @cached_property
    def _defaults(self) -> dict[str, str]:
        return catalog.default_options(self.searched)

    def _nodes(self, cell: dict[str, Any]) -> Json:
        try:
            parts = self._parts(cell)
            return {group: self._plain(group, parts) for group in parts}
        except OmegaConfBaseException as error:
            chosen = " ".join(f"{k}={v}" for k, v in cell.items() if k in catalog.GROUPS)
            raise ConfigError(f"{chosen}: {schema.type_reason(error)}".lstrip(": ")) from error

    def _parts(self, cell: dict[str, Any]) -> dict[str, _Part]:
        """The groups of a cell with its overrides, interpolations not resolved yet."""
        choices = {
            key: f"method@{key}={value}" if BASE_METHOD.fullmatch(key) else f"{key}={value}"
            for key, value in cell.items()
            if key in catalog.GROUPS or BASE_METHOD.fullmatch(key)
        }
        overrides: dict[str, dict[str, Any]] = {}
        for key, value in cell.items():
            if key not in choices:
                overrides.setdefault(key.partition(".")[0], {})[key] = value
        words = self._words(choices)
        task = _task_name(cell, self._once(self._option, "task", words["task"]))
        parts = {}
        for group in [*overrides, *(group for group in words if group not in overrides)]:
            option = str(cell[group]) if group in schema.SCHEMAS and group in cell else None
            of_task = task if group in catalog.LATER else ""
            given = overrides.get(group, {})
            parts[group] = self._once(self._part, group, words[group], of_task, given, option)
        return {group: parts[group] for group in words}

    def _part(
        self, group: str, words: Words, task: str, overrides: dict[str, Any], option: str | None
    ) -> _Part:
        """A copy of a group's node with what it says of the task, then with overrides.

        Raises:
            ConfigError: for an unknown key or a value of the wrong type.
        """
        config = OmegaConf.create(flags={"no_deepcopy_set_nodes": True})
        config[group] = copy.deepcopy(self._once(self._option, group, words))
        OmegaConf.set_struct(config, True)
        if group in catalog.LATER:
            config[group].merge_with(config[group].tasks.get(task) or {})
        left_open = () if option is None else self._once(self._left_open, group, option)
        overriding.set_values(config, overrides, self.searched, left_open)
        return _Part(group, config[group], _interpolated(config[group]))

    def _plain(self, group: str, parts: dict[str, _Part]) -> Any:
        """Plain data of a group, resolved beside those that it refers to."""
        beside = {group}
        while further := {ref for name in beside for ref in _referred(parts, name)} - beside:
            beside |= further
        others = (parts[name] for name in sorted(beside - {group}))
        return self._once(_resolved, parts[group], *others)

    def _words(self, choices: dict[str, str]) -> dict[str, Words]:
        """By group the words that its node is composed with.

        They are those that choose its option. They are all words where a user's own files may tie
        groups together, or a group cannot be composed by itself: the error is then that of the
        whole composition.
        """
        if self._separable:
            try:
                words: dict[str, Words] = {str(group): () for group in self._hydra.compose(())}
                for key, word in choices.items():
                    words[key.partition(".")[0]] += (word,)
                for group, own in words.items():
                    self._once(self._option, group, own)
                return words
            except (ConfigError, OmegaConfBaseException, yaml.YAMLError):
                pass
        everything = tuple(choices.values())
        return {str(group): everything for group in self._hydra.compose(everything)}

    @cached_property
    def _separable(self) -> bool:
        """Whether no file can choose or change another group: the packaged ones do not."""
        own = self.searched[:-1]
        files = (path for folder in own for path in folder.rglob("*.yaml"))
        return not any((folder / "run.yaml").exists() for folder in own) and not any(
            _TIES.search(path.read_text(encoding="utf-8", errors="replace")) for path in files
        )

    @cached_property
    def _hydra(self) -> HydraFolders:
        return HydraFolders(self.searched)

    def _option(self, group: str, words: Words) -> Any:
        """The node of a group by the words that choose it; most files need no Hydra for it."""
        if self._separable and len(words) == 1 and words[0].startswith(f"{group}="):
            path = catalog.find(group, words[0].partition("=")[2], self.searched)
            loaded = yaml_files.parse(path, old_names.read(path, group))
            if isinstance(loaded, DictConfig) and "defaults" not in loaded:
                root = OmegaConf.create({group: schema.SCHEMAS.get(group, {})})
                root[group].merge_with(loaded)
                return root[group]
        return self._hydra.compose(words)[group]

    def _left_open(self, group: str, option: str) -> list[str]:
        """Keys for which the file of an option says ???: an override has to give them."""
        path = catalog.find(group, option, self.searched)
        found = yaml_files.parse(path, old_names.read(path, group))
        assert isinstance(found, DictConfig)
        return [f"{group}.{key!s}" for key in found if OmegaConf.is_missing(found, key)]

    def _suite(self, name: str, task: str, overrides: dict[str, Any]) -> Any:
        path = catalog.find("suite", name, self.searched)
        try:
            loaded = yaml_files.parse(path, old_names.read(path, "suite"))
            assert isinstance(loaded, DictConfig)
            config = OmegaConf.create({"suite": _of_task(loaded, task)})
        except (yaml.YAMLError, OmegaConfBaseException, AssertionError) as error:
            raise ConfigError(f"{path} is not a yaml file of a suite: {error}") from error
        overriding.set_values(config, overrides, self.searched)
        return OmegaConf.to_container(config.suite, resolve=True)


def _task_name(cell: dict[str, Any], node: DictConfig) -> str:
    """The task of a cell as prompts and augmentations know it."""
    if not OmegaConf.is_missing(node, "name") and node.name:
        return str(node.name)
    named = cell.get("task.dataset")  # ORG/NAME
    task = cell.get("task.name") or str(named or "").rpartition("/")[2]
    return str(task or Path(str(cell.get("task.path"))).stem)


def _resolved(part: _Part, *beside: _Part) -> Any:
    """Plain data of a group, with the groups beside it that its interpolations name."""
    config = OmegaConf.create(flags={"no_deepcopy_set_nodes": True})
    for one in (part, *beside):
        config[one.group] = one.node
    OmegaConf.set_struct(config, True)
    node: Any = config[part.group]
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=True)
    if part.group in schema.SCHEMAS:
        node = {key: value for key, value in node.items() if value != "???"}
    return node


def _referred(parts: dict[str, _Part], group: str) -> Collection[str]:
    """The groups that interpolations of a group may name; too many do no harm."""
    names = parts[group].names
    return parts if names is None else names & parts.keys()


def _interpolated(node: Any) -> frozenset[str] | None:
    """The words of a node's interpolations, groups among them; None if they may be any."""
    plain = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
    texts = [text for text in _texts(plain) if "${" in text]
    if any("${${" in text for text in texts):
        return None
    return frozenset(word for text in texts for word in re.findall(r"\w+", text))


def _texts(node: Any) -> Iterator[str]:
    """All strings of plain data."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for inner in node.values() if isinstance(node, dict) else node:
            yield from _texts(inner)


def _of_task(node: DictConfig, task: str | None) -> Any:
    """A node with what it says of a task by name, under `tasks`, over the rest."""
    rest = OmegaConf.masked_copy(node, [str(key) for key in node if key != "tasks"])
    return OmegaConf.merge(rest, (node.get("tasks") or {}).get(task) or {})
