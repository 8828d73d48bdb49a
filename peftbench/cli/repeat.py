"""The command that repeats a run."""

from collections.abc import Iterator
from typing import Any

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.core.run import Json, Run
from peftbench.core.text import command

#: Parts of a run that overrides change key by key.
NODES = ("method", "budget", "train", "checkpoint_selection", "prompt", "augmentation")


def repeat_line(run: Run) -> str:
    """Return the command that trains a run again, or why none can be given."""
    words = _options(run)
    try:
        words += _differences(plan(*words, ask_hub=False).runs[0].to_json(), run.to_json())
        again = plan(*words, ask_hub=False).runs[0]
    except ConfigError as error:
        return f"none: {error}"
    same = command("run", *words)
    return same if again.key == run.key else f"{same}  (is run {again.key} by today's code)"


def _options(run: Run) -> list[str]:
    data = run.to_json()
    words = [f"{group}={data[group]['name']}" for group in ("model", "method", "task")]
    words += _base_methods("method", data["method"])
    for group in ("prompt", "augmentation"):
        words += [f"{group}={data[group]['name']}"] if data[group] else []
    words += [
        f"budget={kind}" for kind in ("epochs", "steps", "seconds") if data["budget"].get(kind)
    ]
    words += ["checkpoint_selection=best_on_holdout"] if data["checkpoint_selection"] else []
    seeds = run.role_seeds or {}
    return [
        *words,
        f"size={run.size}",
        f"seed={run.seed}",
        *(f"seed.{role}={seed}" for role, seed in seeds.items()),
    ]


def _base_methods(key: str, node: Json) -> list[str]:
    inner = node.get("base_method")
    if not isinstance(inner, dict):
        return []
    key = f"{key}.base_method"
    return [f"{key}={inner['name']}", *_base_methods(key, inner)]


def _differences(default: Json, wanted: Json) -> list[str]:
    """Overrides that turn one run into the other."""
    before = {key: value for node in NODES for key, value in _leaves(node, default[node])}
    after = {key: value for node in NODES for key, value in _leaves(node, wanted[node])}
    return [f"{key}={spelled(value)}" for key, value in after.items() if before.get(key) != value]


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    else:
        yield key, value


def spelled(value: Any) -> str:
    """A value in the grammar of overrides."""
    if isinstance(value, list):
        return f"[{','.join(map(spelled, value))}]"
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    return str(value)
