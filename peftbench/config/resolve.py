"""From composed nodes to a run: completes what a node leaves open and checks what it says.

No torch, no weights, no data: what can be refused here is refused before anything starts.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from peftbench.config import catalog, model_families, old_names, yaml_files
from peftbench.core import revisions
from peftbench.core.configs import (
    TASK_KINDS,
    WORDS,
    AugmentationConfig,
    Budget,
    CheckpointSelection,
    Config,
    FamilyConfig,
    MethodConfig,
    ModelConfig,
    PromptConfig,
    TaskConfig,
    TrainingConfig,
    class_name,
)
from peftbench.core.errors import ConfigError, at_least, one_of
from peftbench.core.run import Json, Run, role_seeds
from peftbench.core.text import decoded, did_you_mean
from peftbench.core.tuning import SearchSpace
from peftbench.data import hub_dataset, hub_layout, loading, own_file, prompt_template
from peftbench.data.delimited import QUOTING
from peftbench.data.text_noise import EDITS
from peftbench.methods import settings
from peftbench.metrics import task_metrics
from peftbench.results.store import Results
from peftbench.suites import base as suites
from peftbench.system import hub, io, offline_folder

T = TypeVar("T")
C = TypeVar("C", bound=Config)

#: What the file of an option must say, where not all of its schema.
NEEDED = {
    "model": ("name", "family", "checkpoint", "revision", "package", "sha256", "shape"),
    "method": ("name", "_target_"),
    "task": ("name", "kind", "classes", "texts", "label", "splits", "extra", "metrics"),
    "augmentation": ("name", "kinds", "probability", "versions"),
    "suite": ("name", "_target_"),
}


class Resolver:
    """Nodes to runs; a part is made once for all runs whose nodes agree, and shared.

    Args:
        searched: the configuration folders.
        results: where a key names the weights of an earlier run.
        ask_hub: whether the hub may be asked about data sets.
    """

    def __init__(self, searched: list[Path], results: Results, ask_hub: bool = True):
        self.searched = searched
        self.results = results
        self.ask_hub = ask_hub
        self._made: dict[str, Any] = {}
        self._root: str | None = None  # one for all runs of a plan
        #: Commits of repositories that are named without one, see `core.plan.Plan`.
        self.revisions: dict[str, str] = {}
        self.renewed: set[str] = set()
        self.datasets: Json = {}

    def run(self, config: Json) -> Run:
        """Make the run that a composed configuration means.

        Args:
            config: from `composer.Composer`.

        Raises:
            ConfigError: for a value that no run can have.
        """
        at_least("seed", config["seed"], 0, whole=True)
        for role, seed in config["role_seeds"].items():
            at_least(f"seed.{role}", seed, 0, whole=True)
        model = self._once(self._model, config["model"])
        self._root = config["data"]["root"]
        task = self._once(self._task, config["task"], self._root)
        run = Run(
            model=model,
            method=self._once(self._method, config["method"], model),
            task=task,
            budget=self._once(_build, "budget", Budget, config["budget"]),
            train=self._once(_build, "train", TrainingConfig, config["train"]),
            checkpoint_selection=self._once(
                _build, "checkpoint_selection", CheckpointSelection, config["checkpoint_selection"]
            ),
            size=_size(config["size"]),
            seed=config["seed"],
            role_seeds=role_seeds(config["seed"], config["role_seeds"]),
            prompt=self._once(_prompt, _unless_default("prompt", config), model, task),
            augmentation=self._once(
                _augmentation, _unless_default("augmentation", config), task.name
            ),
            loss_revision=revisions.loss_revision(task.kind),
        )
        _check_size(run)
        _check_warmup(run)
        settings.check_run(run)
        if run.train.class_weights is not None and run.task.kind != "classification":
            what = "texts" if run.task.generation else "values"
            raise ConfigError(
                f"train.class_weights={run.train.class_weights}: {run.task.name} asks for {what}, "
                "which are no classes; leave it null"
            )
        if run.task.generation and run.augmentation is not None:
            raise ConfigError(
                f"augmentation={run.augmentation.name}: noise would change what {run.task.name} is "
                "to write about; leave it out"
            )
        return run

    def suite(self, node: Json, run: Run) -> Json:
        """A suite's node for a run, its targets looked up.

        Raises:
            ConfigError: for a value that it cannot have, or a run of which it makes no sense.
        """
        node = self._once(self._suite, node)
        if node.get("own_words"):
            node = node | {
                "targets": {
                    name: target | {"prompt": self._once(self._own_words, name, target, run.model)}
                    for name, target in node["targets"].items()
                }
            }
        revision = revisions.suite_revision(class_name(str(node["_target_"])), node, run)
        if revision != 1:
            node = node | {"revision": revision}
        suites.build_suite(node).check(run)
        return node

    def _once(self, make: Callable[..., T], *given: Any) -> T:
        """What a function makes of its arguments, which are plain data or made here before."""
        name = json.dumps([make.__name__, *given], default=id)
        if name not in self._made:
            self._made[name] = make(*given)
        made: T = self._made[name]
        return made

    def _model(self, node: Json) -> ModelConfig:
        commit = partial(self._commit, "model")
        return model_families.resolve_model(_whole("model", node), self.searched, commit)

    def _task(self, node: Json, root: str | None) -> TaskConfig:
        if "validation" in node:  # `task=hub`; a dataset that is not given is not there
            return self._dataset(_whole("task", node))
        return self._at_commit(_task(node, root), root)

    def _dataset(self, node: Json) -> TaskConfig:
        """`task=hub`: a data set at a commit, with what its repository says of it."""
        task = _hub_node(node)
        given, label = task.source["revision"], f"datasets/{task.source['hub']}"
        if given == "main":
            self.renewed.add(label)
        elif given is not None and not re.fullmatch("[0-9a-f]{40}", given):
            raise ConfigError(
                f"task.revision={given}: name a commit by its 40 hexadecimal digits, or main, "
                "which looks for the newest one"
            )
        if given in (None, "main"):
            given = self._commit("dataset", task.source["hub"])
        task = replace(task, source=task.source | {"revision": given})
        classes = node["classes"] if task.kind != "regression" else None
        found = self._described(task, classes)
        names = found["class_names"]
        parts = ("train", "validation")
        return replace(
            task,
            source=found["source"],
            class_names=names,
            classes=1 if names is None else len(names),
            examples={part: found["examples"][task.splits[part]] for part in parts},
            metrics=task.metrics or _default_metrics(names),
        )

    def _described(self, task: TaskConfig, classes: int | None) -> Json:
        label = json.dumps(hub_dataset.inputs(task, classes))
        here = offline_folder.folder()
        if here is not None:
            found = offline_folder.datasets(here).get(label)
            if found is None:
                raise ConfigError(
                    f"{task.source['hub']} is not in {here} with these overrides: run `peftbench "
                    "prefetch` again with them"
                )
        else:
            found = hub_dataset.known(task, classes)
            if found is None and not self.ask_hub:
                raise ConfigError(_not_asked(task.source["hub"], task.source["revision"]))
            found = found or hub_dataset.describe(task, classes)
        self.datasets[label] = found
        return dict(found)

    def _at_commit(self, task: TaskConfig, root: str | None) -> TaskConfig:
        """The task with the commit of its data set, where it comes from the hub and names none."""
        name = task.source.get("hub")
        if root is not None or not name or task.source.get("revision") is not None:
            return task
        commit = self._commit("dataset", str(name))
        return replace(task, source=task.source | {"revision": commit})

    def _commit(self, kind: str, name: str) -> str | None:
        """The commit of a repository: the results folder's, else the machine's or the hub's."""
        label = f"{kind}s/{name}"
        if label not in self.revisions:
            new = label in self.renewed
            commit = None if new else self.results.revisions().get(label)
            if commit is None and kind == "dataset" and not self.ask_hub:
                commit = None if new else hub.resolved_before(name, kind)
                if commit is None:
                    raise ConfigError(_not_asked(name, None))
            if new:
                hub.forget(name, kind)
            commit = commit or hub.resolved(name, kind)
            if commit is None:
                return None
            self.revisions[label] = commit
        return self.revisions[label]

    def _method(self, node: Json, model: ModelConfig) -> MethodConfig:
        whole = _whole("method", node)
        return MethodConfig.from_json(_method(whole, model, self.results, "method."))

    def _suite(self, node: Json) -> Json:
        node = _bare(_whole("suite", node))
        node |= _identity("suite", node)
        if isinstance(node.get("targets"), dict):
            node["targets"] = {
                n: self._once(self._target, n, t) for n, t in node["targets"].items()
            }
        if isinstance(node.get("sequence"), list):
            node["sequence"] = [
                self._once(self._target, str(name), None) for name in node["sequence"]
            ]
        return node

    def _own_words(self, name: str, target: Json, model: ModelConfig) -> Json:
        """The prompt in which a target is asked, as its own runs would have it."""
        task = TaskConfig.from_json(target["task"])
        if task.generation:
            return prompt_template.generation_prompt(None, model, task).to_json()
        path = catalog.find("prompt", WORDS, self.searched)
        node = yaml_files.read_mapping(path)
        words = node | (node["tasks"].get(name) or {})
        return prompt_template.resolve_prompt(words, model, task).to_json()

    def _target(self, name: str, given: Any) -> Json:
        node, own = _target(name, given, self.searched)
        if "dataset" in node:
            return {"task": self._dataset(node).to_json(), **own}
        target = {"task": _bare(_task_node(node)), **own}
        task = TaskConfig.from_json(target["task"])
        if self._root is not None and task.hub_rows_sha256 is not None:
            target["task"] = _with_rows(task, self._root).to_json()
        if (resolved := self._at_commit(task, self._root)) is not task:
            target["task"] = resolved.to_json()
        return target


