"""Latency: how long the trained model takes to answer, on the machine at hand.

As in MLPerf Inference (Reddi et al. 2020, arXiv 1911.02549) percentiles count, of single texts and
of batches. Texts of the reporting split have their real lengths. The clock runs from tokens in the
main memory to logits, and waits for the device. Where the method can fold what it learnt into the
model's own weights (`Method.merge`), that is timed too, once its logits in fp32 are those of the
other; both forms take turns on the same texts, so that a machine that slows down slows both. Single
texts come first, then batches.
"""

from dataclasses import dataclass

import numpy as np

from peftbench.core.arrays import Arrays
from peftbench.core.errors import at_least
from peftbench.core.run import Json, Record, Run
from peftbench.data import loading
from peftbench.data.loading import LabelledTexts
from peftbench.suites.base import Suite


@dataclass(frozen=True, kw_only=True)
class Latency(Suite):
    """Time single texts and batches, unmerged and merged.

    Attributes:
        batch_size: texts of a pass whose throughput is reported.
        repeats: timed passes of each kind.
        warmup: passes of each kind before the clock runs: the first of the timed ones.
        seed: of the choice of texts.
    """

    batch_size: int
    repeats: int
    warmup: int
    seed: int

    def __post_init__(self) -> None:
        at_least("suite.batch_size", self.batch_size, 1, whole=True)
        at_least("suite.repeats", self.repeats, 20, whole=True)  # a 95th percentile needs as many
        at_least("suite.warmup", self.warmup, 1, whole=True)
        if self.warmup > self.repeats:
            raise ValueError(
                f"suite.warmup={self.warmup}: these are the first of the suite.repeats="
                f"{self.repeats} timed passes, made once before; give at most as many"
            )
        at_least("suite.seed", self.seed, 0, whole=True)

    def check_run(self, run: Run) -> None:
        """Refuse a run that writes texts."""
        self.refuse_texts(run)

    def sets(self, run: Run, root: str | None) -> dict[str, LabelledTexts]:
        """The reporting split."""
        return {"texts": loading.load_split(run.task, run.task.splits["validation"], root)}

    def passes(self, examples: int) -> dict[str, list[np.ndarray]]:
        """Numbers of the examples of each timed pass, by the kind: "single" and "batch".

        Args:
            examples: of the set; a number comes again only when all had their turn.
        """
        draw = np.random.default_rng(self.seed)
        made = {}
        for kind, size in (("single", 1), ("batch", self.batch_size)):
            rounds = -(-self.repeats * size // examples)
            order = np.concatenate([draw.permutation(examples) for _ in range(rounds)])
            made[kind] = [*order[: self.repeats * size].reshape(self.repeats, size)]
        return made

    def findings(self, record: Record, known: Arrays, found: dict[str, Arrays]) -> Json:
        """Percentiles of milliseconds and of examples a second, of each form that was timed."""
        told: Json = {
            "batch_size": self.batch_size,
            "repeats": self.repeats,
            "texts": len(found["texts"]["label"]),
            "merged": None,
        }
        headline: dict[str, float | None] = {}
        for form in FORMS:
            if times := found.get(form):
                told[form] = self._figures(times)
            flat = told[form] or {"ms": {}, "examples_per_second": {}}
            for name, short in (("ms", "ms"), ("examples_per_second", "per_second")):
                for part in PARTS:
                    headline[f"{form}_{short}_{part}"] = flat[name].get(part)
        best = headline["merged_ms_p50"]
        headline["ms_p50"] = headline["unmerged_ms_p50"] if best is None else best
        return told | {"headline": headline}

    def _figures(self, times: Arrays) -> Json:
        """Percentiles of the passes; of a throughput the 95th is that of the slow passes."""
        seconds = {kind: np.percentile(times[kind], [50, 95]) for kind in ("single", "batch")}
        rates = self.batch_size / seconds["batch"]
        return {
            "ms": dict(zip(PARTS, (1000 * seconds["single"]).tolist(), strict=True)),
            "examples_per_second": dict(zip(PARTS, rates.tolist(), strict=True)),
        }


#: Ways in which the trained weights are held.
FORMS = ("unmerged", "merged")

#: Percentiles that are reported.
PARTS = ("p50", "p95")
