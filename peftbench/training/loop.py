"""The training loop, of runs alone and of runs in a pack. It knows no method by name.

The loop is a generator: it yields each optimizer step and each prediction that it wants and is
sent the answer. `run_alone` computes them one after the other; `packing` computes those of several
trainings in one pass.
"""

import traceback
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

from peftbench.core.arrays import Arrays
from peftbench.core.run import Json
from peftbench.data.batching import Batch
from peftbench.data.tokenization import TokenizedSplit
from peftbench.training.session import Training

T = TypeVar("T")


@dataclass(frozen=True)
class StepRequest:
    """An optimizer step is wanted.

    Attributes:
        training: whose parameters are meant.
        batch: on the CPU.
    """

    training: Training
    batch: Batch

    @property
    def micro(self) -> int | None:
        """Examples for each pass; None is the whole batch."""
        return self.training.config.micro_batch_size

    def compute(self) -> Tensor:
        """Take the step; the batch's mean loss, a scalar on the device."""
        return self.training.take_step(self.batch)


@dataclass(frozen=True)
class PredictRequest:
    """Outputs on rows of a split are wanted, see `Predictor.predict`."""

    training: Training
    tokens: TokenizedSplit
    rows: np.ndarray

    def compute(self) -> Arrays:
        """The outputs."""
        return self.training.predictor.predict(self.tokens, self.rows)


Request = StepRequest | PredictRequest
Answer = Tensor | Arrays

#: What is computed on request and ends with a T.
Requests = Generator[Request, Answer, T]


def fit(training: Training, evaluate: Callable[[], Requests[Json]]) -> Requests[None]:
    """Train to the end of the budget; with one of 0 steps evaluate the model as it is.

    Args:
        training: new, or restored from a checkpoint.
        evaluate: scores of the model as it is, on the split that the curve follows.

    Raises:
        FloatingPointError: at a loss that is not finite, with its step.
        TrainingInterrupted: when a callback asks for it; the checkpoint is written.
        torch.OutOfMemoryError: when the micro-batch is too large.
    """
    while not training.done:
        if training.steps == 0:
            training.evaluation_due = True
        else:
            batch = training.next_batch()
            loss = yield StepRequest(training, batch)
            assert isinstance(loss, Tensor)
            training.advance(batch, loss)
        if training.evaluation_due:
            with training.evaluating():
                scores = yield from evaluate()
            training.add_evaluation(scores)
        training.checkpoint_if_due()
    training.finish()


def run_alone(requests: Requests[T]) -> T:
    """Compute each request by itself, to the end; raises what the requests raise."""
    try:
        request = next(requests)
        while True:
            try:
                answer = request.compute()
            except Exception as error:
                release(error)
                request = requests.throw(error)
            else:
                request = requests.send(answer)
    except StopIteration as end:
        return end.value


def release(error: Exception) -> None:
    """Let go of the tensors of a pass that failed: what is tried next needs their memory."""
    traceback.clear_frames(error.__traceback__)
