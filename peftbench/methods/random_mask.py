"""Random weights, the control of BitFit.

Ben Zaken, Goldberg and Ravfogel: BitFit, ACL 2022, arXiv 2106.10199 (section 4.2, `rand_uniform`).

Of every linear in the blocks the same fraction of weights trains, chosen at random; by default that
which makes as many as BitFit trains, of which this is the control:

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

#: Of a model without biases: that of BERT-base's, 102,912 of 84,934,656.
BERT_SHARE = 0.0012


@dataclass(frozen=True, kw_only=True)
class RandomMask(Method):
    """The fraction `keep` of the weights of all linears; None is as many as there are biases."""

    keep: Annotated[float | None, Limits(above=0, between=(0, 1))]

    def export_forms(self) -> tuple[str, ...]:
        """A model with some other weights."""
        return (MODEL,)

    def insert(self, model: AdaptedModel) -> None:
        """Wrap every linear."""
        keep = self.keep if self.keep is not None else _share_of_biases(model)
        model.replace(*LINEARS, by=lambda part: Scattered(part, keep))


def _share_of_biases(model: AdaptedModel) -> float:
    """How many biases a model has outside the head, over the weights of its blocks' linears."""
    own = {name: p for name, p in model.pretrained.items() if not model.in_head(name)}
    biases = sum(p.numel() for name, p in own.items() if name.endswith(".bias"))
    weights = sum(part.get_parameter("weight").numel() for part in model.each(*LINEARS))
    return biases / weights if biases else BERT_SHARE


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
