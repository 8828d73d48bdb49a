"""AdaLoRA: low-rank updates whose ranks are shared out while training.

Zhang, Chen, Bukharin, Karampatziakis, He, Cheng, Chen and Zhao: AdaLoRA, ICLR 2023, arXiv
2303.10512.

An update has the form of a singular value decomposition (equation 3), zero at the start:

    h = W x + s P diag(l) Q x      P: (out, r)      l: (r,)      Q: (r, in)      s = alpha / r

P and Q are kept near orthogonal by a term of the loss (equation 4). A triplet, l_i with column i of
P and row i of Q, is as important as (equation 7)

    S_i = s(l_i) + mean_j s(P_ji) + mean_j s(Q_ij)

where s(w) is the product of two moving averages, of |w dL/dw| and of its distance from its average
(equations 8 to 11). Of all triplets of the model the b(t) most important keep their l, the others'
is set to 0; b falls by a cubic schedule (equation 12) from step t_i until t_f steps before the end:

    b(t) = b_T + (b_0 - b_T) (1 - (t - t_i) / (T - t_i - t_f))^3

Departures from the paper: as in the authors' code the schedule counts from t_i (printed are t_i and
t_f), and the regulariser is the mean over matrices of the norm, not the sum of its square; t_i and
t_f are fractions of the steps, so that a budget of any length has the schedule. The gradients of
equation 8 are those after clipping. With `checkpoint_selection=best_on_holdout` a state from before
the ranks have fallen may be kept, with more than `target_rank`; the curve has the `rank` of each.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from peftbench.core.configs import Budget
from peftbench.core.run import Json
from peftbench.data.batching import Batch
from peftbench.methods.base import MODEL, PEFT, PEFT_PREFIX
from peftbench.methods.layers.linear_updates import LinearUpdates
from peftbench.methods.settings import Limits, adalora_schedule, check_adalora_budget, check_rank
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.module_ops import linear_of


@dataclass(frozen=True, kw_only=True)
class AdaLoRA(LinearUpdates):
    """Updates of rank `initial_rank`, cut down to `target_rank` on average.

    Attributes:
        initial: fraction of the steps before ranks fall.
        final: fraction of the steps after they have fallen.
        interval: steps between two reductions.
        orthogonality: weight of the regulariser.
        betas: of the moving averages of importance and of its spread.
    """

    initial_rank: Annotated[int, Limits(at_least=1, rank=True)]
    target_rank: Annotated[int, Limits(at_least=1)]
    alpha: Annotated[float, Limits(above=0)]
    initial: Annotated[float, Limits(between=(0, 1))]
    final: Annotated[float, Limits(between=(0, 1))]
    interval: Annotated[int, Limits(at_least=1)]
    orthogonality: Annotated[float, Limits(at_least=0)]
    betas: Annotated[list[float], Limits(length=2, between=(0, 1))]

    @property
    def task_alone(self) -> bool:
        """Whether its loss has no regulariser."""
        return self.orthogonality == 0

    def updated(self, linear: nn.Linear) -> "Triplets":
        """Of the rank before the first reduction."""
        check_rank("initial_rank", self.initial_rank, "a layer", min(linear.weight.shape))
        return Triplets(linear, self.initial_rank, self.alpha / self.initial_rank, self.dropout)

    def check_budget(self, budget: Budget) -> None:
        """Refuse a budget without a number of steps, or of too few of them."""
        check_adalora_budget(vars(self), budget)

    def compute_loss(self, model: AdaptedModel, batch: Batch) -> Tensor:
        """The task's loss, and the distance of P and Q from orthogonal matrices."""
        loss = super().compute_loss(model, batch)
        if self.orthogonality == 0:
            return loss
        apart = [distance for _, part in _parts(model) for distance in part.distances()]
        return loss + self.orthogonality * torch.stack(apart).mean()

    def on_gradients(self, model: AdaptedModel) -> None:
        """Update the averages of importance."""
        for part in _trained(model):
            part.observe(*self.betas)

    def on_step_end(self, model: AdaptedModel, step: int, steps: int | None) -> None:
        """Cut ranks down to the budget of the step; later keep them."""
        if steps is None:
            raise ValueError("AdaLoRA's ranks fall by steps; take a budget of steps or epochs")
        if steps == 0:
            return
        start, end = adalora_schedule(vars(self), steps)
        parts = _trained(model)
        if step > end:
            for part in parts:
                part.keep(part.kept)
        elif step > start and ((step - start) % self.interval == 0 or step == end):
            scores = torch.cat([part.importance() for part in parts])
            kept = torch.zeros_like(scores)
            kept[scores.topk(self.triplets(step, steps, len(parts))).indices] = 1
            for part, own in zip(parts, kept.split(self.initial_rank), strict=True):
                part.keep(own)

    def triplets(self, step: int, steps: int, matrices: int) -> int:
        """The budget b(t) of so many matrices: triplets whose singular value stays."""
        start, end = adalora_schedule(vars(self), steps)
        first, last = self.initial_rank * matrices, self.target_rank * matrices
        left = 1 - (min(max(step, start), end) - start) / (end - start)
        return int(last + (first - last) * left**3)

    def diagnostics(self, model: AdaptedModel) -> dict[str, float]:
        """The average rank, of singular values that are not 0, where updates train."""
        ranks = [float(part.singular.count_nonzero()) for part in _trained(model)]
        return {"rank": sum(ranks) / len(ranks)}

    def export_forms(self) -> tuple[str, ...]:
        """An adapter of the library, or merged."""
        return (PEFT, MODEL)

    def to_peft(self, model: AdaptedModel) -> tuple[Json, dict[str, Tensor]]:
        """LoRA with A = Q and B = s P diag(l), which computes the same."""
        tensors = {}
        for path, part in _parts(model):
            tensors[f"{PEFT_PREFIX}{path}.lora_A.weight"] = part.down.weight.detach()
            tensors[f"{PEFT_PREFIX}{path}.lora_B.weight"] = part.scaled_up().detach()
        config = {
            "peft_type": "LORA",
            "r": self.initial_rank,
            "lora_alpha": self.initial_rank,
            "lora_dropout": self.dropout,
            "target_modules": model.pattern(*self.target_modules),
        }
        return config, tensors