def _not_asked(name: str, commit: str | None) -> str:
    what = "revision not resolved" if commit is None else f"nothing is known of {commit[:12]}"
    return (
        f"{name}: {what}, and planning does not ask the hub; `peftbench run` or `peftbench "
        "prefetch` with the same overrides does, and keeps what it finds"
    )


def _hub_node(node: Json) -> TaskConfig:
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
    task["splits"] = task["splits"] | {"validation": node["validation"]}
    task["source"] = {"hub": name, "revision": node["revision"], "config": node["config"]}
    task["name"] = node["name"] or decoded(name.rpartition("/")[2])
    task = _task_node(task)
    return TaskConfig.from_json(
        _bare(task) | {"classes": task["classes"] or 0, "metrics": task["metrics"] or []}
    )


def _default_metrics(names: Sequence[str] | None) -> list[str]:
    if names is None:
        return ["pearson", "spearman"]
    return ["accuracy", "f1"][: 1 + (len(names) == 2)]


def _build(group: str, kind: type[C], node: Json) -> C:
    """A config from a node of its schema; values that its option has not are the defaults.

    Raises:
        ConfigError: if one without a default is missing, or a value is out of range.
    """
    given = _bare(node)
    required = [one.name for one in fields(kind) if one.default is MISSING]  # type: ignore[arg-type]
    if missing := [f"{group}.{name}" for name in required if name not in given]:
        raise ConfigError(
            f"missing {', '.join(missing)}; give {missing[0]}=VALUE, or write it into the file of "
            f"its option (see configs/{group})"
        )
    return kind(**given)


