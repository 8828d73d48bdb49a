"""Out-of-fold predictions: what each candidate predicts for rows that it was not trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from peftbench.core.arrays import Floats

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of several candidates for the same rows.

    Attributes:
        label: (rows,) classes.
        group: (rows,) numbers of what is no independent row: near duplicates, groups of the user.
        constant: (repeats, rows, classes) shares of the classes in the training folds of each row,
            the constant prediction.
        probability: by candidate (repeats, rows, classes).
        seconds: by candidate those of each training with the choice of its rate; a candidate that
            is not there has none that are known.
    """

    label: Ints
    group: Ints
    constant: Floats
    probability: Mapping[str, Floats]
    seconds: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.label)

    def right(self, name: str) -> Floats:
        """(repeats, rows) 1 where the class is the label, else 0."""
        return (self.probability[name].argmax(axis=2) == self.label).astype(np.float64)

    def beside(self, other: "OutOfFold") -> "OutOfFold":
        """These candidates and those of another table of the same rows."""
        return OutOfFold(
            self.label,
            self.group,
            self.constant,
            {**self.probability, **other.probability},
            {**self.seconds, **other.seconds},
        )
