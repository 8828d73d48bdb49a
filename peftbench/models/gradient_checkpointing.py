"""Blocks that keep their input alone; the backward pass computes the rest again.

Chen, Xu, Zhang and Guestrin: Training deep nets with sublinear memory cost, 2016, arXiv 1604.06174.
Gradients are the same bits: dropout draws again what it drew. Transformers offers this for some
families only (not for ALBERT and MPNet), and does not know that an attention's prefix is an input.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

from torch import Tensor, is_grad_enabled, nn
from torch.utils.checkpoint import checkpoint

from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.module_ops import set_unregistered


def recompute_blocks(model: AdaptedModel) -> None:
    """Let the blocks of a model compute their activations again in the backward pass."""
    blocks: Any = model.blocks
    for block, attention in zip(blocks, model.each("attention"), strict=True):
        kind: Any = type(block)
        block.__class__ = _recomputed(kind)
        set_unregistered(block, "prefixed", attention)
        block.meter = None


@contextmanager
def metered(model: AdaptedModel, total: Callable[[], int]) -> Iterator[list[int]]:
    """By how much a total grows each time that a block is computed again.

    Args:
        model: whose blocks need not be computed again.
        total: the count so far, such as of FLOPs.
    """
    grown: list[int] = []
    blocks = [block for block in model.blocks if isinstance(block, _Recomputed)]
    for block in blocks:
        block.meter = (total, grown)
    try:
        yield grown
    finally:
        for block in blocks:
            block.meter = None


class _Recomputed(nn.Module):
    """A block; its own class comes next in the order of bases."""

    prefixed: Any
    meter: tuple[Callable[[], int], list[int]] | None

    def forward(self, *given: Any, **named: Any) -> Any:
        """What the block computes."""
        if not (self.training and is_grad_enabled()):
            return super().forward(*given, **named)
        return checkpoint(
            self._with_prefix,
            getattr(self.prefixed, "prefix", None),
            *given,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), self._again()),
            **named,
        )

    def _with_prefix(self, prefix: Tensor | None, *given: Any, **named: Any) -> Any:
        """The block with this pass's prefix: another pass may have been made since."""
        if prefix is not None:
            self.prefixed.prefix = prefix
        return super().forward(*given, **named)

    @contextmanager
    def _again(self) -> Iterator[None]:
        if self.meter is None:
            yield
            return
        total, grown = self.meter
        before = total()
        try:
            yield
        finally:
            grown.append(total() - before)


@cache
def _recomputed(kind: type[nn.Module]) -> type[nn.Module]:
    return type(f"Recomputed{kind.__name__}", (_Recomputed, kind), {})