def _whole(group: str, node: Any) -> Json:
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
    return dict(node)


def _bare(node: Json) -> Json:
    return {key: value for key, value in node.items() if key != "about"}


def _unless_default(group: str, config: Json) -> Json | None:
    """The node of a group that a run may do without, None where it does."""
    node = {key: value for key, value in _bare(config[group]).items() if key != "tasks"}
    return None if node.get("name") == catalog.LATER[group] else node


def _prompt(node: Json | None, model: ModelConfig, task: TaskConfig) -> PromptConfig | None:
    if task.generation and node is None:
        return prompt_template.generation_prompt(None, model, task)
    return None if node is None else prompt_template.resolve_prompt(node, model, task)


def _augmentation(node: Json | None, task: str) -> AugmentationConfig | None:
    """How training texts are varied, without the kinds that are null."""
    if node is None:
        return None
    node = _whole("augmentation", node)
    kinds = {kind: rate for kind, rate in node["kinds"].items() if rate is not None}
    for kind in kinds:
        if kind not in EDITS:
            raise ConfigError(f"augmentation.kinds: no noise {kind}; {did_you_mean(kind, EDITS)}")
    if not kinds:
        raise ConfigError(
            f"augmentation={node['name']} on {task}: its texts are left as they are, for noise may "
            f"change their labels; if it is meant, say which: augmentation.kinds.KIND=RATE, KIND "
            f"of {', '.join(node['kinds'])}"
        )
    return AugmentationConfig(**node | {"kinds": kinds})


