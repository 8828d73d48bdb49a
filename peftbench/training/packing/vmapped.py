"""One pass for several runs: what they train is stacked along a run axis, the frozen is shared.

torch.func maps the method's own loss and predictions over that axis. A product with a frozen matrix
becomes one large product, one with trained matrices a batched one.

    losses = vmap(loss)(stacked, batches)        gradients of sum(losses) are each run's own
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from peftbench.data.batching import Batch, micro_batches, widened
from peftbench.training.packing.requests import (
    Answer,
    Arrays,
    GradientRequest,
    PredictRequest,
)
from peftbench.training.predictor import Predictor, require_finite


class _Call(nn.Module):
    """One encoder with the tensors of another, as torch.func wants to call it."""

    def __init__(self, view: Predictor, what: Callable[[Any, Batch], Any]):
        super().__init__()
        self.encoder = view.encoder
        self.what = what

    def forward(self, batch: Batch, examples: Tensor) -> Any:
        """What the view's method makes of a batch."""
        before, self.encoder.examples = self.encoder.examples, examples
        try:
            return self.what(self.encoder, batch)
        finally:
            self.encoder.examples = before


def _mapped(
    views: list[Predictor], tensors: dict[str, Tensor], what: Callable[[Any, Batch], Any]
) -> Callable[[Batch], Any]:
    """A function of stacked batches that calls `what` for each run with its tensors."""
    call = _Call(views[0], what)
    examples = torch.tensor([float(v.encoder.examples) for v in views], device=views[0].device)

    def one(own: dict[str, Tensor], batch: Batch, examples: Tensor) -> Any:
        named = {f"encoder.module.{name}": tensor for name, tensor in own.items()}
        return functional_call(call, named, (batch, examples))

    each = vmap(one, randomness="different")
    return lambda batch: each(tensors, batch, examples)


def together(asks: list[Any], own: list[dict[str, Tensor]]) -> list[Answer | Exception]:
    """Answers to asks of one kind, in one pass; nothing changes where it raises."""
    views = [ask.view for ask in asks]
    stacked = {name: torch.stack([one[name].detach() for one in own]) for name in own[0]}
    if isinstance(asks[0], PredictRequest):
        views[0].encoder.eval()
        each = _mapped(views, stacked, views[0].method.predict)

        def outputs(batch: Batch) -> dict[str, Tensor]:
            found: dict[str, Tensor] = each(
                {name: t.expand(len(asks), *t.shape) for name, t in batch.items()}
            )
            return found

        found = views[0].outputs(asks[0].tokens, asks[0].rows, outputs, len(asks))
        return [_finite(one) for one in found]
    names = [name for name, tensor in own[0].items() if tensor.requires_grad]
    for name in names:
        stacked[name].requires_grad_()
    each = _mapped(views, stacked, views[0].method.compute_loss)
    total, size = torch.zeros(len(asks), device=views[0].device), len(asks[0].batch["labels"])
    grads: list[Tensor | None] = [None] * len(names)
    for micro in micro_batches(_stacked(asks), asks[0].micro or size, axis=1):
        moved = {name: t.to(views[0].device, non_blocking=True) for name, t in micro.items()}
        with views[0].accelerator.autocast():
            losses = each(moved) * (micro["labels"].shape[1] / size)
        wanted = [stacked[name] for name in names]
        new = torch.autograd.grad(losses.sum(), wanted, allow_unused=True)
        grads = [
            b if a is None else a if b is None else a + b for a, b in zip(grads, new, strict=True)
        ]
        total += losses.detach()
    for name, grad in zip(names, grads, strict=True):
        if grad is not None:  # laid out as its parameter: a fused optimizer does not look
            for one, part in zip(own, grad.contiguous(), strict=True):
                one[name].grad = part
    return [*total]


def _finite(outputs: Arrays) -> Answer | Exception:
    """The outputs of one run, or that they are not finite: the others of the pass go on."""
    try:
        return require_finite(outputs)
    except FloatingPointError as error:
        return error


def _stacked(asks: list[GradientRequest]) -> Batch:
    """Their batches with a run axis in front, padded to the longest."""
    length = max(ask.batch["input_ids"].shape[1] for ask in asks)
    wide = [widened(ask.batch, length, ask.view.padding) for ask in asks]
    return {name: torch.stack([batch[name] for batch in wide]) for name in wide[0]}
