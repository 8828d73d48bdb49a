"""Attention with learned keys and values in front of a block's own.

Transformers calls one function, `attention`, for every family whose attention it has unified. A
module that carries a `prefix` gets its keys and values extended there, after rotations and other
positional work, so that a prefix has no position. DeBERTa computes its attention itself; there a
prefix takes part in the content-to-content term alone:

    score(i, prefix j) = q_i . p_j / sqrt(dim * terms)

since the relative distance of a token to a prefix is not defined.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C._functorch import is_batchedtensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.deberta_v2.modeling_deberta_v2 import (
    DisentangledSelfAttention,
    scaled_size_sqrt,
)

from peftbench.models import cpu_kernels
from peftbench.models.mapped_function import MappedFunction

#: The name under which transformers finds `attention`.
NAME = "peftbench"


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **rest: Any,
) -> tuple[Tensor, Tensor | None]:
    """Transformers' attention interface: (batch, heads, tokens, dim) in, heads and tokens swapped.

    All masks are made ready: what a causal model may see is said there, never by a flag, so that
    a prefix is seen by all. A prefix of the module is (2, length, dim) or (2, batch, length, dim),
    all heads side by side.
    """
    if attention_mask is None and getattr(module, "is_causal", False):
        raise ValueError("a causal model needs its mask made ready; see peftbench/data/batching.py")
    if getattr(module, "prefix", None) is not None:
        keys, values = (_heads(p, key) for p in _gated(module).unbind())
        key = torch.cat([keys, key], dim=2)
        value = torch.cat([values, value], dim=2)
        attention_mask = _extended(attention_mask, keys.shape[2])
    if any(t is not None and is_batchedtensor(t) for t in (query, key, value, attention_mask)):
        out: Tensor = _Folded.apply(module, rest, query, key, value, attention_mask)
        return out, None
    return _attend(module, query, key, value, attention_mask, **rest)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **rest: Any
) -> tuple[Tensor, Tensor | None]:
    if query.device.type == "cpu":
        return cpu_kernels.attention(module, query, key, value, mask, **rest)
    rest.setdefault("is_causal", False)
    return sdpa_attention_forward(module, query, key, value, mask, **rest)


class _Folded(MappedFunction):
    """Attention of runs that torch.func maps over: to a kernel they are one larger batch.

    Kernels have no such rule of their own on every device.
    """

    @staticmethod
    def vmap(
        info: Any, dims: Any, module: nn.Module, rest: Any, *tensors: Tensor | None
    ) -> tuple[Tensor, int]:
        runs = info.batch_size
        pairs = zip(tensors, dims[2:], strict=True)
        query, key, value, mask = (_together(t, dim, runs) for t, dim in pairs)
        assert query is not None
        assert key is not None
        assert value is not None
        out, _ = _attend(module, query, key, value, mask, **rest)
        return out.unflatten(0, (runs, -1)), 0


def _together(x: Tensor | None, dim: int | None, runs: int) -> Tensor | None:
    """The run axis folded into the batch; what all runs share is repeated."""
    if x is None:
        return None
    stacked = x.expand(runs, *x.shape) if dim is None else x.movedim(dim, 0)
    return stacked.flatten(0, 1)


def mask(*given: Any, **named: Any) -> Tensor | None:
    """Transformers' mask for families that make their own, never left out for what is in it.

    To look whether anything is padded would wait for a GPU, and runs in a pack may differ in it.
    """
    made: Tensor | None = sdpa_mask(*given, **named | {"allow_is_bidirectional_skip": False})
    return made


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, mask)


def admit(part: nn.Module, model: str) -> None:
    """Make an attention ready for a prefix.

    Raises:
        ValueError: if it neither calls `attention` nor is DeBERTa's.
    """
    if isinstance(part, DisentangledSelfAttention):
        part.__class__ = PrefixedDisentangled
    elif getattr(part, "takes_prefix", False):  # it calls `attention`, unknown to transformers
        return
    elif getattr(getattr(part, "config", None), "_attn_implementation", None) != NAME:
        raise ValueError(f"{model} has no attention that takes a prefix; choose another method")


class PrefixedDisentangled(DisentangledSelfAttention):
    """DeBERTa's attention with a prefix in the content-to-content term."""

    prefix: Tensor

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        output_attentions: bool = False,
        query_states: Tensor | None = None,
        relative_pos: Tensor | None = None,
        rel_embeddings: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """As the parent's; shapes inside are (batch * heads, tokens, dim)."""
        heads, batch = self.num_attention_heads, len(hidden_states)
        query_states = hidden_states if query_states is None else query_states
        q = self.transpose_for_scores(self.query_proj(query_states), heads)
        k = self.transpose_for_scores(self.key_proj(hidden_states), heads)
        v = self.transpose_for_scores(self.value_proj(hidden_states), heads)
        four = k.view(batch, heads, *k.shape[1:])
        keys, values = (_heads(p, four).flatten(0, 1) for p in _gated(self).unbind())
        length = keys.shape[1]
        terms = 1 + ("c2p" in self.pos_att_type) + ("p2c" in self.pos_att_type)
        scale = scaled_size_sqrt(q, terms).to(q.dtype)
        scores = torch.bmm(q, torch.cat([keys, k], dim=1).transpose(1, 2) / scale)
        if self.relative_attention:
            relative = self.pos_dropout(rel_embeddings)
            bias = self.disentangled_attention_bias(q, k, relative_pos, relative, terms)
            scores = scores + F.pad(bias, (length, 0))
        scores = scores.view(batch, heads, *scores.shape[1:])
        mask = _extended(attention_mask.bool(), length)
        assert mask is not None
        scores = scores.masked_fill(~mask, torch.finfo(q.dtype).min)
        attended = self.dropout(scores.softmax(dim=-1)).flatten(0, 1)
        out = torch.bmm(attended, torch.cat([values, v], dim=1))
        out = out.view(batch, heads, *out.shape[1:]).transpose(1, 2).flatten(2)
        return out, attended if output_attentions else None


def _gated(module: nn.Module) -> Tensor:
    """A module's prefix; where it has a `prefix_gate` (batch,), times that of each example."""
    prefix: Any = module.prefix
    gate: Tensor | None = getattr(module, "prefix_gate", None)
    if gate is None:
        return prefix
    whole = prefix if prefix.ndim == 4 else prefix[:, None]
    return whole * gate[:, None, None]


def _heads(prefix: Tensor, like: Tensor) -> Tensor:
    """A prefix ([batch,] length, dim) as (batch, heads, length, dim of a head) of a key's kind."""
    batch, heads, _, dim = like.shape
    prefix = prefix.to(like.dtype).unflatten(-1, (heads, dim)).transpose(-2, -3)
    return prefix.expand(batch, *prefix.shape[-3:])


def _extended(mask: Tensor | None, length: int) -> Tensor | None:
    """A mask (batch, 1, 1 or tokens, tokens) that lets every token see the prefix."""
    if mask is None:
        return None
    return F.pad(mask, (length, 0), value=True if mask.dtype == torch.bool else 0.0)