def _parts(model: AdaptedModel) -> Iterator[tuple[str, "Triplets"]]:
    for path, part in model.module.named_modules():
        if isinstance(part, Triplets):
            yield path, part


def _trained(model: AdaptedModel) -> list["Triplets"]:
    """Those that train: a wrapper may have frozen others, which have no importance to be ranked."""
    return [part for _, part in _parts(model) if part.singular.requires_grad]


class Triplets(nn.Module):
    """A linear and its update: `down` is Q, `singular` is l, `up` is P."""

    #: Beside calling `down` and `up` it takes their distance from orthogonal matrices.
    reads_weights = True

    kept: Tensor

    def __init__(self, linear: nn.Linear, rank: int, scale: float, dropout: float):
        super().__init__()
        self.linear = linear
        self.scale = scale
        self.dropout = nn.Dropout(dropout)
        device = linear.weight.device
        self.down = nn.Linear(linear.in_features, rank, bias=False, device=device)
        self.up = nn.Linear(rank, linear.out_features, bias=False, device=device)
        self.singular = nn.Parameter(torch.zeros(rank, device=device))
        for matrix in (self.down.weight, self.up.weight):
            nn.init.normal_(matrix, std=0.02)
        self.register_buffer("kept", torch.ones(rank, device=device))
        for name, weight in self._weights().items():
            self.register_buffer(f"{name}_mean", torch.zeros_like(weight, requires_grad=False))
            self.register_buffer(f"{name}_spread", torch.zeros_like(weight, requires_grad=False))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, in) to (batch, tokens, out)."""
        inner = self.down(self.dropout(x))
        return self.linear(x) + self.scale * self.up(inner * self.singular.to(inner.dtype))

    def to_plain(self) -> nn.Linear:
        """The linear of W + s P diag(l) Q."""
        return linear_of(self.linear.weight + self.scaled_up() @ self.down.weight, self.linear.bias)

    def scaled_up(self) -> Tensor:
        """The matrix s P diag(l), (out, rank)."""
        return self.scale * self.up.weight * self.singular

    def distances(self) -> Iterator[Tensor]:
        """Norms of P' P - I and of Q Q' - I; scalars."""
        identity = torch.eye(len(self.singular), device=self.singular.device)
        with torch.autocast(self.singular.device.type, enabled=False):
            yield (self.up.weight.T @ self.up.weight - identity).norm()
            yield (self.down.weight @ self.down.weight.T - identity).norm()

    @torch.no_grad()
    def observe(self, beta: float, spread_beta: float) -> None:
        """Take the gradients that are there into the averages; equations 8 to 10."""
        for name, weight in self._weights().items():
            mean, spread = self.get_buffer(f"{name}_mean"), self.get_buffer(f"{name}_spread")
            assert weight.grad is not None
            sensitivity = (weight * weight.grad).abs()
            mean.lerp_(sensitivity, 1 - beta)
            spread.lerp_((sensitivity - mean).abs(), 1 - spread_beta)

    def importance(self) -> Tensor:
        """S of each triplet; (rank,)."""
        down, up, singular = (
            self.get_buffer(f"{name}_mean") * self.get_buffer(f"{name}_spread")
            for name in self._weights()
        )
        return singular + up.mean(0) + down.mean(1)

    @torch.no_grad()
    def keep(self, kept: Tensor) -> None:
        """Set the singular values to 0 where `kept` (rank,) is."""
        self.kept.copy_(kept)
        self.singular.mul_(self.kept)

    def _weights(self) -> dict[str, Tensor]:
        return {"down": self.down.weight, "up": self.up.weight, "singular": self.singular}
