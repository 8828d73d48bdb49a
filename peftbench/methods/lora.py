"""LoRA: low-rank adaptation.

Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang and Chen: LoRA, ICLR 2022, arXiv 2106.09685.
Kalajdzievski: rsLoRA, 2023, arXiv 2312.03732. Liu et al.: DoRA, ICML 2024, arXiv 2402.09353.
Hayou, Ghosh and Yu: LoRA+, ICML 2024, arXiv 2402.12354.

A frozen linear gets an update of low rank beside it, zero at the start (equation 3):

    h = W x + s B A x        s = alpha / rank^rank_scaling        A: (r, in)        B: (out, r)

A is drawn uniformly as a linear layer's weight (Kaiming, a = sqrt 5), B is 0; dropout acts on the
x of the update. rank_scaling 1 is LoRA, 0.5 rsLoRA. DoRA (equation 5) learns the lengths of the
rows too:

    h = m / |V| V x        V = W + s B A        |V|: row by row, a constant for the gradient

LoRA+ trains B with `loraplus_lr_ratio` times the rate of A (lambda = eta_B / eta_A in the paper,
which is to be above 1). The rate of the recipe is A's, and the head's.

Departures: in training DoRA's dropout acts on the x of the update alone, as LoRA's does; peft 0.21
lets it act on what m / |V| - 1 adds to W x as well (without dropout the two are one).
"""

import math
from dataclasses import dataclass, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftbench.core.run import Json
from peftbench.methods.base import MODEL, PEFT, PEFT_PREFIX
from peftbench.methods.layers.linear_updates import LinearUpdates
from peftbench.methods.settings import Limits, check_rank
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.module_ops import empty_linear, linear_of, set_unregistered, within


@dataclass(frozen=True, kw_only=True)
class LoRA(LinearUpdates):
    """Updates of rank `rank`, scaled by `alpha / rank ** rank_scaling`, beside linears.

    Attributes:
        use_dora: whether the lengths of the rows train apart from their directions (DoRA).
        loraplus_lr_ratio: of B's rate to A's, at least 1 (LoRA+); None is one rate for both.
    """

    rank: Annotated[int, Limits(at_least=1, rank=True)]
    alpha: Annotated[float, Limits(above=0)]
    rank_scaling: Annotated[float, Limits(between=(0, 1))]
    use_dora: bool
    loraplus_lr_ratio: Annotated[float | None, Limits(at_least=1)] = None

    def updated(self, linear: nn.Linear) -> nn.Module:
        """Of a rank that the linear can have."""
        check_rank("rank", self.rank, "a layer", min(linear.weight.shape))
        kind = Decomposed if self.use_dora else LowRank
        return kind(linear, self.rank, self.alpha / self.rank**self.rank_scaling, self.dropout)

    def lr_multipliers(self, model: AdaptedModel) -> dict[str, float]:
        """The ratio, for all that trains of each B (a wrapper method may have replaced it)."""
        if self.loraplus_lr_ratio is None:
            return {}
        parts = model.module.named_modules()
        ups = [f"{path}.up" for path, part in parts if isinstance(part, LowRank)]
        trained = model.trained()
        return {n: self.loraplus_lr_ratio for up in ups for n in trained if within(n, up)}

    def export_forms(self) -> tuple[str, ...]:
        """An adapter of the library, or merged."""
        return (PEFT, MODEL)

    def to_peft(self, model: AdaptedModel) -> tuple[Json, dict[str, Tensor]]:
        """A LoraConfig's arguments, and A, B and m by the library's names."""
        tensors, state = {}, model.state()
        for path, part in model.module.named_modules():
            if isinstance(part, LowRank):
                there = PEFT_PREFIX + path
                tensors[f"{there}.lora_A.weight"] = state[f"{path}.down.weight"]
                tensors[f"{there}.lora_B.weight"] = state[f"{path}.up.weight"]
                if self.use_dora:
                    tensors[f"{there}.lora_magnitude_vector"] = state[f"{path}.length"]
        config = {
            "peft_type": "LORA",
            "r": self.rank,
            "lora_alpha": self.alpha * self.rank ** (1 - self.rank_scaling),
            "lora_dropout": self.dropout,
            "use_dora": self.use_dora,
            "target_modules": model.pattern(*self.target_modules),
        }
        return config, tensors

    def scale_width(self, times: int) -> "LoRA":
        """As many times the rank, at the same scale."""
        return replace(self, rank=self.rank * times, alpha=self.alpha * times**self.rank_scaling)


class LowRank(nn.Module):
    """A linear and its update: `down` is A, `up` is B."""

    def __init__(self, linear: nn.Linear, rank: int, scale: float, dropout: float):
        super().__init__()
        self.linear = linear
        self.scale = scale
        self.dropout = nn.Dropout(dropout)
        device = linear.weight.device
        self.down = empty_linear(linear.in_features, rank, device)
        self.up = empty_linear(rank, linear.out_features, device)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, in) to (batch, tokens, out)."""
        return self.linear(x) + self.scale * self.up(self.down(self.dropout(x)))

    def to_plain(self) -> nn.Linear:
        """The linear of W + s B A."""
        return linear_of(self.linear.weight + self._update(), self.linear.bias)

    def _update(self) -> Tensor:
        return self.scale * self.up.weight @ self.down.weight


class Decomposed(LowRank):
    """DoRA: row lengths of their own."""

    #: Beside calling `down` and `up` it takes the length of what their weights make.
    reads_weights = True

    exact_weight: Tensor

    def __init__(self, linear: nn.Linear, rank: int, scale: float, dropout: float):
        super().__init__(linear, rank, scale, dropout)
        set_unregistered(self, "exact_weight", linear.weight)  # `linear` may later hold bfloat16
        self.length = nn.Parameter(_lengths(linear.weight))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, in) to (batch, tokens, out)."""
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            now = _lengths(self.exact_weight + self._update())
        factor = self.length / now  # near 1, where 16 bits would round it
        plain = F.linear(x, self.linear.weight.to(x.dtype))
        update = self.scale * self.up(self.down(self.dropout(x)))
        h = (factor * (plain + update)).to(x.dtype)
        return h if self.linear.bias is None else h + self.linear.bias.to(h.dtype)

    def to_plain(self) -> nn.Linear:
        """The linear of m / |V| V."""
        weight = self.exact_weight + self._update()
        return linear_of((self.length / _lengths(weight))[:, None] * weight, self.linear.bias)


def _lengths(weight: Tensor) -> Tensor:
    return weight.detach().float().norm(dim=1)
