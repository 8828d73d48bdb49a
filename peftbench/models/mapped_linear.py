"""Linears of runs that torch.func maps over.

torch's own rule multiplies and then adds the bias, in a kernel of its own and, where autocast meets
biases of several runs, in fp32, which all that follows is then computed in. A frozen linear, which
all runs share, is here one product with the bias inside it, and every output has the type that it
has in a run alone.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C._functorch import is_batchedtensor

from peftbench.models.mapped_function import MappedFunction


class MappedLinear(nn.Linear):
    """A linear that computes for one run what `nn.Linear` does."""

    def forward(self, input: Tensor) -> Tensor:
        """(…, in) to (…, out)."""
        if any(t is not None and is_batchedtensor(t) for t in (input, self.weight, self.bias)):
            out: Tensor = _Mapped.apply(input, self.weight, self.bias)
            return out
        return super().forward(input)


def let_map(module: nn.Module) -> None:
    """Let the linears of a module be mapped over as this file says."""
    for part in module.modules():
        if type(part) is nn.Linear:
            part.__class__ = MappedLinear


class _Mapped(MappedFunction):
    """A linear of several runs."""

    @staticmethod
    def vmap(
        info: Any, dims: Any, x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, int]:
        runs, (of_x, of_weight, of_bias) = info.batch_size, dims
        x = x.expand(runs, *x.shape) if of_x is None else x.movedim(of_x, 0)
        if of_weight is None:
            out = F.linear(x.flatten(0, 1), weight, None if of_bias is not None else bias)
            out = out.unflatten(0, (runs, -1))
        else:
            flat = torch.bmm(x.flatten(1, -2), weight.movedim(of_weight, 0).transpose(1, 2))
            out = flat.view(*x.shape[:-1], -1)
            if bias is not None and of_bias is None:
                out = out + bias.to(out.dtype)
        if bias is not None and of_bias is not None:
            rows = bias.movedim(of_bias, 0).to(out.dtype)
            out = out + rows.view(runs, *[1] * (out.ndim - 2), -1)
        return out, 0
