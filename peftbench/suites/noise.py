"""Robustness: the same texts, mistyped and rephrased, at rising intensity.

The score under noise, the drop from the clean score, the share of answers that flip, the area
under the curve over intensity (0 is clean), and the worst kind. Which kinds may change a label is
said per task in the yaml: word order is the question in CoLA, and no noise to it.
"""

from dataclasses import dataclass

import numpy as np

from peftbench.core.arrays import Arrays
from peftbench.core.errors import ConfigError, at_least, is_number, listed, mapped
from peftbench.core.run import Json, Record, Run
from peftbench.data import loading
from peftbench.data.loading import LabelledTexts
from peftbench.data.text_noise import EDITS, noisy
from peftbench.metrics import task_metrics
from peftbench.suites.base import Suite


@dataclass(frozen=True, kw_only=True)
class Noise(Suite):
    """Score noisy copies of the reporting split.

    Attributes:
        kinds: of `peftbench.data.text_noise.EDITS`, each with the rate of its highest intensity.
        intensities: fractions of that rate, rising.
        examples: of the reporting split, a fixed stratified part; None is all of it.
        seed: of the noise and of the part.
    """

    kinds: dict[str, float]
    intensities: list[float]
    examples: int | None
    seed: int

    def __post_init__(self) -> None:
        mapped("suite.kinds", self.kinds)
        for kind, rate in self.kinds.items():
            if kind not in EDITS:
                raise ValueError(f"suite.kinds: no noise {kind}; there are {', '.join(EDITS)}")
            if rate is not None and not (is_number(rate) and 0 < rate <= 1):
                raise ValueError(
                    f"suite.kinds.{kind} is a rate above 0 and at most 1, got {rate!r}"
                )
        listed("suite.intensities", self.intensities)
        within = all(is_number(one) and 0 < one <= 1 for one in self.intensities)
        if not (self.intensities and within and self.intensities == sorted(set(self.intensities))):
            raise ValueError(
                f"suite.intensities rise from above 0 to at most 1, got {self.intensities}"
            )
        if self.examples is not None:
            at_least("suite.examples (null is all)", self.examples, 2, whole=True)
        at_least("suite.seed", self.seed, 0, whole=True)

    def rates(self) -> dict[str, float]:
        """The kinds that are asked for; null in the yaml leaves one out."""
        return {kind: rate for kind, rate in self.kinds.items() if rate is not None}

    def check_run(self, run: Run) -> None:
        """Refuse a task for which no kind is left, and one that wants texts."""
        self.refuse_texts(run)
        if not self.rates():
            raise ConfigError(f"noise: suite.kinds leaves no kind for {run.task.name}")

    def check_data(self, run: Run, root: str | None) -> None:
        """Load the clean texts; noise is possible in any text, and takes long in all."""
        self._clean(run, root)

    def sets(self, run: Run, root: str | None) -> dict[str, LabelledTexts]:
        """The clean texts, and each kind at each intensity."""
        clean = self._clean(run, root)
        return {"clean": clean} | self.copies(clean)

    def copies(self, clean: LabelledTexts) -> dict[str, LabelledTexts]:
        """The texts with each kind at each intensity, by `kind/intensity`."""
        found = {}
        for kind, most in self.rates().items():
            for intensity in self.intensities:
                texts = [
                    noisy(column, kind, most * intensity, self.seed + 1000 * place)
                    for place, column in enumerate(clean.texts)
                ]
                found[f"{kind}/{intensity:g}"] = LabelledTexts(texts, clean.label)
        return found

    def _clean(self, run: Run, root: str | None) -> LabelledTexts:
        clean = loading.load_split(run.task, run.task.splits["validation"], root)
        if self.examples is None:
            return clean
        order = loading.stratified(clean.label, run.task.classes, self.seed)
        return clean.take(np.sort(order[: self.examples]))

    def findings(self, record: Record, known: Arrays, found: dict[str, Arrays]) -> Json:
        """Scores of every set; drops, areas, flips, the worst kind, by the primary metric."""
        names = record.run.task.metrics
        scored = {
            name: task_metrics.score(names, arrays["scores"], arrays["label"])
            for name, arrays in found.items()
        }
        clean = scored["clean"][names[0]]
        kinds: dict[str, Json] = {}
        for kind in self.rates():
            sets = [f"{kind}/{intensity:g}" for intensity in self.intensities]
            curve = [scored[name][names[0]] for name in sets]
            kinds[kind] = {
                "scores": curve,
                "flips": [_flips(found["clean"]["scores"], found[n]["scores"]) for n in sets],
                "drop": None if clean is None or curve[-1] is None else clean - curve[-1],
                "area": area([0.0, *self.intensities], [clean, *curve]),
            }
        areas = [kind["area"] for kind in kinds.values()]
        last = {kind: told["scores"][-1] for kind, told in kinds.items()}
        defined = {kind: score for kind, score in last.items() if score is not None}
        worst = min(defined, key=lambda kind: defined[kind]) if len(defined) == len(last) else None
        mean = None if None in areas else float(np.mean(areas))
        return {
            "metric": names[0],
            "intensities": self.intensities,
            "sets": scored,
            "kinds": kinds,
            "clean": clean,
            "area": mean,
            "worst_kind": worst,
            "worst": None if worst is None else defined[worst],
            "headline": {
                "clean": clean,
                "under noise": mean,
                f"worst ({worst or 'undefined'})": None if worst is None else defined[worst],
            },
        }


def area(places: list[float], scores: list[float | None]) -> float | None:
    """Mean height of the curve of scores over places, by trapezoids; None where one is."""
    if None in scores:
        return None
    heights = np.asarray(scores, dtype=np.float64)
    return float(np.trapezoid(heights, places) / (places[-1] - places[0]))


def _flips(clean: np.ndarray, changed: np.ndarray) -> float:
    """Share of other classes; for values the mean absolute change."""
    before, after = task_metrics.decide(clean), task_metrics.decide(changed)
    if clean.shape[1] == 1:
        return float(np.mean(np.abs(np.subtract(before, after))))
    return float(np.mean(before != after))
