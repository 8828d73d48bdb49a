"""Faster dropout and attention on a CPU, with the distribution of dropout.

Dropout masks are cut from 16-bit words (torch draws a float for each element), and attention keeps
its probabilities for the backward pass (torch's fused CPU kernel does not take dropout).
`scripts/bench_step.py` measures a step without each of them.

In bf16 what is kept is multiplied by 1 / (1 - p) rounded to bf16, for p = 0.1 by 1.109375: 0.16 %
less, where torch rounds the product. The expectation in training is that much smaller.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward


def dropout_mask(shape: torch.Size, p: float, scale: float) -> Tensor:
    """A bf16 tensor that is 0 with probability p, else `scale` rounded to bf16.

    Each element compares 16 random bits with a threshold: p is rounded to a multiple of 2^-16.
    """
    count = shape.numel()
    words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    threshold = -32768 + round(p * 65536)
    bits = int(torch.tensor(scale, dtype=torch.bfloat16).view(torch.int16))
    drawn = words.view(torch.int16)[:count].clamp_(threshold - 1, threshold)  # now two values
    offset = torch.tensor((-(threshold - 1) * bits + 32768) % 65536 - 32768, dtype=torch.int16)
    torch.add(offset, drawn, alpha=bits, out=drawn)  # int16 wraps around to 0 and `bits`
    return drawn.view(torch.bfloat16).view(shape)


class _DropoutMask(torch.autograd.Function):
    """`dropout_mask` of a tensor's shape; of each run its own where several are stacked."""

    @staticmethod
    def forward(x: Tensor, p: float, scale: float) -> Tensor:
        return dropout_mask(x.shape, p, scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None]:
        return None, None, None

    @staticmethod
    def vmap(info: Any, dims: Any, x: Tensor, p: float, scale: float) -> tuple[Tensor, int]:
        return _DropoutMask.apply(x, p, scale), dims[0]


class Dropout(nn.Dropout):
    """Inverted dropout with `dropout_mask`."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, bf16 or fp32."""
        if not self.training or self.p in (0.0, 1.0) or x.dtype not in _FAST:
            return super().forward(x)
        if x.dtype == torch.bfloat16:
            return x * _DropoutMask.apply(x, self.p, 1 / (1 - self.p))
        return x * _DropoutMask.apply(x, self.p, 1.0) * (1 / (1 - self.p))


_FAST = (torch.bfloat16, torch.float32)


def hasten(module: nn.Module) -> None:
    """Replace the dropouts inside a module by those of this file."""
    replaced: dict[nn.Module, nn.Module] = {}  # one dropout may stand in several places
    for name, inner in list(module.named_modules(remove_duplicate=False)):
        if name and type(inner) is nn.Dropout and not inner.inplace:
            if inner not in replaced:
                replaced[inner] = Dropout(inner.p).train(inner.training)
            module.set_submodule(name, replaced[inner], strict=True)


#: Private, so a torch may come without it: then the formula below takes its place.
_FUSED_SOFTMAX_BACKWARD = getattr(torch, "_softmax_backward_data", None)


def _softmax_backward(grad: Tensor, probabilities: Tensor) -> Tensor:
    """Return the gradient of a softmax over the last dimension with respect to its input, in fp32.

    Without torch's fused kernel the values are the same within rounding, and two more tensors of
    this size are written.
    """
    if _FUSED_SOFTMAX_BACKWARD is not None:
        found: Tensor = _FUSED_SOFTMAX_BACKWARD(grad, probabilities, -1, torch.float32)
        return found
    weighted = grad * probabilities
    return weighted - probabilities * weighted.sum(-1, keepdim=True)


class _Attention(torch.autograd.Function):
    """softmax(q k' / sqrt d + mask) v with dropout, on bf16; probabilities in fp32.

    The mask may train: relative positions are added with it.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, p: float
    ) -> Tensor:
        batch, heads, tokens, dim = q.shape
        q = (q * scale).reshape(batch * heads, tokens, dim)
        k, v = (x.reshape(batch * heads, -1, dim) for x in (k, v))
        scores = torch.bmm(q, k.transpose(1, 2))
        if mask is not None:
            scores.view(batch, heads, tokens, -1).add_(mask)
        attended = torch.softmax(scores, -1, dtype=torch.float32)
        kept, dropped = attended.to(q.dtype), None
        if p > 0:
            dropped = dropout_mask(scores.shape, p, 1 / (1 - p))
            kept = kept.mul_(dropped)
        ctx.save_for_backward(q, k, v, attended, kept, dropped)
        ctx.scale, ctx.mask = scale, None if mask is None else (mask.shape, mask.dtype)
        return torch.bmm(kept, v).view(batch, heads, tokens, dim).transpose(1, 2).contiguous()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, attended, kept, dropped = ctx.saved_tensors
        batch, tokens, heads, dim = grad.shape
        four = (batch, heads, -1, dim)
        grad = grad.transpose(1, 2).reshape(batch * heads, tokens, dim)
        to_v = torch.bmm(kept.transpose(1, 2), grad) if ctx.needs_input_grad[2] else None
        to_attended = torch.bmm(grad, v.transpose(1, 2))
        if dropped is not None:
            to_attended.mul_(dropped)
        to_scores = _softmax_backward(to_attended.float(), attended)
        to_mask = None
        if ctx.needs_input_grad[3]:
            shape, dtype = ctx.mask
            to_mask = to_scores.view(batch, heads, tokens, -1).sum_to_size(shape).to(dtype)
        to_scores = to_scores.to(q.dtype)
        to_q = torch.bmm(to_scores, k).mul_(ctx.scale) if ctx.needs_input_grad[0] else None
        to_k = torch.bmm(to_scores.transpose(1, 2), q) if ctx.needs_input_grad[1] else None
        found = (None if g is None else g.view(four) for g in (to_q, to_k, to_v))
        return (*found, to_mask, None, None)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention interface: (batch, heads, tokens, dim) in, heads and tokens swapped.

    What is not bf16 with as many keys' as queries' heads goes to transformers' own kernel.
    """
    alike = query.dtype == key.dtype == value.dtype == torch.bfloat16
    if not alike or query.shape[1] != key.shape[1] or rest.get("position_bias") is not None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal=False, **rest
        )
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        least = torch.finfo(torch.bfloat16).min
        attention_mask = torch.zeros(attention_mask.shape, dtype=torch.bfloat16).masked_fill_(
            ~attention_mask, least
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    with torch.autocast("cpu", enabled=False):
        return _Attention.apply(query, key, value, attention_mask, scale, dropout), None
