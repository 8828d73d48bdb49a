"""Generalisation: trained on one task, asked about others.

Yang et al. 2024, "Unveiling the Generalization Power of Fine-Tuned Large Language Models", arXiv
2403.09162, ask a paraphrase model about QQP and about STS-B cut at 3.5. Here classes answer for
classes, a value orders two classes (area under the ROC curve), and values are correlated.

With `own_words` targets may be of any task, as in their experiments across tasks: a language model
is asked each in the target's own template and label words, or writes what the target wants. A label
word that the run scored keeps its trained row of the head, whatever its class is there; another one
has the row that it had before, unless the run trains the whole vocabulary.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from peftbench.core.arrays import Arrays
from peftbench.core.configs import GENERATE, WORDS, PromptConfig, TaskConfig
from peftbench.core.errors import ConfigError, at_least
from peftbench.core.run import Json, Record, Run, canonical
from peftbench.data import glue_labels, loading
from peftbench.data.loading import LabelledTexts
from peftbench.data.prompt_config import in_turns
from peftbench.metrics import task_metrics
from peftbench.metrics.base import CONSTANT_AUC, FLAT, is_constant
from peftbench.suites.base import Suite

#: Scores of values, see `comparable`.
CORRELATIONS = ("pearson", "spearman")


@dataclass(frozen=True, kw_only=True)
class Shift(Suite):
    """Score other tasks with the model of a task.

    Attributes:
        targets: by name: `task`, a task's node; `above`, which cuts its values into two classes
            (or null); `examples`, a fixed stratified part of its validation split (or null); with
            `own_words` `prompt`, and `demonstrations`, how many of the other examples of that
            split stand in front of each, none if it is not there.
        seed: of these parts.
        own_words: whether targets are asked in their own prompts.
    """

    untrained: ClassVar[bool] = True

    targets: dict[str, dict[str, Any]]
    seed: int
    own_words: bool = False

    def __post_init__(self) -> None:
        at_least("suite.seed", self.seed, 0, whole=True)

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
            if target.get("demonstrations"):
                raise ConfigError(
                    f"shift: {name} is asked as {run.task.name} is; demonstrations of its own are "
                    "for suite=transfer"
                )
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
            named = task.class_names is not None or run.task.class_names is not None
            if named and min(task.classes, run.task.classes) > 1:
                theirs, ours = glue_labels.spellings(task), glue_labels.spellings(run.task)
                if not any(names in ours for names in theirs):
                    raise ConfigError(
                        f"shift: the classes of {name} are {' or '.join(map(', '.join, theirs))}, "
                        f"those of {run.task.name} {' or '.join(map(', '.join, ours))}; name them "
                        "alike, and in the same order"
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

    def asked_runs(self, run: Run) -> list[Run]:
        """With own words one of each target."""
        return [self.asked_as(name, run) for name in self.targets] if self.own_words else []

    def demonstrations(self, name: str, run: Run, root: str | None) -> LabelledTexts | None:
        """Of a task of its own words, from its own examples: those kept back are of the run's."""
        target = self.targets[name]
        count = target.get("demonstrations", 0)
        if not count:
            return None
        table, order = self._target(target, run, root)
        rest, classes = order[target["examples"] :], max(1, _classes(target))
        labels = table.label[rest] if classes > 1 else np.zeros(len(rest))
        members = [rest[labels == value] for value in range(classes)]
        if min(map(len, members)) * classes < count:
            raise ConfigError(
                f"transfer: {name} has {len(order)} examples, too few for {target['examples']} "
                f"and {count} demonstrations"
            )
        return table.take(in_turns(members, count))

    def check_data(self, run: Run, root: str | None) -> None:
        """Refuse targets without data, or with too few examples."""
        super().check_data(run, root)
        for name in self.targets:
            self.demonstrations(name, run, root)

    def sets(self, run: Run, root: str | None) -> dict[str, LabelledTexts]:
        """The validation split of each target, cut and shortened as asked."""
        found = {}
        for name, target in self.targets.items():
            table, order = self._target(target, run, root)
            if target["examples"] is not None:
                table = table.take(np.sort(order[: target["examples"]]))
            found[name] = table
        return found

    def _target(self, target: Json, run: Run, root: str | None) -> tuple[LabelledTexts, np.ndarray]:
        """The validation split of a target, cut, and the order of which its parts are taken.

        Without the examples that the run's task has in its training split: of STS-B's pairs 111 are
        in MRPC's, which both took from one corpus. The whole split counts, so that runs on all
        sizes answer the same examples.
        """
        task, own = TaskConfig.from_json(target["task"]), run.task
        table = loading.load_split(task, task.splits["validation"], root)
        if target["above"] is not None:
            label = (table.label > target["above"]).astype(np.int64)
            table = LabelledTexts(table.texts, label)
        if len(own.texts) == len(task.texts):
            known = _training_texts(canonical(own.json), root)
            new = [row for row, texts in enumerate(_bare_texts(table)) if texts not in known]
            if not new:
                raise ConfigError(
                    f"shift: all examples of {task.name} are in the training split of {own.name}"
                )
            table = table.take(np.array(new))
        return table, loading.stratified(table.label, _classes(target), self.seed)

    def findings(self, record: Record, known: Arrays, found: dict[str, Arrays]) -> Json:
        """For each target its scores, those of the model before training, and the gap.

        The gap is the score at home less the score abroad, in the metric of the run's task, or
        where the target has no such metric in the target's first; None without that at home. Of
        texts also their lengths, since one that does not end has a low ROUGE whatever it says.
        """
        told: dict[str, Json] = {}
        for name in self.targets:
            task = TaskConfig.from_json(self.targets[name]["task"])
            flat = None if record.run.task.shares_unit(task) else _flat(record.run, known)
            scored = _scores(found[name], flat)
            primary = record.run.task.metrics[0]
            metric = primary if primary in scored else next(iter(scored))
            home = _scores(known).get(metric)
            away = scored[metric]
            told[name] = {
                "metric": metric,
                "examples": len(found[name]["label"]),
                "scores": scored,
                "untrained": _scores(found[f"untrained/{name}"], flat),
                "trivial": _trivial(found[name]["label"], metric),
                "home": home,
                "gap": None if home is None or away is None else home - away,
            }
            if task.generation:
                parts = {"trained": name, "untrained": f"untrained/{name}"}
                told[name]["texts"] = {
                    which: task_metrics.text_lengths(found[part], task.new_tokens)
                    for which, part in parts.items()
                }
        headline = {name: one["scores"][one["metric"]] for name, one in told.items()}
        return {"targets": told, "headline": headline}