def _method(node: Any, model: ModelConfig, results: Results, at: str) -> Any:
    """A method's node, and those of the methods inside it, without prose and recipes.

    `at` is what stands before its settings, for messages.
    """
    if not isinstance(node, dict):
        return node
    family = model.family_config
    inner = {key: _method(value, model, results, f"{at}{key}.") for key, value in node.items()}
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
            if name not in ("about", "recipe") and not (value is None and name in added)
        }
        told |= _identity("method", node)
        revision = revisions.method_revision(kind, told)
        return told if revision == 1 else told | {"revision": revision}
    return inner


def search_space(config: Json) -> SearchSpace | None:
    """The rates among which `peftbench tune` chooses, where the method's file says so.

    Like the recipe's rate they are of base-size models; a model's file says how its own differ.

    Raises:
        ConfigError: if they are no range with a source.
    """
    method = config["method"]
    recipe = (method.get("recipe") if isinstance(method, dict) else None) or {}
    given = recipe.get("search") if isinstance(recipe, dict) else None
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


def _identity(group: str, node: Json) -> Json:
    """What a key holds of a class beside the name of its option."""
    target = str(node["_target_"])
    found: Json = {}
    if catalog.packaged_targets(group).get(str(node["name"])) != target:
        found["implementation"] = class_name(target)
    return found


def _earlier(given: Any, results: Results) -> Json:
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
    return {"path": str(found[0].resolve()), "sha256": io.hashed((found[0].resolve(),))}


def _check_size(run: Run) -> None:
    """Refuse more examples than there are, fewer than classes, and a selection that gets none.

    Raises:
        ConfigError: saying how many there are.
    """
    total = run.task.examples.get("train")
    if total is None and "file" in run.task.source:
        total = loading.file_facts(run.task, run.task.classes).train
    if total is None:
        return
    size = run.train_size(total)
    if run.size != "full" and size < run.task.classes:
        raise ConfigError(
            f"size={run.size}: {size} of {total} examples cannot hold all {run.task.classes} "
            f"classes of {run.task.name}; ask for more"
        )
    if run.prompt is not None:
        size = min(size, total - run.prompt.reserved)
    run.checkpoint_selection.held_of(size)


def _check_warmup(run: Run) -> None:
    """Refuse a warm-up that a budget of steps does not outlast: its rate would never be reached.

    Raises:
        ConfigError: saying how long both are.
    """
    warmup, steps = run.train.warmup_steps, run.budget.steps
    if steps is not None and warmup > 1 and warmup >= steps:
        raise ConfigError(
            f"train.warmup_steps={warmup:g}: a budget of {steps} steps ends before train.lr is "
            "reached; choose fewer, or below 1 a share of the budget"
        )


def _size(size: Any) -> int | float | str:
    if size == "full" or (isinstance(size, float) and size == 1.0):
        return "full"
    if isinstance(size, bool) or not isinstance(size, int | float):
        ok = False
    else:
        ok = size >= 1 if isinstance(size, int) else 0 < size < 1
    if not ok:
        raise ConfigError(
            f"size must be a count of examples, a fraction between 0 and 1, or full, got {size!r}"
        )
    return size


def _task(node: Json, root: str | None) -> TaskConfig:
    task = TaskConfig.from_json(_task_node(_whole("task", node)))
    return task if root is None or "hub" not in task.source else _with_rows(task, root)


def _with_rows(task: TaskConfig, root: str) -> TaskConfig:
    """The task with the hash of its rows in a folder, where they are not those of its revision."""
    found = hub_layout.rows_sha256(task, root)
    same = found in (None, task.hub_rows_sha256)
    return task if same else replace(task, rows_sha256=found)


def _task_node(node: Json) -> Json:
    """A task's node with what its data say."""
    task = dict(node)
    one_of("task.kind", task["kind"], TASK_KINDS)
    generation = task["kind"] == "generation"
    if task["texts"] is None:
        task["texts"] = ["input"] if generation else ["sentence"]
    if task["label"] is None:
        task["label"] = "target" if generation else "label"
    texts = task["texts"] if isinstance(task["texts"], list) else []
    task["texts"] = texts = [str(name) if _whole_number(name) else name for name in texts]
    if _whole_number(task["label"]):  # a column may be called 1
        task["label"] = str(task["label"])
    if not all(isinstance(name, str) for name in texts) or len(texts) not in (1, 2):
        raise ConfigError(f"task.texts names one or two columns, got {node['texts']!r}")
    if not generation and (task.get("template") or task.get("max_new_tokens")):
        raise ConfigError(
            "task.template and task.max_new_tokens are of tasks that want texts; leave them null, "
            "or say task.kind=generation"
        )
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
    if "path" in task or "validation_fraction" in task:
        task = _file(task)
    classes = task["classes"] if isinstance(task["classes"], int) else None
    task_metrics.check_metrics(task.get("metrics") or (), task["kind"], classes)
    return task


