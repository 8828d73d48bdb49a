"""What a metric declares, and parts that several share."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from peftbench.core.arrays import Array, Floats

#: Values with less than this share of the labels' standard deviation are one value. Of the runs of
#: STS-B in results/ those that predict the same for every text have at most 0.007 and correlations
#: of up to 0.4 with it; others have at least 0.013, most of them more than 0.1.
FLAT = 0.01

#: Area under the ROC curve of a constant prediction.
CONSTANT_AUC = 0.5


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure of predictions against labels, mostly one of which more is better.

    Attributes:
        name: in `task.metrics` and in records.
        about: one line for lists and the page.
        title: what readers call it in tables and figures; None is its name.
        short: the same where there is little room; None is the title.
        compute: the score of `(examples,)` predictions and labels; None where it is undefined.
        resampled: the same of `(runs, examples)` predictions on each of many resamples, as
            `(resamples, runs)`, not a number where undefined. Takes the labels, and how often each
            example is in a resample, `(resamples, examples)`. None computes one after the other.
        kinds: kinds of tasks that it scores: classification, regression, generation.
        classes: how many classes a task must have; None is any number.
        instead: the metric that does the same for other numbers of classes.
        is_error: less is better, in the unit of the labels; it cannot be the score of a task.
        lowest: the lowest figure that is not an error; the highest is 1.
        column: of texts: where their predictions hold the scores of each by this metric; those are
            the predictions then, of which `compute` takes the mean.
        of_text: of texts: the score of one, given the text that was wanted and, for ROUGE, its
            tokenizer: `word_tokens.ASCII` or `UNICODE`.
    """

    name: str
    about: str
    title: str | None = None
    short: str | None = None
    compute: Callable[[Array, Array], float | None]
    resampled: Callable[[Array, Array, Floats], Floats] | None = None
    kinds: tuple[str, ...]
    classes: int | None = None
    instead: str | None = None
    is_error: bool = False
    lowest: float = 0.0
    column: int | None = None
    of_text: Callable[[str, str, str], float] | None = None

    @property
    def factor(self) -> float:
        """By which the figure is multiplied to be shown: shares in percent, errors as they are."""
        return 1.0 if self.is_error else 100.0

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest figure; errors have the unit of the labels and no highest."""
        return (0.0, math.inf) if self.is_error else (self.lowest, 1.0)

    def on_resamples(self, predicted: Array, label: Array, counts: Floats) -> Floats:
        """The score of each run on each resample, see `resampled`."""
        if self.resampled is not None:
            with np.errstate(invalid="ignore", divide="ignore"):
                return self.resampled(predicted, label, counts)
        items = [np.repeat(np.arange(len(label)), count.astype(np.int64)) for count in counts]
        scores = [[self.compute(one[here], label[here]) for one in predicted] for here in items]
        return np.array(scores, dtype=np.float64)  # None becomes not a number


def is_constant(values: Array, label: Array | None = None) -> bool:
    """Constant up to rounding: a collapsed regression still wobbles in its last digits.

    Args:
        values: predictions or labels.
        label: in whose unit the values are, which may be a small one; None for values about 1.
    """
    if values.dtype.kind in "iub":
        return bool(np.all(values == values[0]))
    spread = float(np.ptp(values.astype(np.float64)))
    least = 1.0 if label is None else float(np.abs(label).max())
    return spread <= 1e-6 * max(least, float(np.abs(values).max()))


def is_uninformative(predicted: Array, label: Array) -> bool:
    """Whether predictions are one class throughout, or values that hardly vary with the example.

    Args:
        predicted: (examples,) classes or values.
        label: (examples,) of the same kind.
    """
    if predicted.dtype.kind not in "iub":
        spread, own = (float(np.std(values.astype(np.float64))) for values in (predicted, label))
        if spread < FLAT * own:
            return True
    return is_constant(predicted, label)


@dataclass(frozen=True)
class ClassCounts:
    """How often one class is right, predicted and there, `(resamples, runs)` each."""

    hits: Floats
    predicted: Floats
    there: Floats


def class_counts(predicted: Array, label: Array, counts: Floats) -> list[ClassCounts]:
    """The counts of each class that occurs, by resample; see `Metric.resampled`."""
    found = []
    for kind in np.unique(np.concatenate([label, predicted.ravel()])):
        hits = weighted_sums(counts, (predicted == kind) & (label == kind))
        there = np.broadcast_to(weighted_sums(counts, label == kind), hits.shape)
        found.append(ClassCounts(hits, weighted_sums(counts, predicted == kind), there))
    return found


def mean_over_present(figures: list[Floats], present: list[Floats]) -> Floats:
    """Mean over classes of `(resamples, runs)` figures, of those that are present in a resample.

    Figures that are no number where their class is present count as 0.
    """
    there = np.stack(present) > 0
    filled = np.where(there, np.nan_to_num(np.stack(figures), posinf=0.0), 0.0)
    found: Floats = filled.sum(axis=0) / there.sum(axis=0)
    return found


def weighted_sums(counts: Floats, values: Array) -> Floats:
    """Sums over examples of (runs, examples) values, or of (examples,) ones, by resample."""
    found: Floats = counts @ np.atleast_2d(values).astype(np.float64).T
    return found
