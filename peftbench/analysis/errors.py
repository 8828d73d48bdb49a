"""Where predictions are wrong: confusions, residuals, and scores of parts of the examples."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftbench.core.arrays import Floats
from peftbench.core.run import Record
from peftbench.metrics.task_metrics import decide
from peftbench.results.predictions import Load, stacked

#: Parts of a column of texts that are shown; the rest are one part.
_MOST = 8


@dataclass(frozen=True)
class RowPredictions:
    """What runs of one row answered, on the same examples.

    Attributes:
        item: (examples,) their rows in the reporting split.
        label: (examples,) classes or values.
        predicted: (runs, examples) of the same.
        probability: (runs, examples, classes); None of values.
        classes: of the task; 1 for values.
    """

    item: NDArray[np.int64]
    label: NDArray[np.generic]
    predicted: NDArray[np.generic]
    probability: Floats | None
    classes: int

    @classmethod
    def from_records(cls, records: list[Record], load: Load) -> "RowPredictions":
        """The answers of runs on one task.

        Raises:
            RecordError: if two of them are not of the same examples in the same order.
        """
        from scipy.special import softmax

        found = stacked(records, load)
        classes = records[0].run.task.classes
        return cls(
            item=load(records[0])["item"].astype(np.int64),
            label=found.label,
            predicted=np.stack([decide(one) for one in found.scores]),
            probability=None if classes == 1 else softmax(found.scores, axis=2),
            classes=classes,
        )

    def confusion(self) -> Floats:
        """(classes, classes) counts of true by predicted classes, mean over runs."""
        pairs = self.label.astype(np.int64) * self.classes + self.predicted.astype(np.int64)
        counts = np.bincount(pairs.ravel(), minlength=self.classes**2) / len(self.predicted)
        found: Floats = counts.reshape(self.classes, self.classes)
        return found

    def residuals(self) -> Floats:
        """(runs, examples) predicted less true values."""
        return np.asarray(self.predicted, np.float64) - self.label.astype(np.float64)

    def goodness(self) -> Floats:
        """(runs, examples) 1 where right and 0 where wrong; of values the absolute residual."""
        if self.classes == 1:
            return np.abs(self.residuals())
        return (self.predicted == self.label).astype(np.float64)

    def surest_wrong(self, most: int) -> tuple[list["Wrong"], int]:
        """The wrong examples that runs are surest of, and how many more are as sure as the last.

        Of the mean of the runs' probabilities, or values: the largest of a wrong class, or the
        largest residual. Equal ones come in the order of their rows.
        """
        if self.probability is None:
            answer = np.asarray(self.predicted, dtype=np.float64).mean(axis=0)
            sure = np.abs(answer - self.label.astype(np.float64))
            wrong = np.arange(len(sure))
            off = np.ones_like(self.predicted, dtype=bool)
        else:
            mean = self.probability.mean(axis=0)
            answer, sure = mean.argmax(axis=1), mean.max(axis=1)
            wrong = np.flatnonzero(answer != self.label)
            off = self.predicted != self.label
        sure = np.round(sure, 9)  # equal up to rounding is equal
        order = wrong[np.lexsort((self.item[wrong], -sure[wrong]))]
        kept = order[:most]
        more = int(np.sum(sure[order[most:]] == sure[kept[-1]])) if len(kept) else 0
        return [
            Wrong(int(i), self.label[i], answer[i], float(sure[i]), int(off[:, i].sum()))
            for i in kept
        ], more


@dataclass(frozen=True)
class Wrong:
    """An example that is answered wrongly.

    Attributes:
        place: among the examples.
        label, answer: classes or values; the answer is that of the runs' mean.
        sure: probability of the answer, or the absolute residual.
        runs: that are wrong on it alone; of values all.
    """

    place: int
    label: Any
    answer: Any
    sure: float
    runs: int


@dataclass(frozen=True)
class Part:
    """Some of the examples.

    Attributes:
        name: as a column's head.
        where: (examples,) which ones.
    """

    name: str
    where: NDArray[np.bool_]


def by_class(label: NDArray[np.generic], names: Sequence[str]) -> list[Part]:
    """A part for each class, one without examples too."""
    return [Part(name, label == number) for number, name in enumerate(names)]


def by_quantile(values: NDArray[Any], bins: int) -> list[Part]:
    """Parts of about equal counts; equal values share one, so that there may be fewer.

    A part that would be empty is not made.
    """
    edges = np.quantile(values.astype(np.float64), np.linspace(0, 1, bins + 1)[1:-1])
    number = np.searchsorted(np.unique(edges), values, side="left")
    found = []
    for place in np.unique(number):
        where = number == place
        low, high = values[where].min(), values[where].max()
        found.append(Part(f"{low:g}" if low == high else f"{low:g} to {high:g}", where))
    return found


def by_column(values: Sequence[Any], bins: int) -> list[Part]:
    """Parts of any column: by its values, the rarest together; of many numbers by quantile.

    Empty values are a part of their own.
    """
    texts = ["" if value is None else str(value).strip() for value in values]
    empty = np.array([not text for text in texts])
    kinds = Counter(text for text in texts if text)
    numbers = _numbers(texts) if len(kinds) > _MOST else None
    if numbers is not None:
        there = np.flatnonzero(~empty)
        parts = []
        for part in by_quantile(numbers[there], bins):
            where = np.zeros(len(texts), dtype=bool)
            where[there] = part.where
            parts.append(Part(part.name, where))
    else:
        shown = [name for name, _ in sorted(kinds.items(), key=lambda one: (-one[1], one[0]))]
        shown = shown if len(shown) <= _MOST else shown[: _MOST - 1]
        named = np.array(texts)
        parts = [Part(name, named == name) for name in sorted(shown)]
        rest = ~empty & ~np.isin(named, shown)
        if rest.any():
            parts.append(Part(f"{len(kinds) - len(shown)} others", rest))
    return [*parts, *([Part("(empty)", empty)] if empty.any() else [])]


def _numbers(texts: list[str]) -> Floats | None:
    """The column as numbers, an empty text as 0; None if one is no finite number."""
    try:
        found = np.array([float(text or 0) for text in texts])
    except ValueError:
        return None
    return found if np.isfinite(found).all() else None
