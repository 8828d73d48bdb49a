"""Bottleneck adapters.

Houlsby, Giurgiu, Jastrzebski, Morrone, de Laroussilhe, Gesmundo, Attariyan and Gelly:
Parameter-efficient transfer learning for NLP, ICML 2019, arXiv 1902.00751 (section 2.1).
Pfeiffer, Kamath, Rücklé, Cho and Gurevych: AdapterFusion, EACL 2021, arXiv 2005.00247.

A small two-layer network with a residual of its own, near the identity at the start:

    Houlsby, after a linear (attn_out, ffn_out):   y = h + U f(D h)        h = W x
    Pfeiffer, around a norm (ffn_norm):            y = LN(z + U f(D LN(z)))

    D: (width, dim)        U: (dim, width)        z: the sum of the block's output and its residual

Houlsby's recipe trains the norms of all blocks too.

Departures from the paper: weights are drawn from N(0, 0.02²) as in SparseAdapter's code (Houlsby:
truncated at two deviations of 1e-3), for all variants. In a pre-norm block (ModernBERT) a norm
comes before its layer; Pfeiffer's adapter then stands after ffn_out, without the norm, as the
adapters library does it.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from peftbench.encoder import Encoder, check_roles
from peftbench.method import Method
from peftbench.recipe import at_least, one_of

NORMS = ("attn_norm", "ffn_norm")
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


@dataclass(frozen=True, kw_only=True)
class Adapter(Method):
    """Bottlenecks of `width` after the linears, or around the norms, that `at` names.

    Attributes:
        train_norms: whether the norms of all blocks train as well.
    """

    starts_pretrained: ClassVar[bool] = False

    width: int
    at: list[str]
    activation: str
    train_norms: bool

    def __post_init__(self) -> None:
        at_least("width", self.width, 1, whole=True)
        check_roles("at", self.at)
        one_of("activation", self.activation, tuple(ACTIVATIONS))

    def insert(self, encoder: Encoder) -> None:
        """Add the bottlenecks; unfreeze the norms before those are wrapped."""
        if self.train_norms:
            norms = {id(p) for norm in encoder.each(*NORMS) for p in norm.parameters()}
            encoder.unfreeze("norm", lambda name, parameter: id(parameter) in norms)
        dim = encoder.module.config.hidden_size
        for role in self.at:
            around = role in NORMS and not encoder.pre_norm
            place = _AFTER_IN_PRE_NORM[role] if role in NORMS and not around else role
            kind = AroundNorm if around else AfterLinear
            encoder.replace(place, by=partial(self._wrap, kind, dim))

    def _wrap(self, kind: type[nn.Module], dim: int, part: nn.Module) -> nn.Module:
        return kind(part, dim, self.width, self.activation)


_AFTER_IN_PRE_NORM = {"attn_norm": "attn_out", "ffn_norm": "ffn_out"}


class Bottleneck(nn.Module):
    """U f(D x), without the residual."""

    def __init__(self, dim: int, width: int, activation: str, device: torch.device):
        super().__init__()
        self.down = nn.Linear(dim, width, device=device)
        self.activation = ACTIVATIONS[activation]()
        self.up = nn.Linear(width, dim, device=device)
        for linear in (self.down, self.up):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, dim) to the same."""
        return self.up(self.activation(self.down(x)))


class Beside(nn.Module):
    """A part of the encoder and the bottleneck that goes with it."""

    def __init__(self, part: nn.Module, dim: int, width: int, activation: str):
        super().__init__()
        self.part = part
        self.bottleneck = Bottleneck(dim, width, activation, next(part.parameters()).device)


class AfterLinear(Beside):
    """Houlsby's place."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, in) to (batch, tokens, dim)."""
        h = self.part(x)
        return h + self.bottleneck(h)


class AroundNorm(Beside):
    """Pfeiffer's place."""

    def forward(self, z: Tensor) -> Tensor:
        """(batch, tokens, dim) to the same; `part` is the norm of the sum z."""
        return self.part(z + self.bottleneck(self.part(z)))
