"""Training texts in noisy versions: made before a training, shown for a part of the time.

Which version of an example an epoch shows follows from the run's seed and the epoch's number alone:
all methods see the same, in the batches that they would see without noise, and a training that was
interrupted goes on with what was due.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from peftbench.core.configs import AugmentationConfig
from peftbench.core.run import Run
from peftbench.data import loading
from peftbench.data.loading import LabelledTexts
from peftbench.data.text_noise import noisy
from peftbench.data.tokenization import TokenizedSplit


def noisy_versions(config: AugmentationConfig, table: LabelledTexts, seed: int) -> LabelledTexts:
    """A first noisy version of every example, then a second one of every example, and so on."""
    kinds = sorted(config.kinds)  # their order is no part of the run's key
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(kinds), size=(config.versions, len(table.label)))
    texts: list[list[str]] = [[] for _ in table.texts]
    for version, of_each in enumerate(drawn):
        for place, column in enumerate(table.texts):
            changed = np.array(column, dtype=object)
            for number, kind in enumerate(kinds):
                mine = of_each == number
                stream = seed + 1000 * version + place
                changed[mine] = noisy(list(changed[mine]), kind, config.kinds[kind], stream)
            texts[place] += changed.tolist()
    return LabelledTexts(texts, np.tile(table.label, config.versions))


@dataclass(frozen=True)
class AugmentedSplit:
    """What a training shows.

    Attributes:
        tokens: of a split, then of the noisy versions, as `noisy_versions` orders them.
        rows: numbers of the examples that are trained on.
        part, versions: as in `AugmentationConfig`; 0 without one.
        seed: of what an epoch shows.
        truncated: how many noisy versions lost tokens; empty without an augmentation.
    """

    tokens: TokenizedSplit
    rows: np.ndarray
    part: float = 0.0
    versions: int = 0
    seed: int = 0
    truncated: dict[str, int] = field(default_factory=dict)

    @property
    def every(self) -> np.ndarray:
        """Numbers of the examples and of their noisy versions."""
        first = len(self.tokens) - self.versions * len(self.rows)
        return np.concatenate([self.rows, np.arange(first, len(self.tokens))])

    def vary(self, epoch: int, batches: list[np.ndarray]) -> list[np.ndarray]:
        """Batches of numbers with noisy versions in the place of the examples they are of."""
        if not self.versions:
            return batches
        count = len(self.rows)
        first = len(self.tokens) - self.versions * count
        generator = np.random.default_rng([self.seed, epoch])
        chosen = generator.random(count) < self.part
        version = first + generator.integers(self.versions, size=count) * count + np.arange(count)
        now = np.arange(first)
        now[self.rows] = np.where(chosen, version, self.rows)
        return [now[numbers] for numbers in batches]


def augment_split(
    run: Run,
    tokens: TokenizedSplit,
    rows: np.ndarray,
    root: str | None,
    encode: Callable[[LabelledTexts], TokenizedSplit],
) -> AugmentedSplit:
    """What a run's training shows of examples of its training split.

    Args:
        run: with an augmentation or without.
        tokens: of the split as it is.
        rows: numbers of the examples.
        root: folders of data sets in the hub's layout, or None for the hub.
        encode: gives the tokens of texts.
    """
    if run.augmentation is None:
        return AugmentedSplit(tokens, rows)
    seed = run.seeds()["augment"]
    table = loading.load_split(run.task, run.task.splits["train"], root).take(rows)
    more = encode(noisy_versions(run.augmentation, table, seed))
    both = replace(
        tokens,
        ids=np.concatenate([tokens.ids, more.ids]),
        types=np.concatenate([tokens.types, more.types]),
        ends=np.concatenate([tokens.ends, tokens.ends[-1] + more.ends]),
        label=np.concatenate([tokens.label, more.label]),
        answer=np.concatenate([tokens.answer, more.answer]),
        truncated=tokens.truncated + more.truncated,
        lost=np.zeros(0, dtype=bool),  # of those from the cache it is not known
    )
    return AugmentedSplit(
        both,
        rows,
        run.augmentation.probability,
        run.augmentation.versions,
        seed,
        {"noisy": more.truncated},
    )
