"""Prefix tuning.

Li and Liang: Prefix-tuning, ACL 2021, arXiv 2101.00190 (section 4). At every layer, as there.

Learned keys and values stand in front of those of every attention; an MLP makes them, for the sake
of the optimisation:

    K' = [P_k; K]    V' = [P_v; V]        P = U tanh(D E)
    E: (length, dim)    D: (width, dim)    U: (blocks * 2 * dim, width)    P_k, P_v: (length, dim)

Where groups of queries share a key (Llama), the dim of U and of P is that of the keys.

E is drawn from N(0, start_std²): 1 is an embedding's own draw in torch, which the authors' code and
that of He et al. 2022 keep; in UniPELT's the encoder's `init_weights` draws it again, with 0.02.

Departures from the paper: encoders instead of decoders; the MLP is drawn as linear layers are in
BERT, N(0, 0.02²) (torch's own draw in the authors' code, which starts keys of a size that depends
on the width); a shared block (ALBERT) has one prefix for all its passes.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from peftbench.core.run import Json
from peftbench.methods.base import PEFT, Method
from peftbench.methods.layers.gaussian import SampledLinear
from peftbench.methods.settings import Limits
from peftbench.models.adapted_model import AdaptedModel


@dataclass(frozen=True, kw_only=True)
class Prefix(Method):
    """`length` keys and values a block, from an MLP of `width`, or trained as they are for 0.

    Attributes:
        start_std: standard deviation of what the MLP starts from, or of keys and values without
            it; None is 1, or 0.02.
    """

    identity_at_init: ClassVar[bool] = False

    length: Annotated[int, Limits(at_least=0)]
    width: Annotated[int, Limits(at_least=0)]
    start_std: Annotated[float | None, Limits(above=0)] = None

    def insert(self, model: AdaptedModel) -> None:
        """Put the prefix in front of every attention."""
        if self.length:
            blocks = len(model.blocks)
            sizes = (model.dim, model.key_dim)
            model.prepend(KeysAndValues(self, blocks, *sizes, model.device))

    def export_forms(self) -> tuple[str, ...]:
        """An adapter of the library."""
        return (PEFT,)

    def to_peft(self, model: AdaptedModel) -> tuple[Json, dict[str, Tensor]]:
        """A PrefixTuningConfig's arguments, and the keys and values as its embedding."""
        if not self.length:
            raise ValueError("a prefix of length 0 has no form in the peft library")
        with torch.inference_mode():
            made = model.module.prefix(1)  # (blocks, 2, length, dim)
        config = {
            "peft_type": "PREFIX_TUNING",
            "num_virtual_tokens": self.length,
            "token_dim": model.key_dim,
            "num_layers": len(model.blocks),
            "num_attention_heads": model.module.config.num_attention_heads,
        }
        return config, {"prompt_embeddings": made.permute(2, 0, 1, 3).flatten(1).clone()}


class KeysAndValues(nn.Module):
    """The prefixes of all blocks."""

    def __init__(self, method: Prefix, blocks: int, dim: int, key_dim: int, device: torch.device):
        super().__init__()
        self.shape = (method.length, blocks, 2, key_dim)
        width = method.width
        count = dim if width else blocks * 2 * key_dim
        self.start = nn.Parameter(torch.empty(method.length, count, device=device))
        nn.init.normal_(self.start, std=method.start_std or (1.0 if width else 0.02))
        self.down = nn.Linear(dim, width, device=device) if width else None
        self.up = nn.Linear(width, blocks * 2 * key_dim, device=device) if width else None
        for linear in filter(None, (self.down, self.up)):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, batch: int) -> Tensor:
        """(blocks, 2, length, dim), or (blocks, 2, batch, length, dim) if the MLP is sampled so."""
        made: Tensor = self.start
        if self.down is not None and self.up is not None:
            draws = max(_draws(linear, batch) for linear in (self.down, self.up))
            if draws > 1:  # each group of examples has a prefix of its own
                made = made.expand(draws, *made.shape)
            made = self.up(torch.tanh(self.down(made)))
            if draws > 1:
                made = made.repeat_interleave(batch // draws, dim=0)
        return made.unflatten(-1, self.shape[1:]).movedim((-3, -2), (0, 1))


def _draws(linear: nn.Module, batch: int) -> int:
    return linear.draws_per_batch(batch) if isinstance(linear, SampledLinear) else 1
