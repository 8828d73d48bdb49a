"""Tasks from their nodes: a data set of the hub, a user's own file, the target of a suite."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from peftbench.config import catalog, nodes, old_names
from peftbench.core.configs import TASK_KINDS, TaskConfig
from peftbench.core.errors import ConfigError, at_least, is_whole, mapped, one_of
from peftbench.core.run import Json
from peftbench.core.text import decoded, did_you_mean, unescaped
from peftbench.data import hub_layout, loading, own_file
from peftbench.data.delimited import QUOTING
from peftbench.metrics import task_metrics, word_tokens
from peftbench.system import io, yaml_files

#: The name of the part that `task=hub task.validation_fraction` holds out, beside real splits.
HELD_OUT = "held_out"


def resolve_task(node: Json, root: str | None) -> TaskConfig:
    """The task that a node means.

    Args:
        root: the folder of its data, None for the hub.

    Raises:
        ConfigError: for what no task can be, or a file that is not there.
    """
    task = TaskConfig.from_json(task_node(nodes.whole("task", node)))
    return task if root is None or "hub" not in task.source else with_rows(task, root)


def with_rows(task: TaskConfig, root: str) -> TaskConfig:
    """The task with the hash of its rows in a folder, where they are not those of its revision."""
    found = hub_layout.rows_sha256(task, root)
    same = found in (None, task.hub_rows_sha256)
    return task if same else replace(task, rows_sha256=found)


def task_node(node: Json) -> Json:
    """A task's node with what its data say."""
    task = dict(node)
    one_of("task.kind", task["kind"], TASK_KINDS)
    columns, label = usual_columns(task["kind"])
    if task["texts"] is None:
        task["texts"] = columns
    if task["label"] is None:
        task["label"] = label
    texts = task["texts"] if isinstance(task["texts"], list) else []
    task["texts"] = texts = [str(name) if is_whole(name) else name for name in texts]
    if is_whole(task["label"]):  # a column may be called 1
        task["label"] = str(task["label"])
    if not all(isinstance(name, str) for name in texts) or len(texts) not in (1, 2):
        raise ConfigError(f"task.texts names one or two columns, got {node['texts']!r}")
    _check_keys_of_kind(task)
    for key in ("template", "stop"):
        if task.get(key) is not None:
            task[key] = unescaped(task[key])
    if task.get("stop") == "":
        raise ConfigError("task.stop is a text at which generated ones end, or null for none")
    if len({*texts, task["label"]}) <= len(texts):
        raise ConfigError(
            f"task.texts={texts} and task.label={task['label']} name a column twice; a text that "
            "is the label, or both texts of a pair, teaches nothing"
        )
    ends = task.get("range")
    if ends is not None and not (len(ends) == 2 and ends[0] < ends[1]):
        raise ConfigError(
            f"task.range is [LOWEST,HIGHEST], or null for a scale without ends, got {ends}"
        )
    if task.get("rouge_tokens") is not None:
        one_of("task.rouge_tokens", task["rouge_tokens"], (word_tokens.ASCII, word_tokens.UNICODE))
    if "path" in task or "validation_path" in task:
        task = _file(task)
    if task.get("rouge_tokens") == word_tokens.ASCII:
        task["rouge_tokens"] = None  # as it was before there was a choice, and as keys have it
    _check_splits(task)
    classes = task["classes"] if isinstance(task["classes"], int) else None
    task_metrics.check_metrics(task.get("metrics"), task["kind"], classes)
    return task


def _check_splits(task: Json) -> None:
    """Refuse a split that is trained on and reported, or reported twice."""
    read: dict[str, str] = {}
    every = {f"splits.{role}": split for role, split in (task.get("splits") or {}).items()}
    every |= {f"extra.{name}": split for name, split in (task.get("extra") or {}).items()}
    for key, split in every.items():
        if split in read:
            raise ConfigError(
                f"task.{key}={split} is task.{read[split]} already; name another split"
            )
        read[split] = key


def usual_columns(kind: str) -> tuple[list[str], str]:
    """The columns of texts and of the answer where nobody names them."""
    return (["input"], "target") if kind == "generation" else (["sentence"], "label")


