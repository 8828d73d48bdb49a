"""Continual training: data arrive in rounds, and each goes on from the weights of the one before.

Chai, Liu, Zhou, Xie and Zeng: BH-PEFT, 2025, arXiv 2508.02711 ("dynamic fine-tuning"). Lopez-Paz
and Ranzato: Gradient episodic memory, NIPS 2017, arXiv 1706.08840. Chaudhry et al.: Riemannian
walk, ECCV 2018, arXiv 1801.10112. R[t][j] is the score on chunk (or task) j after round t of T:

    average           mean over j of R[T][j]
    backward transfer mean over j < T of R[T][j] - R[j][j]
    forgetting        mean over j < T of max over t in j..T-1 of R[t][j], less R[T][j]

A round has the run's whole budget and schedule; epochs are those of its own examples. The last
round is compared with one training on the examples of all chunks at once: the run itself where the
chunks are all its examples, else a further training from the start. In a sequence of tasks each has
a head of its own, and R is of validation splits. Chunks are scored as trained on.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from peftbench.core.arrays import Arrays
from peftbench.core.configs import TaskConfig
from peftbench.core.errors import ConfigError, at_least, between, listed
from peftbench.core.run import Json, Record, Run
from peftbench.data import loading, prompt_config, splitting
from peftbench.data.loading import LabelledTexts
from peftbench.metrics import task_metrics
from peftbench.suites.base import Suite


@dataclass(frozen=True)
class Round:
    """One training of a stream.

    Attributes:
        run: whose task and recipe it has.
        rows: numbers of the examples to train on, replayed ones among them.
        asked: names of the sets to predict on when it is over, each with the number of the round
            whose head answers.
        at_once: whether it is no round but the training that the last one is compared with, which
            starts where the run starts.
    """

    run: Run
    rows: np.ndarray
    asked: dict[str, int]
    at_once: bool = False


@dataclass(frozen=True, kw_only=True)
class Continual(Suite):
    """Train in rounds, and score every chunk after each.

    Attributes:
        chunks: new examples of each round; None with a sequence.
        sequence: tasks' nodes that follow the run's own, or None.
        replay: part of every earlier chunk that is trained on again.
        posterior_as_prior: whether the posterior of a round is the prior of the next.
        seed: of what is replayed.
    """

    trains: ClassVar[bool] = True

    chunks: list[int] | None
    sequence: list[dict[str, Any]] | None
    replay: float
    posterior_as_prior: bool
    seed: int

    def __post_init__(self) -> None:
        for name, value in (("chunks", self.chunks), ("sequence", self.sequence)):
            if value is not None:
                listed(f"suite.{name}", value)
        for count in self.chunks or []:
            at_least("suite.chunks", count, 1, whole=True)
        between("suite.replay", self.replay, 0, 1)
        if not isinstance(self.posterior_as_prior, bool):
            raise ValueError(
                f"suite.posterior_as_prior is true or false, got {self.posterior_as_prior!r}"
            )
        at_least("suite.seed", self.seed, 0, whole=True)
        if self.sequence and self.replay:
            raise ValueError("suite.replay: examples of another task have another head; leave it 0")
        if not self.sequence and len(self.chunks or []) < 1:
            raise ValueError("suite.chunks is empty: give the new examples of each round")

    def check_run(self, run: Run) -> None:
        """Refuse a run that cannot be cut so."""
        if run.checkpoint_selection.fraction:
            raise ConfigError(
                "rounds train to the end of their budget; leave checkpoint_selection=last"
            )
        total = run.task.examples.get("train")
        if self.sequence and (run.prompt or run.augmentation):
            raise ConfigError(
                "suite.sequence: a prompt and an augmentation are of one task; leave them"
            )
        if self.sequence:
            for node in self.sequence:
                task = TaskConfig.from_json(node["task"])
                if len(task.texts) not in (1, 2) or node["above"] or node["examples"]:
                    raise ConfigError("suite.sequence names tasks alone")
                if "train" not in task.splits:
                    raise ConfigError(f"suite.sequence: {task.name} has nothing to train on")
                if task.generation:
                    raise ConfigError(
                        f"suite.sequence: {task.name} wants texts, which no classification head "
                        "writes; name tasks of classes or values"
                    )
            for one in self._runs(run):
                if one.task.examples.get("train"):
                    one.planned_size(one.task.examples["train"])
        elif total:
            reserved = 0 if run.prompt is None else run.prompt.reserved
            self._check_chunks(min(run.train_size(total), total - reserved), total - reserved)

    def _check_chunks(self, size: int, total: int) -> None:
        """Refuse chunks that are more than a run has.

        Args:
            size: of the run.
            total: examples that a run may have at most.
        """
        wanted = sum(self.chunks or [])
        if wanted > size:
            instead = f", or size={wanted}" if wanted <= total else ""
            raise ConfigError(
                f"suite.chunks are {wanted} examples, the run has {size}; use fewer{instead}"
            )

    def asked_runs(self, run: Run) -> list[Run]:
        """One of each later task, which train after the run's own round."""
        return self._runs(run)[1:]

    def check_data(self, run: Run, root: str | None) -> None:
        """Refuse sets and rounds that cannot be made; of later tasks, too."""
        super().check_data(run, root)
        for _ in self.rounds(run, root):
            pass

    def sets(self, run: Run, root: str | None) -> dict[str, LabelledTexts]:
        """The validation split and every chunk, or the validation split of every task."""
        if self.sequence:
            runs = self._runs(run)
            return {str(number): _split(one, "validation", root) for number, one in enumerate(runs)}
        train = _split(run, "train", root)
        chunks = {
            str(number): train.take(rows) for number, rows in enumerate(self._cut(run, train))
        }
        return {"validation": _split(run, "validation", root), **chunks}

    def rounds(self, run: Run, root: str | None) -> Iterator[Round]:
        """The trainings, one after the other; then, if needed, that on all chunks at once."""
        if self.sequence:
            for number, one in enumerate(self._runs(run)):
                train = _split(one, "train", root)
                size = one.train_size(len(train.label))
                rows = _order(one, train)[:size]
                asked = {str(earlier): earlier for earlier in range(number + 1)}
                yield Round(one, _mixed(one, train, rows), asked)
            return
        train = _split(run, "train", root)
        chunks = self._cut(run, train)
        for number, rows in enumerate(chunks):
            again = [
                self._again(chunk, number, place) for place, chunk in enumerate(chunks[:number])
            ]
            rows = _mixed(run, train, np.concatenate([rows, *again]))
            sets = ["validation", *map(str, range(number + 1))]
            yield Round(run, rows, dict.fromkeys(sets, number))
        every = np.concatenate(chunks)
        if len(every) < len(splitting.split_training(run, train.label).train):
            yield Round(run, _mixed(run, train, every), {"validation": len(chunks)}, at_once=True)

    def findings(self, record: Record, known: Arrays, found: dict[str, Arrays]) -> Json:
        """Scores on everything after every round, and what they come to.

        `found` holds the outputs as `ROUND/SET`; a round after the last is all chunks at once.
        """
        count = len(self.sequence) + 1 if self.sequence else len(self.chunks or [])
        tasks = [
            record.run.task,
            *(TaskConfig.from_json(node["task"]) for node in self.sequence or []),
        ]

        def score(number: int, name: str) -> float | None:
            task = tasks[int(name)] if self.sequence else record.run.task
            arrays, metric = found[f"{number}/{name}"], task.metrics[0]
            return task_metrics.score([metric], arrays["scores"], arrays["label"])[metric]

        matrix = [[score(t, str(j)) for j in range(t + 1)] for t in range(count)]
        validation = None if self.sequence else [score(t, "validation") for t in range(count)]
        told: Json = {
            "metrics": [task.metrics[0] for task in tasks],
            "names": [task.name for task in tasks] if self.sequence else self.chunks,
            "scores": matrix,
            "validation": validation,
            "joint": (
                score(count, "validation")
                if f"{count}/validation" in found
                else record.metrics[tasks[0].metrics[0]]
            ),
            **measures(matrix),
        }
        last = {} if validation is None else {"last": validation[-1]}
        return told | {"headline": last | {name: told[name] for name in ("average", "forgetting")}}

    def _runs(self, run: Run) -> list[Run]:
        return [
            run,
            *(
                replace(run, task=TaskConfig.from_json(node["task"]))
                for node in self.sequence or []
            ),
        ]

    def _cut(self, run: Run, train: LabelledTexts) -> list[np.ndarray]:
        """Numbers of the examples of each chunk: consecutive pieces of the run's own subset."""
        assert self.chunks is not None
        order = _order(run, train)
        self._check_chunks(min(run.train_size(len(train.label)), len(order)), len(order))
        ends = np.cumsum(self.chunks)
        return np.split(order[: ends[-1]], ends[:-1])

    def _again(self, chunk: np.ndarray, number: int, place: int) -> np.ndarray:
        """What is replayed of an earlier chunk, drawn again in every round."""
        generator = np.random.default_rng([self.seed, number, place])
        return generator.permutation(chunk)[: round(self.replay * len(chunk))]


