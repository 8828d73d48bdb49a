"""Overrides that give a run or an evaluation, derived from its configs.

A record on disk holds its run, not the overrides that made it, and no plan is at hand when records
are judged or shown. So overrides are derived from the run's nodes, and planned to see whether they
give that run again.
"""

from pathlib import Path
from typing import Any

from peftbench.config import catalog
from peftbench.config.composer import Composer
from peftbench.config.override_parsing import override_value
from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluation
from peftbench.core.run import Json, Run, canonical, identity

#: Nodes whose option is their name; the rest of a run are the values below.
_NAMED = ("model", "method", "task", "prompt", "augmentation")

#: Of these nodes any value may differ from the option's.
CHANGED = ("method", "budget", "train", "checkpoint_selection", "prompt", "augmentation")


def run_overrides(run: Run, configs: Path | None = None) -> dict[str, str]:
    """Return the keys and values that compose to this run, its seed among them.

    Args:
        configs: a user's own folder, searched before the packaged one.

    Raises:
        ConfigError: if no overrides of these config folders give it.
    """
    try:
        found, given = closest_overrides(run, configs)
    except ConfigError as error:
        raise ConfigError(f"{run.key}, {run.title}: no overrides give it: {error}") from error
    if given != run:
        raise ConfigError(
            f"{run.key}, {run.title}: overrides do not give it; were configs changed since, or "
            "does it belong to a user's own folder (--configs)?"
        )
    return found


def closest_overrides(run: Run, configs: Path | None = None) -> tuple[dict[str, str], Run]:
    """Return overrides by the run's nodes, and the run that they give today; the hub is not asked.

    Raises:
        ConfigError: if they give none.
    """
    nodes = run.to_json()
    found = {node: str(nodes[node]["name"]) for node in _NAMED if nodes[node]}
    found["budget"] = next(iter(nodes["budget"]))
    if nodes["checkpoint_selection"]:
        found["checkpoint_selection"] = "best_on_holdout"
    found |= {"size": str(run.size), "seed": str(run.seed)}
    found |= {f"seed.{role}": str(seed) for role, seed in (run.role_seeds or {}).items()}
    found |= _base_methods(nodes["method"], Composer(catalog.folders(configs)))
    plain = _planned(found, configs).to_json()
    for node in CHANGED:
        found |= _differences(node, identity(nodes[node] or {}), identity(plain[node] or {}))
    language_model = run.model.family_config.language_model
    if language_model and "prompt.template" in found:  # as it is named when it is typed
        found[f"prompt.{language_model.kind}"] = found.pop("prompt.template")
    return found, _planned(found, configs)


def evaluation_overrides(evaluation: Evaluation, configs: Path | None = None) -> dict[str, str]:
    """Return the overrides of an evaluation's run, and those of its suite.

    Raises:
        ConfigError: if no overrides of these config folders give it.
    """
    found = run_overrides(evaluation.run, configs) | {"suite": str(evaluation.suite["name"])}
    (plain,) = plan(*as_arguments(found), configs=configs, ask_hub=False).evaluations
    found |= _differences("suite", evaluation.suite, plain.suite)
    again = plan(*as_arguments(found), configs=configs, ask_hub=False).evaluations
    if again != [evaluation]:
        raise ConfigError(f"{evaluation.key}, {evaluation.title}: overrides do not give it")
    return found


def as_arguments(overrides: dict[str, str]) -> list[str]:
    """Write overrides as they are typed, but for a shell's quotes."""
    return [f"{key}={value}" for key, value in overrides.items()]


def _planned(overrides: dict[str, str], configs: Path | None) -> Run:
    (run,) = plan(*as_arguments(overrides), configs=configs, ask_hub=False).runs
    return run


def _base_methods(method: Json, composer: Composer) -> dict[str, str]:
    """Overrides that choose the methods inside a method, where its yaml does not."""
    found: dict[str, str] = {}
    key, node = "method", method
    while isinstance(base := node.get("base_method"), dict) and "_target_" in base:
        default = _default_base({"method": method["name"], **found}, key, composer)
        key, node = f"{key}.base_method", base
        if default != base["name"]:
            found[key] = str(base["name"])
    return found


def _default_base(chosen: dict[str, str], key: str, composer: Composer) -> str | None:
    """The base method that the method at `key` has without an override; None where it needs one."""
    try:
        node: Any = composer.nodes(chosen)
    except ConfigError:  # a yaml that leaves the base method open does not compose
        return None
    for part in f"{key}.base_method".split("."):
        node = node[part]
    return str(node["name"]) if isinstance(node, dict) else None


def _differences(key: str, mine: Any, plain: Any) -> dict[str, str]:
    """Values that the plain node does not have, by their keys."""
    if canonical(mine) == canonical(plain):
        return {}
    if isinstance(mine, dict) and isinstance(plain, dict):
        inner = [
            _differences(f"{key}.{name}", value, plain.get(name)) for name, value in mine.items()
        ]
        gone = {f"{key}.{name}": "null" for name in plain if name not in mine}
        return {k: v for part in inner for k, v in part.items()} | gone
    return {key: override_value(mine)}
