"""From composed nodes to a run: completes what a node leaves open and checks what it says.

No torch, no weights, no data: what can be refused here is refused before anything starts.
"""

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from peftbench.config import catalog, method_nodes, model_families, nodes, task_nodes
from peftbench.config.made_once import MadeOnce
from peftbench.core import revisions
from peftbench.core.configs import (
    WORDS,
    AugmentationConfig,
    Budget,
    CheckpointSelection,
    MethodConfig,
    ModelConfig,
    PromptConfig,
    TaskConfig,
    TrainingConfig,
    class_name,
)
from peftbench.core.errors import ConfigError, at_least
from peftbench.core.run import Json, Run, refuse_aside, role_seeds
from peftbench.core.text import did_you_mean
from peftbench.data import hub_dataset, loading, prompt_config
from peftbench.data.text_noise import EDITS
from peftbench.methods import settings
from peftbench.results.store import ResultsFolder
from peftbench.suites import base as suites
from peftbench.system import hub, offline_folder, yaml_files


class Resolver:
    """Nodes to runs; a part is made once for all runs whose nodes agree, and shared.

    Args:
        searched: the configuration folders.
        results: where a key names the weights of an earlier run.
        ask_hub: whether the hub may be asked about data sets and models.
        weights: whether folders with checkpoints must have weights.
    """

    def __init__(
        self,
        searched: list[Path],
        results: ResultsFolder,
        ask_hub: bool = True,
        weights: bool = True,
    ):
        self.searched = searched
        self.results = results
        self.ask_hub = ask_hub
        self.weights = weights
        self._once = MadeOnce()
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
            budget=self._once(nodes.build, "budget", Budget, config["budget"]),
            train=self._once(nodes.build, "train", TrainingConfig, config["train"]),
            checkpoint_selection=self._once(
                nodes.build,
                "checkpoint_selection",
                CheckpointSelection,
                config["checkpoint_selection"],
            ),
            size=_size(config["size"]),
            seed=config["seed"],
            role_seeds=role_seeds(config["seed"], config["role_seeds"]),
            prompt=self._once(_prompt, _unless_default("prompt", config), model, task),
            augmentation=self._once(
                _augmentation, _unless_default("augmentation", config), task.name
            ),
        )
        if (revision := revisions.loss_revision(run)) > 1:
            run = replace(run, loss_revision=revision)
        _check_warmup(run, _check_size(run))
        settings.check_run(run)
        if run.train.class_weights is not None and run.task.kind != "classification":
            what = "texts" if run.task.generation else "values"
            raise ConfigError(
                f"train.class_weights={run.train.class_weights}: {run.task.name} has {what}, "
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
        if node.get("own_words") and node.get("targets"):
            node = node | {
                "targets": {
                    name: target | {"prompt": self._once(self._own_words, target, run.model)}
                    for name, target in node["targets"].items()
                }
            }
        suite = suites.build_suite(node)  # first: a revision depends on values that this checks
        revision = revisions.suite_revision(class_name(str(node["_target_"])), node, run)
        if revision != 1:
            node = node | {"revision": revision}
        suite.check_run(run)
        return node

    def _model(self, node: Json) -> ModelConfig:
        commit = partial(self._commit, "model")
        whole = nodes.whole("model", node)
        return model_families.resolve_model(whole, self.searched, commit, self.weights)

    def _task(self, node: Json, root: str | None) -> TaskConfig:
        if "validation" in node:  # `task=hub`; a dataset that is not given is not there
            return self._dataset(nodes.whole("task", node))
        return self._at_commit(task_nodes.resolve_task(node, root), root)

    def _dataset(self, node: Json) -> TaskConfig:
        """`task=hub`: a data set at a commit, with what its repository says of it."""
        task = task_nodes.hub_node(node)
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
        counts = [found["examples"][task.stored(split)] for split in task.splits.values()]
        examples = dict(zip(task.splits, counts, strict=True))
        if task.validation_fraction is not None:
            held = loading.held_count(task, examples["train"])
            examples |= {"train": examples["train"] - held, "validation": held}
        return replace(
            task,
            source=found["source"],
            class_names=names,
            classes=1 if names is None else len(names),
            examples=examples,
            metrics=task.metrics or task_nodes.default_metrics(names),
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
                raise ConfigError(
                    _not_asked(task.source["hub"], "dataset", task.source["revision"])
                )
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
            if commit is None and not self.ask_hub:
                commit = None if new else hub.resolved_before(name, kind)
                if commit is None:
                    raise ConfigError(_not_asked(name, kind, None))
            if new:
                hub.forget(name, kind)
            commit = commit or hub.resolved(name, kind)
            if commit is None:
                return None
            self.revisions[label] = commit
        return self.revisions[label]

    def _method(self, node: Json, model: ModelConfig) -> MethodConfig:
        whole = nodes.whole("method", node)
        return MethodConfig.from_json(
            method_nodes.resolve_method(whole, model, self.results, "method.")
        )

    def _suite(self, node: Json) -> Json:
        node = nodes.bare(nodes.whole("suite", node))
        named = ("examples", "targets")
        refuse_aside(str(node["_target_"]), "suite.", node, counted=named, deep=True)
        node |= nodes.identity("suite", node)
        if isinstance(node.get("targets"), dict):
            node["targets"] = {
                n: self._once(self._target, n, t) for n, t in node["targets"].items()
            }
        if isinstance(node.get("sequence"), list):
            node["sequence"] = [
                self._once(self._target, str(name), None) for name in node["sequence"]
            ]
        return node

    def _own_words(self, target: Json, model: ModelConfig) -> Json:
        """The prompt in which a target is asked, as its own runs would have it."""
        task = TaskConfig.from_json(target["task"])
        if task.generation:
            return prompt_config.generation_prompt(None, model, task).to_json()
        path = catalog.find("prompt", WORDS, self.searched)
        node = yaml_files.read_mapping(path)
        words = node | (node["tasks"].get(task.name) or {})
        return prompt_config.resolve_prompt(words, model, task).to_json()

    def _target(self, name: str, given: Any) -> Json:
        node, own = task_nodes.target_node(name, given, self.searched)
        if "dataset" in node:
            return {"task": self._dataset(node).to_json(), **own}
        target = {"task": nodes.bare(task_nodes.task_node(node)), **own}
        task = TaskConfig.from_json(target["task"])
        if self._root is not None and task.hub_rows_sha256 is not None:
            target["task"] = task_nodes.with_rows(task, self._root).to_json()
        if (resolved := self._at_commit(task, self._root)) is not task:
            target["task"] = resolved.to_json()
        return target


def _not_asked(name: str, kind: str, commit: str | None) -> str:
    what = "revision not resolved" if commit is None else f"nothing is known of {commit[:12]}"
    give = "give model.revision=COMMIT, or use" if kind == "model" else "use"
    return (
        f"{name}: {what}, and `peftbench plan` does not query the hub; {give} `peftbench run` or "
        "`peftbench prefetch` with the same overrides, which store what they find"
    )


def _unless_default(group: str, config: Json) -> Json | None:
    """The node of a group that a run may do without, None where it does."""
    node = {key: value for key, value in nodes.bare(config[group]).items() if key != "tasks"}
    return None if node.get("name") == catalog.LATER[group] else node


def _prompt(node: Json | None, model: ModelConfig, task: TaskConfig) -> PromptConfig | None:
    if task.generation and node is None:
        return prompt_config.generation_prompt(None, model, task)
    return None if node is None else prompt_config.resolve_prompt(node, model, task)


def _augmentation(node: Json | None, task: str) -> AugmentationConfig | None:
    """How training texts are varied, without the kinds that are null."""
    if node is None:
        return None
    node = nodes.whole("augmentation", node)
    kinds = {kind: rate for kind, rate in node["kinds"].items() if rate is not None}
    for kind in kinds:
        if kind not in EDITS:
            raise ConfigError(f"augmentation.kinds: no noise {kind}; {did_you_mean(kind, EDITS)}")
    if not kinds:
        raise ConfigError(
            f"augmentation={node['name']} on {task}: its texts are left as they are, for noise may "
            f"change their labels; if it is meant, set the kinds: augmentation.kinds.KIND=RATE, "
            f"KIND of {', '.join(node['kinds'])}"
        )
    return AugmentationConfig(**node | {"kinds": kinds})


def _check_size(run: Run) -> int | None:
    """Refuse more examples than there are, fewer than classes, and a selection that gets none.

    Returns:
        On how many the run trains, at most; None where nobody knows yet.

    Raises:
        ConfigError: saying how many there are.
    """
    total = run.task.examples.get("train")
    if total is None and "file" in run.task.source:
        total = loading.file_facts(run.task, run.task.classes).train
    if total is None:
        return None
    size = run.planned_size(total)
    if run.prompt is not None:
        if (reserved := run.prompt.reserved) >= total:
            raise ConfigError(
                f"prompt.reserved={reserved} of {total} training examples of {run.task.name} "
                "leaves nothing to train on; choose fewer"
            )
        size = min(size, total - run.prompt.reserved)
    return size - run.checkpoint_selection.held_of(size)


def _check_warmup(run: Run, examples: int | None) -> None:
    """Refuse a warm-up that the budget does not outlast: its rate would never be reached.

    How many steps seconds buy is not known before.

    Args:
        run: to check.
        examples: that it trains on, at most; None where nobody knows.

    Raises:
        ConfigError: saying how long both are.
    """
    warmup, epochs, steps = run.train.warmup_steps, run.budget.epochs, run.budget.steps
    if examples is not None and epochs is not None:
        steps = run.budget.steps_of(-(-examples // run.train.batch_size))
    if steps is not None and warmup > 1 and warmup >= steps:
        of = "" if epochs is None else f"{epochs:g} epochs, "
        raise ConfigError(
            f"train.warmup_steps={warmup:g}: a budget of {of}{steps} steps ends before train.lr is "
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