def _whole_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _target(name: str, given: Any, searched: list[Path]) -> tuple[Json, Json]:
    """The node of a task to be evaluated on, and how much of it is used.

    It is one of configs/task or configs/shift_dataset, a user's file, or a data set of the hub.
    """
    given = dict(given or {})
    own = {key: given.pop(key, None) for key in ("above", "examples")}
    offered: dict[str, Path] = {}
    for group in ("task", "shift_dataset"):
        offered |= catalog.options(group, tuple(searched))
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
            near = did_you_mean(key, [*own, *node])
            raise ConfigError(f"there is no suite.targets.{name}.{key}; {near}")
    if own["above"] is not None:
        at_least(f"suite.targets.{name}.above", own["above"], float("-inf"))
    if own["examples"] is not None:
        at_least(f"suite.targets.{name}.examples", own["examples"], 2, whole=True)
    return node | given, own


def _file(task: Json) -> Json:
    """A user's own file: named by its stem, known by its content."""
    if task.get("path") in (None, "???"):
        raise ConfigError("task=file needs task.path=FILE")
    given = task["validation_fraction"]
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < 1:
        raise ConfigError(
            "task.validation_fraction must be greater than 0 and less than 1, a part of the rows, "
            f"got {given!r}; for a file of its own say task.validation_path=FILE"
        )
    if task.get("quoting") is not None:
        one_of("task.quoting", task["quoting"], QUOTING)
    _check_folds(task)
    hashes, paths = {}, {}
    for key, split in (("path", "train"), ("validation_path", "validation")):
        if task[key] is None:
            continue
        path = Path(task[key]).expanduser().resolve()
        if not path.is_file():
            raise ConfigError(f"task.{key}={task[key]}: there is no such file")
        if path.suffix.lower() not in own_file.FORMATS:
            raise ConfigError(
                f"task.{key}={task[key]}: a data file ends in {', '.join(own_file.FORMATS)}"
            )
        hashes[split], paths[key] = own_file.digest(path), str(path)
    name = task["name"] or decoded(Path(task["path"]).stem)
    task |= paths | {"name": name, "source": {"file": hashes}}
    regression, generation = (task["kind"] == kind for kind in ("regression", "generation"))
    classes = None if regression or generation else task["classes"]
    if classes is not None:
        at_least("task.classes", classes, 2, whole=True)
    task["classes"] = 1 if regression else classes or 0
    bare = TaskConfig.from_json(_bare(task) | {"metrics": task["metrics"] or []})
    names = loading.file_facts(bare, classes).class_names
    if names is not None:
        task |= {"class_names": list(names), "classes": len(names)}
    if generation and not task["metrics"]:
        task["metrics"] = ["rouge_l", "rouge1", "rouge2", "exact_match", "token_f1"]
    return task | {"metrics": task["metrics"] or _default_metrics(names)}


def _check_folds(task: Json) -> None:
    """Refuse a fold that cannot be; with folds no fraction is held out."""
    folds = task.get("folds")
    given = [f"task.{key}" for key in ("fold", "fold_seed", "group") if task.get(key) is not None]
    if folds is None:
        if given:
            raise ConfigError(
                f"{', '.join(given)} without task.folds; add task.folds=5, the number of parts"
            )
        return
    at_least("task.folds", folds, 2, whole=True)
    if task.get("fold") not in range(folds):
        raise ConfigError(
            f"task.fold={task.get('fold')}: with task.folds={folds} name the part that is held "
            f"out, from 0 to {folds - 1}"
        )
    if task.get("fold_seed") is not None:
        at_least("task.fold_seed", task["fold_seed"], 0, whole=True)
    if task["validation_path"] is not None:
        raise ConfigError("task.folds holds out parts of task.path; leave task.validation_path out")
    task["validation_fraction"] = None
