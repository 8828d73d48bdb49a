"""Scores of texts that a model was not trained on, where its own record has none."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class HeldOutScores:
    """Scores that describe a model which was trained on its validation texts too.

    Attributes:
        scores: (texts, classes) logits for the validation texts, by other models.
        label: (texts,) classes.
        metrics: of these scores.
        source: how they were made.
    """

    scores: np.ndarray
    label: np.ndarray
    metrics: Mapping[str, float | None]
    source: str
