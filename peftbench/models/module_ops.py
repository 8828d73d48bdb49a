"""Small modules that stand in the places of parts of a block, and how these are put there."""

import copy
from functools import cache
from typing import Any, Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


@runtime_checkable
class CountsWeights(Protocol):
    """A part whose `weight` tensor has another size than the weights that it stands for."""

    def weights(self) -> int:
        """How many weights it stands for."""


@runtime_checkable
class Mergeable(Protocol):
    """An inserted part that a plain linear can take the place of, after training."""

    def to_plain(self) -> nn.Linear:
        """A linear of its own that computes the same in eval mode."""


def stands_for_others(part: nn.Module) -> TypeGuard[CountsWeights]:
    """Whether a part is a `CountsWeights`."""
    kind: Any = type(part)
    return _counts(kind)


@cache
def _counts(kind: type) -> bool:  # by class: asking each part takes much longer
    return issubclass(kind, CountsWeights)


#: Values in a module that copies may share.
_PLAIN = (type(None), bool, int, float, str, type, torch.dtype, torch.device)


_WAYS = ("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")


@cache
def _is_ordinary(kind: type) -> bool:
    """Whether a class leaves it to `copy` how its modules are copied."""
    return all(getattr(kind, way, None) is getattr(nn.Module, way, None) for way in _WAYS)


def copied(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """What `copy.deepcopy(module, memo)` makes, in a tenth of the time.

    A model has hundreds of modules, each with ten dicts that are empty nearly always.

    Args:
        module: with its submodules.
        memo: what is not copied, by id, as of `copy.deepcopy`.
    """
    kind: Any = type(module)
    if id(module) in memo or not _is_ordinary(kind):
        made: nn.Module = copy.deepcopy(module, memo)
        return made
    new = memo[id(module)] = kind.__new__(kind)
    parts = {
        name: None if part is None else copied(part, memo) for name, part in module._modules.items()
    }
    values = new.__dict__
    for name, value in module.__dict__.items():
        if name == "_modules":
            values[name] = type(value)(parts)
        elif isinstance(value, _PLAIN):
            values[name] = value
        elif isinstance(value, dict) and not value:
            values[name] = value.copy()
        else:
            values[name] = copy.deepcopy(value, memo)
    return new


def empty_linear(size_in: int, size_out: int, device: torch.device) -> nn.Linear:
    """A linear without bias whose weight is to be set; no random number is drawn for it."""
    made = nn.Linear(size_in, size_out, bias=False, device="meta")
    made.weight = nn.Parameter(torch.empty(size_out, size_in, device=device))
    return made


def linear_of(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A frozen linear with copies of a weight (out, in) and a bias (out,)."""
    size_out, size_in = weight.shape
    made = nn.Linear(size_in, size_out, bias is not None, device="meta")
    made.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return made


class FusedLinear(nn.Module):
    """A linear with several outputs side by side, as one linear for each, so that roles differ."""

    def __init__(self, linear: nn.Module, names: list[str]):
        super().__init__()
        assert isinstance(linear, nn.Linear)
        self.names = names
        biases = [None] * len(names) if linear.bias is None else linear.bias.chunk(len(names))
        for name, weight, bias in zip(names, linear.weight.chunk(len(names)), biases, strict=True):
            setattr(self, name, linear_of(weight, bias))

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of (batch, tokens, dim), side by side."""
        return torch.cat([getattr(self, name)(x) for name in self.names], dim=-1)

    def to_plain(self) -> nn.Linear:
        """The linear that it was made of, with what its parts hold now."""
        parts = [getattr(self, name) for name in self.names]
        bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
        return linear_of(torch.cat([part.weight for part in parts]), bias)


def untransposed(conv: Conv1D) -> nn.Linear:
    """GPT-2's linear, whose weight is (in, out), as an ordinary one."""
    size_in, size_out = conv.weight.shape
    linear = nn.Linear(size_in, size_out, device="meta")
    linear.weight = nn.Parameter(conv.weight.detach().T.contiguous(), requires_grad=False)
    linear.bias = nn.Parameter(conv.bias.detach(), requires_grad=False)
    return linear


class Tap(nn.Module):
    """A part that remembers what it got, for another part of its block."""

    seen: Tensor

    def __init__(self, part: nn.Module):
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        """What the part makes of x."""
        self.seen = x
        return self.part(x)


def first_position(module: nn.Module, given: object, output: object) -> object:
    """A hook that keeps position 0 of (batch, tokens, dim), alone or first in a tuple."""
    if isinstance(output, tuple):
        return (output[0][:, :1], *output[1:])
    assert isinstance(output, Tensor)
    return output[:, :1]


def set_unregistered(module: nn.Module, name: str, value: nn.Module | Tensor) -> None:
    """Set an attribute to a module or parameter that belongs to another module.

    By plain assignment torch registers it here too: it would be saved, counted, cast and replaced
    under a second name.
    """
    object.__setattr__(module, name, value)


def replace_module(block: nn.Module, path: str, module: nn.Module) -> None:
    """Set the module at a dotted path."""
    parent, _, child = path.rpartition(".")
    setattr(block.get_submodule(parent), child, module)


def within(name: str, path: str) -> bool:
    """Whether a dotted name is at or below a path."""
    return name == path or name.startswith(path + ".")


def share(root: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Give a module the backbone's own parameter in place of its copy."""
    path, _, leaf = name.rpartition(".")
    setattr(root.get_submodule(path), leaf, parameter)


def unshare(root: nn.Module, name: str) -> None:
    """Give a module a trainable copy, in fp32, of a parameter that it shares."""
    path, _, leaf = name.rpartition(".")
    owner = root.get_submodule(path)
    shared = getattr(owner, leaf)
    own = shared.detach().to(torch.float32, copy=True)
    setattr(owner, leaf, nn.Parameter(own, requires_grad=True))
