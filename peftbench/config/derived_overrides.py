"""Overrides that give a run or an evaluation, derived from its configs.

A record on disk holds its run, not the overrides that made it, and no plan is at hand when records
are judged or shown. So overrides are derived from the run's nodes, and planned to see whether they
give that run again.
"""

import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from peftbench.config import catalog
from peftbench.config.composer import Composer
from peftbench.config.override_parsing import override_value
from peftbench.config.sweep import plan
from peftbench.config.task_nodes import usual_columns
from peftbench.core.configs import ModelConfig, TaskConfig
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluation
from peftbench.core.run import Json, Run, canonical, identity
from peftbench.core.text import decoded
from peftbench.metrics.word_tokens import ASCII
from peftbench.system import io, yaml_files

#: Nodes whose option is their name; the rest of a run are the values below.
_NAMED = ("model", "method", "task", "prompt", "augmentation")

#: What stands for the path of a user's own file that is not where it was.
FILE = "FILE"

#: Of a task of a user's own file what may differ from the option's, once it can be read.
_OF_FILE = (
    *("folds", "fold", "fold_seed", "group"),
    *("range", "template", "max_new_tokens", "stop", "rouge_tokens", "metrics", "extra"),
)

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
    found = _closest(run, configs, _file_words(run.task, run.task.path) if _own(run) else {})
    return found, _planned(found, configs)


def overrides_with_file(run: Run, configs: Path | None = None) -> dict[str, str]:
    """Return overrides of a run of a user's own file that is gone, with `FILE` for its path.

    What differs from defaults is found with made-up rows of the same labels.

    Raises:
        ConfigError: if none give it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.jsonl")
        _write_rows(run.task, path)
        alike = _file_words(run.task, str(path))
        alike.pop("task.validation_path", None)
        found = _closest(replace(run, size="full"), configs, alike)
    if all(re.match(r"[-+.]?\d", name) for name in run.task.class_names or [""]):
        found["task.classes"] = str(run.task.classes)  # numbers may look like values
    return {**found, **_file_words(run.task, FILE), "size": str(run.size)}


def file_at_hand(run: Run) -> bool:
    """Whether the user's own files of a run are where they were, with the same content."""
    paths = {"train": run.task.path, "validation": run.task.validation_path}
    return all(
        (path := paths[part]) is not None
        and Path(path).is_file()
        and io.hash_file(Path(path)) == content
        for part, content in run.task.source["file"].items()
    )


def _own(run: Run) -> bool:
    return "file" in run.task.source


def _closest(run: Run, configs: Path | None, file: dict[str, str]) -> dict[str, str]:
    """Overrides by the run's nodes.

    Args:
        run: to be given again.
        configs: a user's own folder.
        file: overrides of a task of a user's own file, in place of its name.
    """
    nodes = run.to_json()
    searched = catalog.folders(configs)
    found = {node: str(nodes[node]["name"]) for node in _NAMED if nodes[node]} | file
    found |= _model_words(run.model, searched)
    found["budget"] = next(iter(nodes["budget"]))
    if nodes["checkpoint_selection"]:
        found["checkpoint_selection"] = "best_on_holdout"
    found |= {"size": str(run.size), "seed": str(run.seed)}
    found |= {f"seed.{role}": str(seed) for role, seed in (run.role_seeds or {}).items()}
    found |= _base_methods(nodes["method"], Composer(searched))
    if (hub := run.task.source.get("hub")) and not _is_option(run.task, searched):
        raise ConfigError(f"its data set {hub} was given by task=hub, which is not repeated")
    try:
        plain = _planned(found, configs).to_json()
    except ConfigError:
        if not file or run.task.kind != "classification":
            raise
        found["task.classes"] = str(run.task.classes)  # labels that look like a mistake
        plain = _planned(found, configs).to_json()
    for node in CHANGED:
        found |= _differences(node, identity(nodes[node] or {}), identity(plain[node] or {}))
    if file:
        mine, other = ({k: n["task"].get(k) for k in _OF_FILE} for n in (nodes, plain))
        for told in (mine, other):
            told["rouge_tokens"] = told["rouge_tokens"] or ASCII  # null asks the file
        found |= _differences("task", mine, other)
    language_model = run.model.family_config.language_model
    if language_model and "prompt.template" in found:  # as it is named when it is typed
        found[f"prompt.{language_model.kind}"] = found.pop("prompt.template")
    return found


def _model_words(model: ModelConfig, searched: list[Path]) -> dict[str, str]:
    """The option of a model, or the checkpoint that was given by hand, which gives it its name."""
    by_hand = model.checkpoint is not None and model.name == decoded(Path(model.checkpoint).name)
    file = catalog.options("model", tuple(searched)).get(model.name)
    if not by_hand or (file and _names_checkpoint(file, model)):
        return {"model": model.name}
    words = {
        "model": "auto",
        "model.checkpoint": override_value(model.path or model.checkpoint),
        "model.family": model.family,  # so that nobody is asked
    }
    if model.path is None and model.revision is not None:
        words["model.revision"] = override_value(model.revision)
    if model.dtype is not None:
        words["model.dtype"] = model.dtype
    return words


def _names_checkpoint(file: Path, model: ModelConfig) -> bool:
    said = catalog.said(file, "checkpoint")
    if said is None or model.path is None:
        return said in (None, model.checkpoint)
    return str(Path(said).expanduser().resolve()) == model.path


def _is_option(task: TaskConfig, searched: list[Path]) -> bool:
    """Whether the option of a task's name is of its data set; one that builds on another may be."""
    file = catalog.options("task", tuple(searched)).get(task.name)
    if file is None:
        return False
    source = yaml_files.read_mapping(file).get("source") or {}
    return source.get("hub", task.source["hub"]) in (None, task.source["hub"])


def _file_words(task: TaskConfig, path: str | None) -> dict[str, str]:
    """Overrides without which a user's own file cannot be read as the task reads it."""
    words = {"task": "file", "task.path": path or FILE}
    if "validation" in task.source["file"]:
        words["task.validation_path"] = task.validation_path or FILE
    if task.name != decoded(Path(words["task.path"]).stem):
        words["task.name"] = task.name
    plain = yaml_files.read_mapping(catalog.find("task", "file", catalog.folders()))
    keys = ["kind", "quoting"]
    if task.folds is None and "validation" not in task.source["file"]:
        keys.append("validation_fraction")
    usual = dict(zip(("texts", "label"), usual_columns(task.kind), strict=True))
    usual |= {key: plain[key] for key in keys}
    node = task.to_json()
    words = {key: override_value(value) for key, value in words.items()}
    return words | {
        f"task.{key}": override_value(node[key])
        for key, value in usual.items()
        if node.get(key) != value
    }


def _write_rows(task: TaskConfig, path: Path) -> None:
    """Write made-up rows of the labels and the columns of a task, as many as any run wants."""
    low, high = task.range or (0.0, 1.0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(max(2000, 20 * task.classes)):
            label: Any = f"text {number}"
            if task.regression:
                label = low + (high - low) * (number % 100) / 99
            elif task.class_names:
                label = task.class_names[number % task.classes]
            row = {name: f"row {number}" for name in (*task.texts, task.group) if name}
            file.write(json.dumps(row | {task.label: label}) + "\n")


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
