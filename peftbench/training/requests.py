"""Passes through an encoder, as a training asks for them.

A training is a generator: it yields what it wants computed, a `Gradient` or `Outputs`, and is sent
the answer. Alone it gets each from `alone`; `pack` answers many in one pass.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from peftbench.data.batching import Batch, micro_batches
from peftbench.data.tokenization import Tokens
from peftbench.training.distributed import Peers
from peftbench.training.predictor import Predictor

T = TypeVar("T")

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Gradient:
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
class Outputs:
    """What `view.predict(tokens, rows)` gives is wanted."""

    view: Predictor
    tokens: Tokens
    rows: np.ndarray


Ask = Gradient | Outputs
Answer = Tensor | Arrays

#: A training that ends with a T.
Asking = Generator[Ask, "Answer", T]


def alone(training: Asking[T]) -> T:
    """Give a training all that it asks for, and return what it ends with."""
    try:
        ask = next(training)
        while True:
            try:
                answer = compute(ask)
            except Exception as error:  # it may know what to do, as where memory is short
                ask = training.throw(error)
            else:
                ask = training.send(answer)
    except StopIteration as end:
        found: T = end.value
        return found


def compute(ask: Ask) -> Answer:
    """The answer to one ask, for itself."""
    if isinstance(ask, Outputs):
        return ask.view.predict(ask.tokens, ask.rows)
    view, size = ask.view, len(ask.batch["labels"])
    total = torch.zeros((), device=view.device)
    peers = Peers(view.accelerator)
    for micro in micro_batches(peers.share(ask.batch), ask.micro or size):
        moved = {name: t.to(view.device, non_blocking=True) for name, t in micro.items()}
        with view.accelerator.autocast():
            loss = view.method.loss(view.encoder, moved) * (len(micro["labels"]) / size)
        view.accelerator.backward(loss)
        total += loss.detach()
    return total
