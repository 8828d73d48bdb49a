"""Predictions of several runs on the same examples, as one array."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peftbench.core.errors import RecordError
from peftbench.core.run import Record

#: Reads the predictions of a record.
Load = Callable[[Record], dict[str, np.ndarray]]


@dataclass(frozen=True)
class PredictionMatrix:
    """What runs said of the examples of one reporting split.

    Attributes:
        label: (examples,) classes or values.
        scores: (runs, examples, classes) log odds or log probabilities, or (runs, examples, 1)
            values; fp64.
        variance: (runs, examples) of values by methods that sample; 0 where one does not.
    """

    label: NDArray[np.generic]
    scores: NDArray[np.float64]
    variance: NDArray[np.float64]


#: Runs without predictions that are named; the others are counted.
_NAMED = 3


def readable(records: list[Record], load: Load) -> tuple[list[Record], list[str]]:
    """The records whose predictions can be read, for tests, and a line on each of the others."""
    good, bad = [], []
    for record in records:
        try:
            load(record)
            good.append(record)
        except RecordError as error:
            bad.append(f"left out of tests, predictions of {record.run.key} unreadable: {error}")
    more = [f"left out of tests likewise: {len(bad) - _NAMED} more runs"]
    return good, [*bad[:_NAMED], *(more if len(bad) > _NAMED else [])]


def stacked(records: list[Record], load: Load) -> PredictionMatrix:
    """The predictions of runs on one task.

    Raises:
        RecordError: if two of them are not of the same examples in the same order.
    """
    found = [load(record) for record in records]
    first = found[0]
    for record, arrays in zip(records, found, strict=True):
        for name in ("item", "label"):
            if not np.array_equal(arrays[name], first[name]):
                raise RecordError(
                    f"predictions of {records[0].run.key} and {record.run.key} are of other "
                    f"examples ({name}); were they run on other data?"
                )
    scores = np.stack([arrays["scores"] for arrays in found]).astype(np.float64)
    none = np.zeros(len(first["label"]))
    variance = np.stack([arrays.get("variance", none) for arrays in found]).astype(np.float64)
    return PredictionMatrix(first["label"], scores, variance)