@lru_cache(2)
def _training_texts(task: str, root: str | None) -> frozenset[frozenset[str]]:
    own = TaskConfig.from_json(json.loads(task))
    return frozenset(_bare_texts(loading.load_split(own, own.splits["train"], root)))


def _bare_texts(table: LabelledTexts) -> Iterator[frozenset[str]]:
    """The texts of each example, in any order, without case and punctuation."""
    for texts in zip(*table.texts, strict=True):
        yield frozenset(" ".join(re.findall(r"\w+", text.casefold())) for text in texts)


def _classes(target: Json) -> int:
    return 2 if target["above"] is not None else TaskConfig.from_json(target["task"]).classes


def _texts(task: TaskConfig) -> str:
    return f"{len(task.texts)} text{'s' * (len(task.texts) > 1)} an example"


def _flat(run: Run, known: Arrays) -> float:
    """The spread below which what a run predicts is one value, in the unit of its own labels."""
    return FLAT * float(known["label"].std()) if run.task.regression else 0.0


def _scores(arrays: Arrays, flat: float | None = None) -> dict[str, float | None]:
    """What outputs say about labels: the first metric is the one that is compared.

    Args:
        flat: the spread below which predictions are one value; None where they have the unit of
            the labels, by whose spread the metrics tell.
    """
    scores, label = arrays["scores"], arrays["label"]
    if "text_sha256" in arrays:
        return task_metrics.score([one.name for one in task_metrics.text_metrics()], scores, label)
    if label.dtype.kind == "f":
        value = comparable(scores, label, flat)
        return {name: task_metrics.METRICS[name].compute(value, label) for name in CORRELATIONS}
    if scores.shape[1] == 1:
        value = _as_spread(scores[:, 0], label, flat or 0.0)
        return {"auc": task_metrics.auc(value, label)}
    found = task_metrics.score(("accuracy",), scores, label)
    if scores.shape[1] == 2:
        found |= task_metrics.score(("f1", "matthews"), scores, label)
        found |= {"auc": task_metrics.auc(scores[:, 1] - scores[:, 0], label)}
    return found


def comparable(scores: np.ndarray, label: np.ndarray, flat: float | None) -> np.ndarray:
    """What is correlated with labels that are values: a value, or the log odds of class 1.

    Args:
        scores: (examples, 1) values, or outputs of two classes.
        label: (examples,) values.
        flat: as of `_scores`.
    """
    value = scores[:, 0] if scores.shape[1] == 1 else scores[:, 1] - scores[:, 0]
    return value if flat is None else _as_spread(value, label, flat)


def _as_spread(value: np.ndarray, label: np.ndarray, flat: float) -> np.ndarray:
    """Values with the spread of the labels, which changes no order; zeros if flat."""
    value = value.astype(np.float64)
    spread = float(value.std())
    if spread < flat or is_constant(value, value):
        return np.zeros_like(value)
    return (value - value.mean()) * (float(label.std()) / spread)


def _trivial(label: np.ndarray, metric: str) -> float | None:
    """What the best class for all scores, or the empty text; None where a constant has no score."""
    if metric == "auc":
        return CONSTANT_AUC
    if metric == "f1":  # of calling everything positive
        share = float(np.mean(label == 1))
        return 2 * share / (1 + share)
    if task_metrics.METRICS[metric].column is not None:
        return 0.0
    if metric != "accuracy":
        return None
    return float(np.bincount(label).max() / len(label))
