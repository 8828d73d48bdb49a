"""What the trainings of a pack want computed.

A packed training is a generator (`runner.drive`): it yields a step or predictions and is sent the
answer. `pack` answers many of them in one pass.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

from peftbench.core.arrays import Arrays
from peftbench.data.batching import Batch
from peftbench.data.tokenization import TokenizedSplit
from peftbench.training.loop import Training

T = TypeVar("T")


@dataclass(frozen=True)
class StepRequest:
    """An optimizer step is wanted; the answer is the batch's mean loss, a scalar on the device.

    Attributes:
        training: whose parameters are meant.
        batch: on the CPU.
        micro: examples for each pass; None is the whole batch.
    """

    training: Training
    batch: Batch
    micro: int | None


@dataclass(frozen=True)
class PredictRequest:
    """What `training.predictor.predict(tokens, rows)` gives is wanted."""

    training: Training
    tokens: TokenizedSplit
    rows: np.ndarray


ForwardRequest = StepRequest | PredictRequest
Answer = Tensor | Arrays

#: A training that ends with a T.
ForwardRequests = Generator[ForwardRequest, "Answer", T]


def compute(ask: ForwardRequest) -> Answer:
    """The answer to one request, for itself."""
    predictor = ask.training.predictor
    if isinstance(ask, PredictRequest):
        return predictor.predict(ask.tokens, ask.rows)
    return ask.training.update(predictor.gradients(ask.batch, ask.micro))
