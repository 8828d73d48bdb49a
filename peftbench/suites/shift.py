"""Generalisation: trained on one task, asked about others.

Yang et al. 2024, "Unveiling the Generalization Power of Fine-Tuned Large Language Models", arXiv
2403.09162, ask a paraphrase model about QQP and about STS-B cut at 3.5. Here classes answer for
classes, a value orders two classes (area under the ROC curve), and values are correlated.

With `own_words` targets may be of any task, as in their experiments across tasks: a language model
is asked each in the target's own template and label words, or writes what the target wants. A label
word that the run scored keeps its trained row of the head, whatever its class is there; another one
has the row that it had before, unless the run trains the whole vocabulary.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from peftbench.core.arrays import Arrays
from peftbench.core.configs import GENERATE, WORDS, PromptConfig, TaskConfig
from peftbench.core.errors import ConfigError
from peftbench.core.run import Json, Record, Run
from peftbench.data import loading
from peftbench.data.loading import LabelledTexts
from peftbench.metrics import task_metrics
from peftbench.suites.base import Suite


@dataclass(frozen=True, kw_only=True)
class Shift(Suite):
    """Score other tasks with the model of a task.

    Attributes:
        targets: by name: `task`, a task's node; `above`, which cuts its values into two classes
            (or null); `examples`, a fixed stratified part of its validation split (or null);
            `prompt`, with `own_words`.
        seed: of these parts.
        own_words: whether targets are asked in their own prompts.
    """

    untrained: ClassVar[bool] = True

    targets: dict[str, dict[str, Any]]
    seed: int
    own_words: bool = False

    def check_run(self, run: Run) -> None:
        """Refuse targets that a model of the run's task cannot answer for."""
        if self.own_words and (run.prompt is None or run.prompt.name not in (WORDS, GENERATE)):
            raise ConfigError(
                "transfer: the head of one task cannot answer for another; train a language model "
                "with prompt=words, or on a task that wants texts"
            )
        suite, such = ("transfer", "rte:{}") if self.own_words else ("shift", "stsb:{above:3.5}")
        if not self.targets:
            raise ConfigError(
                f"{suite}: no targets are known for {run.task.name}; name some, such as "
                f"suite.targets={{qqp:{{}},{such}}}"
            )
        for name, target in self.targets.items():
            task, classes = TaskConfig.from_json(target["task"]), _classes(target)
            if target["above"] is not None and task.classes != 1:
                what = "texts" if task.generation else "classes"
                raise ConfigError(f"{suite}: {name} has {what}; `above` cuts values")
            if self.own_words:
                continue
            if task.generation != run.task.generation:
                raise ConfigError(
                    f"shift: {run.task.name} and {name} do not both want texts; "
                    "suite=transfer asks each in its own words"
                )
            if len(task.texts) != len(run.task.texts):
                raise ConfigError(
                    f"shift: {run.task.name} has {_texts(run.task)}, {name} {_texts(task)}; "
                    "a model of the one has nothing to say about the other"
                )
            if classes > 2 and classes != run.task.classes:
                raise ConfigError(
                    f"shift: {run.task.name} has {run.task.classes} classes, {name} {classes}"
                )
            names = task.class_names
            ours = run.task.class_names or [str(n) for n in range(run.task.classes)]
            if names is not None and run.task.classes > 1 and names != ours:
                raise ConfigError(
                    f"shift: the classes of {name} are {', '.join(names)}, those of "
                    f"{run.task.name} {', '.join(ours)}; name them alike"
                )
            if classes <= 2 < run.task.classes:
                raise ConfigError(
                    f"shift: {run.task.classes} classes of {run.task.name} do not say which "
                    f"of {name} is meant"
                )

    def asked_as(self, name: str, run: Run) -> Run:
        """With own words a run of the target's task, in its prompt."""
        if not self.own_words:
            return run
        target = self.targets[name]
        prompt = PromptConfig.from_json(target["prompt"])
        return replace(run, task=TaskConfig.from_json(target["task"]), prompt=prompt)

    def shown(self, name: str) -> int | None:
        """None of a task of its own words: examples that are kept back are of the run's task."""
        return 0 if self.own_words else None

    def sets(self, run: Run, root: str | None) -> dict[str, LabelledTexts]:
        """The validation split of each target, cut and shortened as asked."""
        found = {}
        for name, target in self.targets.items():
            task = TaskConfig.from_json(target["task"])
            table = loading.load_split(task, task.splits["validation"], root)
            if target["above"] is not None:
                table = LabelledTexts(table.texts, (table.label > target["above"]).astype(np.int64))
            if target["examples"] is not None:
                order = loading.stratified(table.label, _classes(target), self.seed)
                table = table.take(np.sort(order[: target["examples"]]))
            found[name] = table
        return found

    def findings(self, record: Record, known: Arrays, found: dict[str, Arrays]) -> Json:
        """For each target its scores, those of the model before training, and the gap.

        The gap is the score at home less the score abroad, in the metric of the run's task, or
        where the target has no such metric in the target's first; None without that at home.
        """
        told: dict[str, Json] = {}
        for name in self.targets:
            scored = _scores(found[name])
            primary = record.run.task.metrics[0]
            metric = primary if primary in scored else next(iter(scored))
            home = _scores(known).get(metric)
            away = scored[metric]
            told[name] = {
                "metric": metric,
                "examples": len(found[name]["label"]),
                "scores": scored,
                "untrained": _scores(found[f"untrained/{name}"]),
                "trivial": _trivial(found[name]["label"], metric),
                "home": home,
                "gap": None if home is None or away is None else home - away,
            }
        headline = {name: one["scores"][one["metric"]] for name, one in told.items()}
        return {"targets": told, "headline": headline}


def _classes(target: Json) -> int:
    return 2 if target["above"] is not None else TaskConfig.from_json(target["task"]).classes


def _texts(task: TaskConfig) -> str:
    return f"{len(task.texts)} text{'s' * (len(task.texts) > 1)} an example"


def _scores(arrays: Arrays) -> dict[str, float | None]:
    """What outputs say about labels: the first metric is the one that is compared."""
    scores, label = arrays["scores"], arrays["label"]
    if "text_sha256" in arrays:
        return task_metrics.score([one.name for one in task_metrics.text_metrics()], scores, label)
    if label.dtype.kind == "f":  # correlation with the value, or with the log odds of class 1
        value = scores[:, 0] if scores.shape[1] == 1 else scores[:, 1] - scores[:, 0]
        return {
            name: task_metrics.METRICS[name].compute(value, label)
            for name in ("pearson", "spearman")
        }
    if scores.shape[1] == 1:
        return {"auc": task_metrics.auc(scores[:, 0], label)}
    found = task_metrics.score(("accuracy",), scores, label)
    if scores.shape[1] == 2:
        found |= task_metrics.score(("f1", "matthews"), scores, label)
        found |= {"auc": task_metrics.auc(scores[:, 1] - scores[:, 0], label)}
    return found


def _trivial(label: np.ndarray, metric: str) -> float | None:
    """What the majority class scores, or the empty text; None where a constant has no score."""
    if metric == "auc":
        return 0.5
    if task_metrics.METRICS[metric].column is not None:
        return 0.0
    if metric != "accuracy":
        return None
    return float(np.bincount(label).max() / len(label))
