"""Nodes of a composed configuration: what each must say, and what of it a key holds."""

import re
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from peftbench.config import catalog
from peftbench.core.configs import Config, class_name
from peftbench.core.errors import ConfigError
from peftbench.core.run import Json
from peftbench.core.text import did_you_mean

C = TypeVar("C", bound=Config)

#: What the file of an option must say, where not all of its schema.
NEEDED = {
    "model": ("name", "family", "checkpoint", "revision", "package", "sha256", "shape"),
    "method": ("name", "_target_"),
    "task": ("name", "kind", "classes", "texts", "label", "splits", "extra", "metrics"),
    "augmentation": ("name", "kinds", "probability", "versions"),
    "suite": ("name", "_target_"),
}


def build(group: str, kind: type[C], node: Json) -> C:
    """A config from a node of its schema; values that its option has not are the defaults.

    Raises:
        ConfigError: if one without a default is missing, or a value is out of range.
    """
    given = bare(node)
    required = [one.name for one in fields(kind) if one.default is MISSING]  # type: ignore[arg-type]
    if missing := [f"{group}.{name}" for name in required if name not in given]:
        raise ConfigError(
            f"missing {', '.join(missing)}; give {missing[0]}=VALUE, or write it into the file of "
            f"its option (see configs/{group})"
        )
    return kind(**given)


def whole(group: str, node: Any) -> Json:
    """The node, if it says all that it must.

    Raises:
        ConfigError: naming what is missing.
    """
    name = node.get("name") if isinstance(node, dict) else None
    if isinstance(node, dict) and group == "method":
        missing = [key for key, value in node.items() if value == "???"]
    else:
        missing = []
    missing += [key for key in NEEDED[group] if not isinstance(node, dict) or key not in node]
    if missing:
        first = f"{group}.{missing[0]}=VALUE"
        raise ConfigError(
            f"{group}={name}: missing {', '.join(missing)}; give {first}, or write it into its "
            f"file (see configs/{group})"
        )
    if not isinstance(name, str) and (group, name) != ("task", None):
        raise ConfigError(f"{group}.name must be a word, got {name!r}")
    if not isinstance(target := node.get("_target_", ""), str):
        raise ConfigError(f"{group}._target_ must be the dotted path of a class, got {target!r}")
    return {key: value for key, value in node.items() if key not in catalog.PROSE or key == "about"}


@cache
def _check_target(group: str, target: str) -> None:
    """Refuse a class that the package does not have; nothing is imported for it.

    Raises:
        ConfigError: naming near ones.
    """
    module, _, name = target.rpartition(".")
    if not module.startswith("peftbench."):
        return
    file = Path(__file__).parents[2].joinpath(*module.split(".")).with_suffix(".py")
    if not (
        file.is_file() and re.search(rf"^class {name}\b", file.read_text(encoding="utf-8"), re.M)
    ):
        near = did_you_mean(target, catalog.packaged_targets(group).values())
        raise ConfigError(f"{group}._target_={target}: there is no such class; {near}")


def bare(node: Json) -> Json:
    """The node without its prose."""
    return {key: value for key, value in node.items() if key not in catalog.PROSE}


def identity(group: str, node: Json) -> Json:
    """What a key holds of a class beside the name of its option.

    Raises:
        ConfigError: for a class that the package does not have.
    """
    target = str(node["_target_"])
    _check_target(group, target)
    found: Json = {}
    if catalog.packaged_targets(group).get(str(node["name"])) != target:
        found["implementation"] = class_name(target)
    return found
