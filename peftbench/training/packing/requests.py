"""What the trainings of a pack want computed.

A packed training is a generator (`runner.drive`): it yields a `Gradient` or `Outputs` and is sent
the answer. `pack` answers many of them in one pass.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

from peftbench.data.batching import Batch
from peftbench.data.tokenization import TokenizedSplit
from peftbench.training.predictor import Predictor

T = TypeVar("T")

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class GradientRequest:
    """The mean loss of a batch is wanted, and its gradients in the parameters' `grad`.

    Attributes:
        view: whose encoder and method are meant.
        batch: on the CPU.
        micro: examples for each pass; None is the whole batch.
    """

    view: Predictor
    batch: Batch
    micro: int | None


@dataclass(frozen=True)
class PredictRequest:
    """What `view.predict(tokens, rows)` gives is wanted."""

    view: Predictor
    tokens: TokenizedSplit
    rows: np.ndarray


ForwardRequest = GradientRequest | PredictRequest
Answer = Tensor | Arrays

#: A training that ends with a T.
ForwardRequests = Generator[ForwardRequest, "Answer", T]


def compute(ask: ForwardRequest) -> Answer:
    """The answer to one request, for itself."""
    if isinstance(ask, PredictRequest):
        return ask.view.predict(ask.tokens, ask.rows)
    return ask.view.gradients(ask.batch, ask.micro)
