"""LoRA: low-rank adaptation.

Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang and Chen: LoRA, ICLR 2022, arXiv 2106.09685.

A frozen linear gets an update of low rank beside it, zero at the start (equation 3):

    h = W x + (alpha / r) B A x        A: (r, in)        B: (out, r)

A is drawn uniformly as a linear layer's weight (Kaiming, a = sqrt 5), B is 0; dropout acts on the
x of the update.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftbench.encoder import Encoder, check_roles
from peftbench.method import Method
from peftbench.recipe import above, at_least, between


@dataclass(frozen=True, kw_only=True)
class LoRA(Method):
    """Updates of rank `rank`, scaled by `alpha / rank`, beside the linears in `targets`."""

    rank: int
    alpha: float
    dropout: float
    targets: list[str]

    def __post_init__(self) -> None:
        at_least("rank", self.rank, 1, whole=True)
        above("alpha", self.alpha, 0)
        between("dropout", self.dropout, 0, 0.9)
        check_roles("targets", self.targets)

    def insert(self, encoder: Encoder) -> None:
        """Wrap every target."""
        encoder.replace(*self.targets, by=self._wrap)

    def _wrap(self, part: nn.Module) -> nn.Module:
        if not isinstance(part, nn.Linear):
            raise ValueError(
                f"LoRA updates linear layers; {type(part).__name__} is none: choose other targets"
            )
        return LowRank(part, self.rank, self.alpha / self.rank, self.dropout)


class LowRank(nn.Module):
    """A linear and its update."""

    def __init__(self, linear: nn.Linear, rank: int, scale: float, dropout: float):
        super().__init__()
        self.linear = linear
        self.scale = scale
        self.dropout = nn.Dropout(dropout)
        device = linear.weight.device
        self.a = nn.Parameter(torch.empty(rank, linear.in_features, device=device))
        self.b = nn.Parameter(torch.zeros(linear.out_features, rank, device=device))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, in) to (batch, tokens, out)."""
        update = F.linear(F.linear(self.dropout(x), self.a), self.b)
        return self.linear(x) + self.scale * update
