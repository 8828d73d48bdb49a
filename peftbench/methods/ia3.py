"""IA3: learned scales.

Liu, Tam, Muqeeth, Mohta, Huang, Bansal and Raffel: Few-shot parameter-efficient fine-tuning is
better and cheaper than in-context learning, NeurIPS 2022, arXiv 2205.05638 (section 3.3).

Keys, values and the inner activations of the feed-forward network are scaled, by 1 at the start:

    k' = l_k * k        v' = l_v * v        FFN(x) = W2 (l_ff * f(W1 x))        l: (features,)
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from peftbench.core.roles import LINEARS
from peftbench.core.run import Json
from peftbench.methods.base import MODEL, PEFT, PEFT_PREFIX, Method
from peftbench.methods.settings import Limits
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.module_ops import linear_of


@dataclass(frozen=True, kw_only=True)
class IA3(Method):
    """Scales of what the linears in `outputs` give, and of what those in `inputs` get."""

    outputs: Annotated[list[str], Limits(roles=LINEARS, empty=True)]
    inputs: Annotated[list[str], Limits(roles=LINEARS, empty=True)]

    def insert(self, model: AdaptedModel) -> None:
        """Wrap every one of them."""
        for roles, kind in ((self.outputs, ScaledOutput), (self.inputs, ScaledInput)):
            if roles:
                model.replace(*roles, by=kind)

    def export_forms(self) -> tuple[str, ...]:
        """An adapter of the library, or merged."""
        return (PEFT, MODEL)

    def to_peft(self, model: AdaptedModel) -> tuple[Json, dict[str, Tensor]]:
        """An IA3Config's arguments, and the scales by the library's names and shapes."""
        tensors = {}
        for path, part in model.module.named_modules():
            if isinstance(part, Scaled):
                column = isinstance(part, ScaledOutput)
                tensors[f"{PEFT_PREFIX}{path}.ia3_l"] = part.scale.detach().view(
                    *((-1, 1) if column else (1, -1))
                )
        config = {
            "peft_type": "IA3",
            "target_modules": model.pattern(*self.outputs, *self.inputs),
            "feedforward_modules": model.pattern(*self.inputs) if self.inputs else [],
        }
        return config, tensors


class Scaled(nn.Module):
    """A linear and a scale for its output or input."""

    part: nn.Linear

    def __init__(self, part: nn.Module, features: str):
        super().__init__()
        if not isinstance(part, nn.Linear):
            raise ValueError(
                f"IA3 scales linear layers; {type(part).__name__} is none: choose other roles"
            )
        self.part = part
        count = getattr(part, features)
        self.scale = nn.Parameter(torch.ones(count, device=part.weight.device))


class ScaledOutput(Scaled):
    """Scales what the linear gives."""

    def __init__(self, part: nn.Module):
        super().__init__(part, "out_features")

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, in) to (batch, tokens, out)."""
        y: Tensor = self.part(x)
        return (y * self.scale).to(y.dtype)  # 16 bits would round a scale near 1 to 1

    def to_plain(self) -> nn.Linear:
        """A linear with scaled rows and bias."""
        bias = self.part.bias
        weight = self.scale[:, None] * self.part.weight
        return linear_of(weight, None if bias is None else self.scale * bias)


class ScaledInput(Scaled):
    """Scales what the linear gets."""

    def __init__(self, part: nn.Module):
        super().__init__(part, "in_features")

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, in) to (batch, tokens, out)."""
        scaled: Tensor = self.part((x * self.scale).to(x.dtype))
        return scaled

    def to_plain(self) -> nn.Linear:
        """A linear with scaled columns."""
        return linear_of(self.part.weight * self.scale, self.part.bias)
