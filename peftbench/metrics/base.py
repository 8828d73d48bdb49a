"""What a metric declares, and parts that several share."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A score of predictions against labels, higher is better.

    Attributes:
        name: in `task.metrics` and in records.
        about: one line for lists.
        compute: the score of `(examples,)` predictions and labels; None where it is undefined.
        resampled: the same of `(runs, examples)` predictions on each of many resamples, as
            `(resamples, runs)`, not a number where undefined. Takes the labels, and how often each
            example is in a resample, `(resamples, examples)`. None computes one after the other.
        kinds: kinds of tasks that it scores: classification, regression.
        classes: how many classes a task must have; None is any number.
    """

    name: str
    about: str
    compute: Callable[[Array, Array], float | None]
    resampled: Callable[[Array, Array, Floats], Floats] | None = None
    kinds: tuple[str, ...]
    classes: int | None = None

    def on_resamples(self, predicted: Array, label: Array, counts: Floats) -> Floats:
        """The score of each run on each resample, see `resampled`."""
        if self.resampled is not None:
            with np.errstate(invalid="ignore", divide="ignore"):
                return self.resampled(predicted, label, counts)
        items = [np.repeat(np.arange(len(label)), count.astype(np.int64)) for count in counts]
        scores = [[self.compute(one[here], label[here]) for one in predicted] for here in items]
        return np.array(scores, dtype=np.float64)  # None becomes not a number


def is_constant(values: Array) -> bool:
    """Constant up to rounding: a collapsed regression still wobbles in its last digits."""
    if values.dtype.kind in "iub":
        return bool(np.all(values == values[0]))
    spread = float(np.ptp(values.astype(np.float64)))
    return spread <= 1e-6 * max(1.0, float(np.abs(values).max()))


def weighted_sums(counts: Floats, values: Array) -> Floats:
    """Sums over examples of (runs, examples) values, or of (examples,) ones, by resample."""
    found: Floats = counts @ np.atleast_2d(values).astype(np.float64).T
    return found
