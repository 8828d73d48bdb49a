"""In-context examples: the same texts with more and more solved examples in front, at test time.

Yang et al. 2024 (arXiv 2403.09162) ask it of fine-tuned models: does training for a task leave
anything to be learnt from its demonstrations? The score for each number of them, the difference
from none, and the share of answers that flip. Demonstrations come from the run's own reserve, so
that nothing was trained on them.
"""

from dataclasses import dataclass

import numpy as np

from peftbench.core.arrays import Arrays
from peftbench.core.errors import ConfigError, at_least, listed
from peftbench.core.run import Json, Record, Run
from peftbench.data import loading
from peftbench.data.loading import LabelledTexts
from peftbench.metrics import task_metrics
from peftbench.suites.base import Suite


@dataclass(frozen=True, kw_only=True)
class InContext(Suite):
    """Score the reporting split behind each number of demonstrations.

    Attributes:
        counts: numbers of demonstrations, rising from 0.
        examples: of the reporting split, a fixed stratified part; None is all of it.
        seed: of that part.
    """

    counts: list[int]
    examples: int | None
    seed: int

    def __post_init__(self) -> None:
        listed("suite.counts", self.counts)
        for count in self.counts:
            at_least("suite.counts", count, 0, whole=True)
        if self.counts[:1] != [0] or sorted(set(self.counts)) != self.counts:
            raise ValueError(f"suite.counts rise from 0, got {self.counts}")
        if self.examples is not None:
            at_least("suite.examples (null is all)", self.examples, 2, whole=True)
        at_least("suite.seed", self.seed, 0, whole=True)

    def check_run(self, run: Run) -> None:
        """Refuse a run that has no words for labels, or fewer examples kept back."""
        if run.prompt is None:
            raise ConfigError(
                "in_context: with prompt=head there are no words to show labels by; train with "
                "prompt=words, or with prompt=demonstrations (prompt.num_demonstrations=0 for none)"
            )
        if max(self.counts) > run.prompt.reserved:
            raise ConfigError(
                f"in_context: suite.counts={self.counts}, but prompt.reserved="
                f"{run.prompt.reserved} examples are kept back; raise it or use fewer"
            )

    def sets(self, run: Run, root: str | None) -> dict[str, LabelledTexts]:
        """The reporting split, once for each number."""
        table = loading.load_split(run.task, run.task.splits["validation"], root)
        if self.examples is not None:
            order = loading.stratified(table.label, run.task.classes, self.seed)
            table = table.take(np.sort(order[: self.examples]))
        return {f"shown/{count}": table for count in self.counts}

    def shown(self, name: str) -> int:
        """What the set's name says."""
        return int(name.partition("/")[2])

    def recorded(self, name: str, run: Run) -> bool:
        """All texts behind as many demonstrations as in training."""
        own = None if run.prompt is None else run.prompt.num_demonstrations
        return self.examples is None and self.shown(name) == own

    def findings(self, record: Record, known: Arrays, found: dict[str, Arrays]) -> Json:
        """Scores by number of demonstrations, differences from none, flips, one answer to all."""
        names = record.run.task.metrics
        sets = {name: found[name] for name in (f"shown/{count}" for count in self.counts)}
        first = sets["shown/0"]
        scored = [
            task_metrics.score(names, arrays["scores"], arrays["label"]) for arrays in sets.values()
        ]
        scores = [told[names[0]] for told in scored]
        flips = [_flips(first, arrays) for arrays in sets.values()]
        return {
            "metric": names[0],
            "counts": self.counts,
            "sets": dict(zip(sets, scored, strict=True)),
            "scores": scores,
            "differences": [_difference(score, scores[0]) for score in scores],
            "constant": [task_metrics.one_answer(arrays) for arrays in sets.values()],
            "flips": flips,
            "headline": {
                f"{count} shown": score for count, score in zip(self.counts, scores, strict=True)
            },
        }


def _flips(one: Arrays, other: Arrays) -> float:
    """The share of answers that differ: classes, values or texts."""
    if "text_sha256" in one:
        return float(np.mean((one["text_sha256"] != other["text_sha256"]).any(axis=1)))
    before, after = (task_metrics.decide(arrays["scores"]) for arrays in (one, other))
    return float(np.mean(before != after))


def _difference(score: float | None, none: float | None) -> float | None:
    return None if score is None or none is None else score - none