#: The one kind of task that reads a key, and how many classes the others have.
_READ_BY = {
    "classes": "classification",
    "range": "regression",
    "template": "generation",
    "max_new_tokens": "generation",
    "stop": "generation",
    "rouge_tokens": "generation",
}
_CLASSES = {"regression": 1, "generation": 0}


def _check_keys_of_kind(task: Json) -> None:
    """Refuse keys that a task of this kind would ignore."""
    kind = task["kind"]
    for key, reader in _READ_BY.items():
        value = task.get(key)
        if kind == reader or value is None or (key == "classes" and value == _CLASSES.get(kind)):
            continue
        raise ConfigError(
            f"task.{key}={value} is for task.kind={reader}, and this task has task.kind={kind}, "
            f"which does not read it; leave it out, or set task.kind={reader}"
        )


def hub_node(node: Json) -> TaskConfig:
    """The task of `task=hub` as the words give it, before its repository is read."""
    name = node.get("dataset")
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise ConfigError(
            f"task=hub needs task.dataset=ORG/NAME, a data set of the hub, got {name}"
        )
    if node["kind"] == "generation":
        raise ConfigError(
            "task=hub reads classes and values; for texts download the file: task=file "
            "task.kind=generation task.path=FILE"
        )
    if node["validation"] == "train":
        raise ConfigError("task.validation=train: choose a split that no run trains on")
    if node["kind"] != "regression" and node["classes"] is not None:
        at_least("task.classes", node["classes"], 2, whole=True)
    used = ("dataset", "config", "revision", "validation")
    task = {key: value for key, value in node.items() if key not in used}
    reported, fraction = node["validation"], node["validation_fraction"]
    if fraction is not None:
        _check_fraction(fraction, "a split of its own set task.validation=SPLIT")
        if reported != "validation":
            raise ConfigError(
                f"task.validation={reported} and task.validation_fraction={fraction}: report on "
                "that split, or on a part of the training split; leave one out"
            )
        reported = HELD_OUT
    task["splits"] = task["splits"] | {"validation": reported}
    task["source"] = {"hub": name, "revision": node["revision"], "config": node["config"]}
    task["name"] = node["name"] or decoded(name.rpartition("/")[2])
    task = task_node(task)
    return TaskConfig.from_json(
        nodes.bare(task) | {"classes": task["classes"] or 0, "metrics": task["metrics"] or []}
    )


def default_metrics(names: Sequence[str] | None) -> list[str]:
    """Metrics of a task that names none, by its classes; None for values."""
    if names is None:
        return ["pearson", "spearman"]
    return ["accuracy", "f1"][: 1 + (len(names) == 2)]


#: Endings of files of spreadsheet programs.
_SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")


def _file(task: Json) -> Json:
    """A user's own file: named by its stem, known by its content."""
    if task.get("path") in (None, "???"):
        raise ConfigError("task=file needs task.path=FILE")
    if task.get("extra"):
        raise ConfigError(
            f"task.extra={task['extra']}: a file has no further splits; score another file with "
            "suite=shift 'suite.targets={NAME:{path:FILE}}'"
        )
    _check_fraction(task["validation_fraction"], "a file of its own set task.validation_path=FILE")
    if task.get("quoting") is not None:
        one_of("task.quoting", task["quoting"], QUOTING)
    _check_folds(task)
    hashes, paths = {}, {}
    for key, split in (("path", "train"), ("validation_path", "validation")):
        if task[key] is None:
            continue
        path = Path(task[key]).expanduser().resolve()
        if not path.is_file():
            what = "is a folder; give a file in it" if path.is_dir() else "no such file"
            raise ConfigError(f"task.{key}={task[key]}: {what}")
        if path.suffix.lower() not in own_file.FORMATS:
            table = path.suffix.lower() in _SPREADSHEETS
            raise ConfigError(
                f"task.{key}={task[key]}: a data file ends in {', '.join(own_file.FORMATS)}"
                + ("; save the spreadsheet as .csv" if table else "")
            )
        hashes[split], paths[key] = io.hash_file(path), str(path)
    name = task["name"] or decoded(Path(task["path"]).stem)
    task |= paths | {"name": name, "source": {"file": hashes}}
    regression, generation = (task["kind"] == kind for kind in ("regression", "generation"))
    classes = None if regression or generation else task["classes"]
    if classes is not None:
        at_least("task.classes", classes, 2, whole=True)
    task["classes"] = 1 if regression else classes or 0
    bare = TaskConfig.from_json(nodes.bare(task) | {"metrics": task["metrics"] or []})
    names = loading.file_facts(bare, classes).class_names
    if names is not None:
        task |= {"class_names": list(names), "classes": len(names)}
    if generation and task.get("rouge_tokens") is None and _has_other_letters(bare):
        task["rouge_tokens"] = word_tokens.UNICODE
    if generation and not task["metrics"]:
        task["metrics"] = ["rouge_l", "rouge1", "rouge2", "exact_match", "token_f1"]
    return task | {"metrics": task["metrics"] or default_metrics(names)}


