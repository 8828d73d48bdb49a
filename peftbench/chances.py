"""Draws of means over seeds, for the chance that a row is the best of several."""

import math
import statistics
from collections.abc import Callable

import numpy as np

from peftbench.comparison import DRAWS, Resamples
from peftbench.inference import Floats
from peftbench.run import Record
from peftbench.stacked import Load

Draw = Callable[[list[Record], list[float]], Floats]


def seeds_alone(members: list[Record], scores: list[float]) -> Floats:
    """Means over seeds, by Student's t around the one that was found."""
    mine = np.random.default_rng(int(members[0].run.key, 16))  # rows are drawn independently
    error = statistics.stdev(scores) / math.sqrt(len(scores))
    drawn: Floats = statistics.fmean(scores) + error * mine.standard_t(len(scores) - 1, DRAWS)
    return drawn


def seeds_and_examples(near: list[Record], load: Load) -> Draw:
    """The same, around the mean on resamples of the examples, which all rows share."""
    told = Resamples(load).of(near)

    def drawn(members: list[Record], scores: list[float]) -> Floats:
        on_examples = told.drawn[:, told.places(members)].mean(axis=1)
        on_examples = np.where(np.isfinite(on_examples), on_examples, -np.inf)
        around: Floats = seeds_alone(members, scores) - statistics.fmean(scores)
        return on_examples + around

    return drawn


def best(drawn: list[Floats]) -> list[float]:
    """How often each of several rows has the highest of (rows, draws)."""
    rows = np.stack(drawn)
    return [float(c) / rows.shape[1] for c in np.bincount(rows.argmax(axis=0), minlength=len(rows))]
