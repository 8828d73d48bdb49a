"""From a run back to words: those with which `peftbench plan` means it again, or others like it."""

from pathlib import Path
from typing import Any

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluation
from peftbench.core.run import Json, Run, canonical, identity

#: Nodes whose option is their name; the rest of a run are the values below.
_NAMED = ("model", "method", "task", "form", "augment")

#: Of these nodes any value may differ from the option's.
_VALUES = ("method", "budget", "train", "select", "form", "augment")


def words(run: Run, configs: Path | None = None) -> dict[str, str]:
    """Keys and values that compose to this run, its seed among them.

    Raises:
        ConfigError: if no words of these config folders do.
    """
    found = {node: str(part["name"]) for node in _NAMED if (part := getattr(run, node))}
    found["budget"] = next(iter(run.budget))
    if run.select:
        found["select"] = "holdout"
    found |= _hosts("method", run.method)
    found |= {"size": str(run.size), "seed": str(run.seed)}
    try:
        (plain,) = plan(*spelled(found), configs=configs).runs
        for node in _VALUES:
            theirs, mine = getattr(plain, node) or {}, getattr(run, node) or {}
            found |= _apart(node, identity(mine), identity(theirs))
        same = plan(*spelled(found), configs=configs).runs == [run]
    except ConfigError as error:
        raise ConfigError(f"{run.key}, {run.title}: no words mean it here: {error}") from error
    if not same:
        raise ConfigError(
            f"{run.key}, {run.title}: words do not mean it here; were configs changed since, or "
            "does it belong to a user's own folder (--configs)?"
        )
    return found


def asked(evaluation: Evaluation, configs: Path | None = None) -> dict[str, str]:
    """The same of an evaluation: words of its run and of the suite.

    Raises:
        ConfigError: if no words of these config folders mean it.
    """
    found = words(evaluation.run, configs) | {"suite": str(evaluation.suite["name"])}
    (plain,) = plan(*spelled(found), configs=configs).evaluations
    found |= _apart("suite", evaluation.suite, plain.suite)
    if plan(*spelled(found), configs=configs).evaluations != [evaluation]:
        raise ConfigError(f"{evaluation.key}, {evaluation.title}: words do not mean it here")
    return found


def spelled(words: dict[str, str]) -> list[str]:
    """As they are typed, but for a shell's quotes."""
    return [f"{key}={value}" for key, value in words.items()]


def _hosts(key: str, node: Json) -> dict[str, str]:
    """Methods inside the method that are not what its yaml brings along."""
    host = node.get("host")
    if not isinstance(host, dict) or "_target_" not in host:
        return {}
    (plain,) = plan(f"method={node['name']}").runs if key == "method" else (None,)
    usual = plain.method["host"]["name"] if plain else None
    chosen = {} if usual == host["name"] else {f"{key}.host": str(host["name"])}
    return chosen | _hosts(f"{key}.host", host)


def _apart(key: str, mine: Any, plain: Any) -> dict[str, str]:
    """Values that the plain node does not have, by their keys."""
    if canonical(mine) == canonical(plain):
        return {}
    if isinstance(mine, dict) and isinstance(plain, dict):
        inner = [_apart(f"{key}.{name}", value, plain.get(name)) for name, value in mine.items()]
        gone = {f"{key}.{name}": "null" for name in plain if name not in mine}
        return {k: v for part in inner for k, v in part.items()} | gone
    return {key: _value(mine)}


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_value(inner)}" for name, inner in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
