"""Random weights, the control of BitFit.

Ben Zaken, Goldberg and Ravfogel: BitFit, ACL 2022, arXiv 2106.10199 (section 4.2, `rand_uniform`).

Of every linear in the blocks the same fraction of weights trains, chosen at random:

    y = (W + D) x + b        D: (out, in), zero but for `keep` of its entries, which train

Departures from the paper: embeddings, norms and biases have no part in it.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftbench.core.roles import LINEARS
from peftbench.methods.base import MODEL, Method
from peftbench.methods.settings import Limits
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.module_ops import linear_of


@dataclass(frozen=True, kw_only=True)
class RandomMask(Method):
    """The fraction `keep` of the weights of all linears."""

    keep: Annotated[float, Limits(above=0, between=(0, 1))]

    def export_forms(self) -> tuple[str, ...]:
        """A model with some other weights."""
        return (MODEL,)

    def insert(self, model: AdaptedModel) -> None:
        """Wrap every linear."""
        model.replace(*LINEARS, by=lambda part: Scattered(part, self.keep))


class Scattered(nn.Module):
    """A linear and changes of some of its weights."""

    places: Tensor

    def __init__(self, linear: nn.Module, keep: float):
        super().__init__()
        assert isinstance(linear, nn.Linear)
        self.weight, self.bias = linear.weight, linear.bias  # not as a linear: they stay in fp32
        total = self.weight.numel()
        count = max(1, round(keep * total))
        device = self.weight.device
        self.register_buffer("places", torch.randperm(total)[:count].sort().values.to(device))
        self.changes = nn.Parameter(torch.zeros(count, 1, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, in) to (batch, tokens, out)."""
        return F.linear(x, self._changed(), self.bias)

    def to_plain(self) -> nn.Linear:
        """A linear with the changes in its weights."""
        return linear_of(self._changed(), self.bias)

    def _changed(self) -> Tensor:
        flat = self.weight.flatten().float().index_add(0, self.places, self.changes[:, 0])
        return flat.view_as(self.weight)
