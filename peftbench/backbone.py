"""Pretrained weights as they came, loaded once for all runs of a worker."""

from typing import Any

import torch
from torch import Tensor, nn

from peftbench import attention, checkpoints
from peftbench.run import Json


class Backbone:
    """Pretrained weights as they came, and what is known about their architecture.

    Args:
        model: the model node of a run.
        device: where encoders are to live.
        loaded: a module to use instead of loading one (a skeleton on `meta`, in tests).
    """

    def __init__(
        self, model: Json, device: str | torch.device = "cpu", loaded: nn.Module | None = None
    ):
        missing: list[str] = []
        if loaded is None:
            loaded, missing = checkpoints.backbone(model)
        self.name: str = model["name"]
        self.parts: Json = model["parts"]
        self.module: Any = loaded.to(device).eval().requires_grad_(False)
        if loaded._supports_attention_backend:
            loaded.set_attn_implementation(attention.NAME)  # type: ignore[operator]
        for block in self.module.get_submodule(self.parts["blocks"]).children():
            for path, names in self.parts["split"].items():
                put(block, path, Fused(block.get_submodule(path), names))
        self.head = self._head(missing)
        self._cast: dict[nn.Parameter, nn.Parameter] = {}

    def _head(self, missing: list[str]) -> list[str]:
        """The family's head, and whatever else the checkpoint had no weights for."""
        head: list[str] = list(self.parts["head"])
        for name in missing:
            owner = name.rpartition(".")[0]
            if not any(within(owner, path) for path in head):
                head.append(owner)
        return head

    def half(self, parameter: nn.Parameter) -> nn.Parameter:
        """A frozen parameter in bf16, made once for all runs."""
        if parameter not in self._cast:
            low = parameter.detach().to(torch.bfloat16)
            self._cast[parameter] = nn.Parameter(low, requires_grad=False)
        return self._cast[parameter]


class Fused(nn.Module):
    """A linear with several outputs side by side, as one linear for each, so that roles differ."""

    def __init__(self, linear: nn.Module, names: list[str]):
        super().__init__()
        assert isinstance(linear, nn.Linear)
        self.names = names
        biases = [None] * len(names) if linear.bias is None else linear.bias.chunk(len(names))
        for name, weight, bias in zip(names, linear.weight.chunk(len(names)), biases, strict=True):
            part = nn.Linear(linear.in_features, len(weight), bias is not None, device="meta")
            part.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
            if bias is not None:
                part.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of (batch, tokens, dim), side by side."""
        return torch.cat([getattr(self, name)(x) for name in self.names], dim=-1)


def put(block: nn.Module, path: str, module: nn.Module) -> None:
    """Set the module at a dotted path."""
    parent, _, child = path.rpartition(".")
    setattr(block.get_submodule(parent), child, module)


def within(name: str, path: str) -> bool:
    """Whether a dotted name is at or below a path."""
    return name == path or name.startswith(path + ".")
