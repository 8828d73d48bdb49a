"""MPNet's blocks with the attention that other families have.

Song, Tan, Qin, Lu and Liu: MPNet, NeurIPS 2020, arXiv 2004.09297. A score depends on how far apart
two tokens are, as in T5 (Raffel et al. 2020, arXiv 1910.10683, section 2.1):

    score(i, j) = q_i . k_j / sqrt(dim) + b[bucket(j - i)]      b: (buckets, heads), of all blocks

Transformers adds b to the scores of each block, by code that takes neither a prefix nor a mask of
booleans. Here b is added to the mask, once a pass, and the blocks call `attention.attention`. The
distance to a prefix is not defined: its scores get no bias.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder, MPNetSelfAttention

from peftbench.models.attention import attention


def unify(root: nn.Module) -> None:
    """Let the blocks inside a model of this family call `attention`; others are left alone.

    The table of relative positions comes before the blocks in the order of parameters, as what they
    stand on.
    """
    for module in root.modules():
        if type(module) is MPNetEncoder:
            module.__class__ = _Encoder
            module.layer = module._modules.pop("layer")
        elif type(module) is MPNetSelfAttention:
            module.__class__ = _Attention


class _Encoder(MPNetEncoder):
    """The blocks, which get relative positions and padding as one mask."""

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, *more: Any, **rest: Any
    ) -> Any:
        """As the parent's; the mask is (batch, 1, 1 or tokens, tokens), booleans or to be added."""
        mask: Tensor = super().compute_position_bias(hidden_states)
        if attention_mask is not None and attention_mask.dtype == torch.bool:
            mask = mask.masked_fill(~attention_mask, torch.finfo(mask.dtype).min)
        elif attention_mask is not None:
            mask = mask + attention_mask
        return super().forward(hidden_states, mask, *more, **rest)

    def compute_position_bias(self, *_: object, **__: object) -> None:
        """None for the parent's forward: it is in the mask."""


class _Attention(MPNetSelfAttention):
    """Self-attention and its output linear."""

    takes_prefix: ClassVar[bool] = True

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, *more: Any, **rest: Any
    ) -> tuple[Tensor]:
        """Shapes are (batch, tokens, dim)."""
        heads = (*hidden_states.shape[:-1], -1, self.attention_head_size)
        linears = (self.q, self.k, self.v)
        q, k, v = (linear(hidden_states).view(heads).transpose(1, 2) for linear in linears)
        dropout = self.dropout.p if self.training else 0.0
        attended, _ = attention(self, q, k, v, attention_mask, dropout=dropout)
        return (self.o(attended.flatten(2)),)
