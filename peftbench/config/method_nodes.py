"""Methods from their nodes: what they name of a family and of earlier runs, and their rates."""

from pathlib import Path
from typing import Any

from peftbench.config import catalog, nodes
from peftbench.core import revisions
from peftbench.core.configs import FamilyConfig, ModelConfig, class_name
from peftbench.core.errors import ConfigError
from peftbench.core.run import Json, refuse_aside
from peftbench.core.tuning import SearchSpace
from peftbench.methods import settings
from peftbench.results.store import ResultsFolder
from peftbench.system import io

#: What a method's file says of its training, beside its settings.
_OF_TRAINING = ("recipe", "search")


def resolve_method(node: Any, model: ModelConfig, results: ResultsFolder, at: str) -> Any:
    """A method's node, and those of the methods inside it, without prose, recipes and ranges.

    `at` is what stands before its settings, for messages.
    """
    if not isinstance(node, dict):
        return node
    family = model.family_config
    inner = {
        key: resolve_method(value, model, results, f"{at}{key}.") for key, value in node.items()
    }
    if node.get("from") is not None:
        inner["from"] = _earlier(node["from"], results)
    if isinstance(node.get("target_modules"), list):
        inner["target_modules"] = _roles(node["target_modules"], family)
    if "_target_" in node:
        settings.check_values(str(node["_target_"]), inner, at)
        settings.check_family(str(node["_target_"]), inner, at, model.family, family)
        kind = class_name(str(node["_target_"]))
        added = revisions.ADDED.get(kind, frozenset())
        told = {
            name: value
            for name, value in inner.items()
            if name not in (*catalog.PROSE, *_OF_TRAINING) and not (value is None and name in added)
        }
        # weights that are named by `from` count by their hash
        refuse_aside(str(node["_target_"]), at, told, counted=("from",))
        told |= nodes.identity("method", node)
        revision = revisions.method_revision(kind, told)
        return told if revision == 1 else told | {"revision": revision}
    return inner


def search_space(config: Json) -> SearchSpace | None:
    """The rates among which `peftbench tune` chooses, where the method's file says so.

    A wrapper has its base method's recipe, and may say `search` for itself beside it: a range for
    all base methods, or one for each by its name; of others the recipe's counts. Like the recipe's
    rate they are of base-size models; a model's file says how its own differ.

    Raises:
        ConfigError: if they are no range with a source.
    """
    method = config["method"]
    recipe = (method.get("recipe") if isinstance(method, dict) else None) or {}
    given = recipe.get("search") if isinstance(recipe, dict) else None
    if isinstance(method, dict) and "search" in method:
        own = method["search"]
        by_base = isinstance(own, dict) and all(isinstance(one, dict) for one in own.values())
        given = own.get(method["base_method"]["name"], given) if by_base else own
    if given is None:
        return None
    named = isinstance(given, dict) and isinstance(given.get("source"), str)
    ends: Any = given.get("lr") if named else None
    numbers = isinstance(ends, list) and all(isinstance(end, int | float) for end in ends)
    if not (numbers and len(ends) == 2):
        raise ConfigError(
            f"method={method.get('name')}: recipe.search is {given}; write it as search: "
            "{lr: [1e-4, 1e-3], source: where the range is from}"
        )
    low, high = (float(f"{end * config['model']['lr_scale']:g}") for end in ends)
    return SearchSpace(low, high, given["source"])


def _roles(names: list[Any], family: FamilyConfig) -> list[Any]:
    """Roles of the modules that are named, by role or as peft does: by the end of their path.

    What names no module of the family is left for the method to refuse.
    """
    found: list[Any] = []
    for name in names:
        ends = [role for role, path in family.roles.items() if f".{path}".endswith(f".{name}")]
        for path, roles in family.split.items():
            ends += roles if f".{path}".endswith(f".{name}") else []
        found += [name] if name in family.roles or not ends else ends
    return list(dict.fromkeys(found))


def _earlier(given: Any, results: ResultsFolder) -> Json:
    """Trained weights by file or by the key of their run: known by content, not by place."""
    if not isinstance(given, str):  # a key may look like a number
        raise ConfigError(
            f"method.prior.from={given} is no word; quote it: method.prior.from='KEY'"
        )
    path = Path(given).expanduser()
    found = [path] if path.is_file() else results.kept(given)
    if len(found) != 1:
        raise ConfigError(
            f"method.prior.from={given} names {'several' if found else 'no'} kept weights in "
            f"{results.folder}; give a file, or the key of a run made with --save-weights"
        )
    return {"path": str(found[0].resolve()), "sha256": io.hash_files((found[0].resolve(),))}