def measures(matrix: list[list[float | None]]) -> dict[str, float | None]:
    """Average, backward transfer and forgetting of R[t][j], j up to t; None where undefined."""
    last, before = matrix[-1], range(len(matrix) - 1)

    def mean(values: list[float | None]) -> float | None:
        defined = [value for value in values if value is not None]
        return sum(defined) / len(defined) if values and len(defined) == len(values) else None

    def less(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else a - b

    def best(j: int) -> float | None:
        past = [matrix[t][j] for t in range(j, len(matrix) - 1)]
        return None if None in past else max(value for value in past if value is not None)

    return {
        "average": mean(last),
        "backward_transfer": mean([less(last[j], matrix[j][j]) for j in before]),
        "forgetting": mean([less(best(j), last[j]) for j in before]),
    }


def _split(run: Run, split: str, root: str | None) -> LabelledTexts:
    return loading.load_split(run.task, run.task.splits[split], root)


def _order(run: Run, train: LabelledTexts) -> np.ndarray:
    """The run's nested subsets: its first n numbers are its subset of n."""
    order = loading.stratified(train.label, run.task.classes, run.seeds()["subset"])
    return order[~np.isin(order, prompt_config.reserved(run, train.label))]


def _mixed(run: Run, train: LabelledTexts, rows: np.ndarray) -> np.ndarray:
    """In the order in which a run of these examples alone would have them."""
    seed = run.seeds()["subset"] + 1
    return rows[loading.stratified(train.label[rows], run.task.classes, seed)]
