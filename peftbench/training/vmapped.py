"""A method's own loss and predictions for several runs at once, mapped over a run axis.

A product with a frozen matrix, which all runs share, becomes one large product, one with trained
matrices a batched one.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_map

from peftbench.data.batching import Batch
from peftbench.models.adapted_model import AdaptedModel
from peftbench.training.predictor import Predictor


class _Call(nn.Module):
    """One model with the tensors of another, as torch.func wants to call it."""

    def __init__(self, model: AdaptedModel, what: Callable[[Any, Batch], Any]):
        super().__init__()
        self.model = model
        self.what = what

    def forward(self, batch: Batch, examples: Tensor) -> Any:
        """What `what` makes of a batch."""
        before, self.model.examples = self.model.examples, examples
        try:
            return self.what(self.model, batch)
        finally:
            self.model.examples = before


def mapped(
    predictor: Predictor,
    tensors: dict[str, Tensor],
    examples: Tensor,
    what: Callable[[Any, Batch], Any],
) -> Callable[[Batch], Any]:
    """A function of stacked batches that calls `what` for each run with its tensors.

    Args:
        predictor: whose model computes for all runs; they are alike but for values.
        tensors: what is a run's own, by name, with a run axis in front.
        examples: that each run trains on, (runs,).
        what: takes a model and a batch.
    """
    call = _Call(predictor.model, what)

    def one(own: dict[str, Tensor], batch: Batch, examples: Tensor) -> Any:
        named = {f"model.module.{name}": tensor for name, tensor in own.items()}
        return functional_call(call, named, (batch, examples))

    if len(examples) == 1:  # as it is, which needs fewer kernels

        def alone(batch: Batch) -> Any:
            own, rows = ({n: t[0] for n, t in given.items()} for given in (tensors, batch))
            return tree_map(lambda found: found[None], one(own, rows, examples[0]))

        return alone
    each = vmap(one, randomness="different")
    return lambda batch: each(tensors, batch, examples)
