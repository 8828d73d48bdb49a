"""Linears of which only some weights exist: fixed masks, learned gates, and who is to stay.

Louizos, Welling and Kingma: Learning sparse neural networks through L0 regularization, ICLR 2018.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MaskedLinear(nn.Module):
    """A linear whose weights outside the mask are exactly zero and stay so."""

    mask: Tensor

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight = nn.Parameter(linear.weight.detach())
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach())
        self.register_buffer("mask", torch.ones_like(linear.weight, dtype=torch.bool))

    def keep(self, mask: Tensor) -> None:
        """Fix the mask, (out, in)."""
        self.mask = mask
        with torch.no_grad():
            self.weight.mul_(mask)

    def weights(self) -> int:
        """How many weights exist."""
        return self.mask.numel() if self.mask.is_meta else int(self.mask.sum())

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) to (…, out)."""
        return F.linear(x, self.weight * self.mask, self.bias)


class GatedLinear(nn.Module):
    """A linear with a hard-concrete gate on each weight (Louizos et al., equations 10 to 12)."""

    TEMPERATURE, LOW, HIGH = 2 / 3, -0.1, 1.1

    #: It draws in training: once for all examples of a pass.
    draws_weights = True

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight = nn.Parameter(linear.weight.detach())
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach())
        self.openness = nn.Parameter(torch.full_like(linear.weight, 2.0))  # log alpha
        self.openness._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) to (…, out); gates are drawn in training."""
        if self.training:
            u = torch.rand_like(self.openness).clamp(1e-6, 1 - 1e-6)
            s = torch.sigmoid((u.log() - (-u).log1p() + self.openness) / self.TEMPERATURE)
        else:
            s = torch.sigmoid(self.openness)
        gate = (s * (self.HIGH - self.LOW) + self.LOW).clamp(0, 1)
        return F.linear(x, self.weight * gate, self.bias)

    def expected(self) -> Tensor:
        """How many gates are open on average; a scalar."""
        shift = self.TEMPERATURE * math.log(-self.LOW / self.HIGH)
        return torch.sigmoid(self.openness - shift).sum()


def best(scores: dict[str, Tensor], keep: float, local: bool) -> dict[str, Tensor]:
    """Masks of the highest scores, of all together or of each; ties are broken at random.

    All but ceil((1 - keep) * count) stay, exactly.
    """
    if local:
        return {name: _top(score, _kept(score.numel(), keep)) for name, score in scores.items()}
    flat = torch.cat([score.flatten() for score in scores.values()])
    chosen = _top(flat, _kept(flat.numel(), keep))
    pieces = chosen.split([score.numel() for score in scores.values()])
    return {n: p.view_as(s) for (n, s), p in zip(scores.items(), pieces, strict=True)}


def erdos_renyi(scores: dict[str, Tensor], keep: float) -> dict[str, Tensor]:
    """Masks of each matrix' highest scores, its density in proportion to (out + in) / (out * in).

    Densities above 1 are cut and the rest raised, until the total is that of `best`.
    """
    sizes = {name: score.numel() for name, score in scores.items()}
    raw = {name: sum(score.shape) / score.numel() for name, score in scores.items()}
    left = _kept(sum(sizes.values()), keep)
    counts: dict[str, int] = {}
    for name in sorted(raw, key=lambda n: -raw[n]):  # the densest first: they may be full
        rest = [n for n in raw if n not in counts]
        factor = left / sum(raw[n] * sizes[n] for n in rest)
        counts[name] = min(sizes[name], round(factor * raw[name] * sizes[name]), left)
        left -= counts[name]
    for name in counts:  # what rounding left over
        more = min(left, sizes[name] - counts[name])
        counts[name], left = counts[name] + more, left - more
    return {name: _top(score, counts[name]) for name, score in scores.items()}


def _kept(count: int, keep: float) -> int:
    return count - math.ceil(round((1 - keep) * count, 6))


def _top(scores: Tensor, count: int) -> Tensor:
    flat = scores.flatten().double()
    shuffled = torch.randperm(flat.numel()).to(flat.device)
    order = shuffled[flat[shuffled].argsort(descending=True, stable=True)]
    mask = torch.zeros(flat.numel(), dtype=torch.bool, device=flat.device)
    mask[order[:count]] = True
    return mask.view_as(scores)
