"""Values set on composed groups: only what is there already, and to a value of its kind."""

import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from peftbench.config import catalog, old_names, schema
from peftbench.config.override_parsing import override_value
from peftbench.core.errors import ConfigError, first_line
from peftbench.core.text import close_names, did_you_mean

#: Options that are a data set or a checkpoint of the user's own.
_OPEN = ("file", "hub", "auto")


def set_values(
    config: DictConfig,
    overrides: dict[str, Any],
    searched: list[Path],
    open_keys: Collection[str] = (),
) -> None:
    """Set values by their keys, which may be the names of the release before.

    Args:
        config: composed; it is changed.
        overrides: values by keys with dots; `method.rank` of a method that has a rank.
        searched: the configuration folders.
        open_keys: keys that are missing and wait for a value; others that are missing are of
            another option of the group, such as budget.steps of budget=epochs.

    Raises:
        ConfigError: if there is no such key, it is given under two names, or a value is of
            another type.
    """
    given: dict[str, str] = {}
    for name, asked in overrides.items():
        key, value = _current(config, name, asked)
        if given.setdefault(key, name) != name:
            raise ConfigError(f"{name} and {given[key]} are the same key; leave one out")
        _set(config, key, value, searched, open_keys)


def _current(config: DictConfig, key: str, value: Any) -> tuple[str, Any]:
    """A key and its value as they are called now; of a method, only the composed config knows."""
    path = key.split(".")[:-1]
    node = OmegaConf.select(config, ".".join(path)) if path[:1] == ["method"] else None
    if not isinstance(node, DictConfig):
        return key, value
    name, value = old_names.hyperparameter(key, value, [str(known) for known in node])
    return ".".join([*path, name]), value


def _set(
    config: DictConfig, key: str, value: Any, searched: list[Path], open_keys: Collection[str]
) -> None:
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
        if depth < len(path):
            node = node[part]
    if path[:1] in (["method"], ["suite"]):
        if not (OmegaConf.is_missing(node, last) or OmegaConf.is_interpolation(node, last)):
            _check_kind(key, node[last], value)
        node[last] = value
        return
    try:
        node[last] = value  # of a structured config, which checks its type
    except OmegaConfBaseException as error:
        if not isinstance(value, list | dict) and "is not a ListConfig" in str(error):
            word = shlex.quote(f"{key}=[{override_value(value)}]")
            raise ConfigError(f"{key}={value}: {key} is a list; write {word}") from error
        found = schema.wrong_type(key, value)
        raise found or ConfigError(f"{key}={value!r}: {first_line(error)}") from error


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
        word = shlex.quote(f"{key}={override_value(value)}")
        write = f"; write {needed} {word}" if len(having) == 1 else ""
        return ConfigError(f"{word} needs {needed}{write}")
    known = [str(name) for name in node] if isinstance(node, DictConfig) else []
    known += [name for name, own in old_names.SYNONYMS.items() if own in known]
    if group in schema.SCHEMAS and depth == 1:
        known = [*catalog.all_keys(group, tuple(searched))]
    where = ".".join(parts[:depth])
    named = group in ("method", "task", "model", "suite", *catalog.LATER)
    option = config[group].get("name") if named else None
    start = (
        f"{group}={option} has no" if option else f"this {group} has no" if named else "unknown key"
    )
    if having:
        return ConfigError(f"{start} {key}, which is a key of {group}={','.join(having)}")
    offered = [name for name in dict.fromkeys(known) if name not in catalog.FIXED]
    near = [f"{where}.{name}" for name in close_names(parts[depth], offered)]
    if near:
        return ConfigError(f"{start} {key}; did you mean {' or '.join(near)}?")
    told = did_you_mean(key, [f"{where}.{name}" for name in offered])
    return ConfigError(f"{start} {key}; {told if offered else f'see `peftbench list {group}s`'}")


def _check_kind(key: str, default: Any, value: Any) -> None:
    """Refuse a list for a number, and so on; None may be or become anything."""
    if default is None or value is None:
        return
    names = {DictConfig: "a mapping", ListConfig: "a list", str: "a text", bool: "true or false"}
    kinds: dict[type, type] = {dict: DictConfig, list: ListConfig}
    was = next((k for k in names if isinstance(default, k)), float)
    now = kinds.get(type(value)) or next((k for k in names if isinstance(value, k)), float)
    if was is not now and not (was is str and now is float):
        allowed = names.get(was, "a number")
        raise ConfigError(f"{key} must be {allowed} (default {default}), got {value!r}")