def _has_other_letters(task: TaskConfig) -> bool:
    """Whether texts that are wanted have letters beside a to z."""
    splits = [loading.load_split(task, task.splits[p], None) for p in ("train", "validation")]
    return any(word_tokens.has_other_letters(text) for one in splits for text in one.targets or ())


def _check_fraction(given: Any, otherwise: str) -> None:
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < 1:
        raise ConfigError(
            "task.validation_fraction must be greater than 0 and less than 1, a part of the rows, "
            f"got {given!r}; for {otherwise}"
        )


def _check_folds(task: Json) -> None:
    """Refuse a fold that cannot be; with folds no fraction is held out."""
    folds = task.get("folds")
    given = [f"task.{key}" for key in ("fold", "fold_seed", "group") if task.get(key) is not None]
    if folds is None:
        if given:
            raise ConfigError(
                f"{', '.join(given)} without task.folds; add task.folds=5, the number of folds"
            )
        return
    at_least("task.folds", folds, 2, whole=True)
    if task.get("fold") not in range(folds):
        raise ConfigError(
            f"task.folds={folds} needs task.fold, the fold that is held out, from 0 to "
            f"{folds - 1}, got {task.get('fold')}"
        )
    if task.get("fold_seed") is not None:
        at_least("task.fold_seed", task["fold_seed"], 0, whole=True)
    if task["validation_path"] is not None:
        raise ConfigError("task.folds holds out folds of task.path; leave task.validation_path out")
    task["validation_fraction"] = None


def target_node(name: str, given: Any, searched: list[Path]) -> tuple[Json, Json]:
    """The node of a task to be evaluated on, and how much of it is used.

    It is one of configs/task or configs/shift_dataset, by its name or by `task`, a user's file, or
    a data set of the hub.
    """
    where = f"suite.targets.{name}"
    if given is not None:
        mapped(where, given)
    given = dict(given or {})
    own = {key: given.pop(key, None) for key in ("above", "examples")}
    demonstrations = given.pop("demonstrations", 0)
    at_least(f"{where}.demonstrations", demonstrations, 0, whole=True)
    if demonstrations:
        own["demonstrations"] = demonstrations
        if own["examples"] is None:
            raise ConfigError(
                f"{where}.demonstrations={demonstrations} are examples that are not scored; set "
                f"how many are: {where}.examples=250"
            )
    offered: dict[str, Path] = {}
    for group in ("task", "shift_dataset"):
        offered |= catalog.options(group, tuple(searched))
    name = str(given.pop("task", name))
    name = name if name in offered else old_names.current_option("task", name)
    if "path" in given:
        node = yaml_files.read_mapping(offered["file"]) | {
            "name": name,
            "validation_path": given["path"],
        }
    elif "dataset" in given:
        node = yaml_files.read_mapping(offered["hub"]) | {"name": name}
    elif name in offered and name not in ("file", "hub"):
        node = yaml_files.read_mapping(offered[name])
    else:
        raise ConfigError(
            f"suite: {name} is no task and no target; {did_you_mean(name, offered)}, or "
            f"give a file, {{{name}:{{path:FILE}}}}, or a data set of the hub, "
            f"{{{name}:{{dataset:ORG/NAME}}}}"
        )
    for key in given:
        if key not in node:
            near = did_you_mean(key, [*own, "demonstrations", "task", *node])
            raise ConfigError(f"unknown key {where}.{key}; {near}")
    if own["above"] is not None:
        at_least(f"{where}.above", own["above"], float("-inf"))
    if own["examples"] is not None:
        at_least(f"{where}.examples", own["examples"], 2, whole=True)
    return node | given, own
