"""A step of a model with a rule of its own for runs that torch.func maps over."""

from typing import Any

import torch
from torch import Tensor


class MappedFunction(torch.autograd.Function):
    """To be applied to mapped tensors alone, by its `vmap`; autograd records what is done there."""

    @staticmethod
    def forward(*_: Any) -> Tensor:
        """Refused: only `vmap` computes."""
        raise NotImplementedError("this is for mapped tensors alone")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Refused likewise; torch wants it beside `vmap`."""
        raise NotImplementedError("see `forward`")
