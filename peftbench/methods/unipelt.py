"""UniPELT: gates say how much each inserted part has to say, example by example.

Mao, Mathias, Hou, Almahairi, Ma, Han, Yih and Khabsa: UniPELT, ACL 2022, arXiv 2110.07577
(section 3), and the authors' code.

In every block each part that the base method inserts gets a gate, a number for each example:

    g = mean over tokens of sigmoid(w . x + b)        x: (tokens, dim), what attention gets
    adapter, LoRA:  y = h + g s U f(D h)              prefix:  K' = [g P_k; K], V' = [g P_v; V]

The base method of the yaml is a prefix and Pfeiffer's adapters, the paper's UniPELT (AP); any other
whose parts end in matrices called `up` inside the blocks will do, LoRA alone too.

Departures from the paper: the mean is over the tokens of an example, without its padding, so that
an answer does not depend on what else is in the batch. An adapter's gate looks at what its block's
attention gets, not at the adapter's own input: of the last block only the first token goes on. The
scale s of LoRA stays, where the authors' gate takes its place. There is no LoRA in the yaml (APL):
DeBERTa sends relative positions, which are no example's, through queries and keys too.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from peftbench.methods.base import WrapperMethod
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.module_ops import set_unregistered


@dataclass(frozen=True, kw_only=True)
class UniPELT(WrapperMethod):
    """A base method whose parts have gates."""

    @property
    def token_wise(self) -> bool:
        """False: a gate looks at all tokens of an example."""
        return False

    def export_forms(self) -> tuple[str, ...]:
        """None: its gates look at each text."""
        raise ValueError(
            "UniPELT has a gate for each part, which depends on the text, so that no other library "
            "holds it and nothing can be merged: train its base method alone for a folder, or use "
            "`peftbench predict KEY`"
        )

    def insert(self, model: AdaptedModel) -> None:
        """Insert it, and give each block a gate for each matrix `up`, one for the prefix.

        Raises:
            ValueError: if there is nothing to give a gate, or something that cannot have one.
        """
        self.base_method.insert(model)
        if model.has_part("reads_weights") or any(
            path.rpartition(".")[2] == "up" and not isinstance(part, nn.Linear)
            for block in model.blocks
            for path, part in block.named_modules()
        ):
            raise ValueError(
                f"{type(self.base_method).__name__} as it is configured has matrices that no gate "
                "can stand behind, since they are no plain linears or are read beside being "
                "called; choose another base method, or put it around method.base_method=unipelt"
            )
        ups: dict[int, dict[str, nn.Linear]] = {n: {} for n in range(len(model.blocks))}
        for path, linear in model.inserted("up").items():
            block = model.block_of(f"{path}.weight")
            if block in ups:  # a prefix is made outside of them
                ups[block][path] = linear
        prefix = hasattr(model.module, "prefix")
        if not prefix and not any(ups.values()):
            raise ValueError(
                f"{type(self.base_method).__name__} inserts nothing that a gate could close"
            )
        real: list[Tensor] = []
        model.module.register_forward_pre_hook(_PaddingMaskHook(real), with_kwargs=True)
        for attention, found in zip(model.each("attention"), ups.values(), strict=True):
            if getattr(attention, "relative_attention", False) and _in_scores(model, found):
                raise ValueError(
                    f"{model.name} has no gates for updates of queries and keys: relative "
                    "positions go through them; choose other target_modules"
                )
            gates = Gates(model.dim, len(found) + prefix, real, model.device)
            attention.gates = gates
            attention.register_forward_pre_hook(_look, with_kwargs=True)
            for number, (path, linear) in enumerate(found.items()):
                model.put(path, Gated(linear, gates, number))


def _in_scores(model: AdaptedModel, paths: Iterable[str]) -> bool:
    roles = [f".{model.path(role)}." for role in ("query", "key")]
    return any(role in path for role in roles for path in paths)


class Gates(nn.Module):
    """The gates of a block."""

    open: Tensor

    def __init__(self, dim: int, count: int, real: list[Tensor], device: torch.device):
        super().__init__()
        self.linear = nn.Linear(dim, count, device=device)
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)
        self.real = real

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, dim) to (batch, gates), the mean over real tokens; `open` keeps it."""
        real = self.real[0][..., None]
        self.open = (self.linear(x).float().sigmoid() * real).sum(1) / real.sum(1)
        return self.open


class Gated(nn.Module):
    """A part's last matrix, under the name it had, and its gate."""

    gates: Gates

    def __init__(self, up: nn.Module, gates: Gates, number: int):
        super().__init__()
        self.up = up
        set_unregistered(self, "gates", gates)  # a submodule of the attention
        self.number = number

    def forward(self, h: Tensor) -> Tensor:
        """(batch, tokens, width) to (batch, tokens, out)."""
        y: Tensor = self.up(h)
        return y * self.gates.open[:, self.number, None, None].to(y.dtype)


class _PaddingMaskHook:
    """A hook on the whole model, which alone is told where padding is."""

    def __init__(self, real: list[Tensor]):
        self.real = real

    def __call__(self, module: nn.Module, given: object, named: dict[str, Any]) -> None:
        mask = named["attention_mask"].bool()
        self.real[:] = [mask[:, 0].any(1) if mask.ndim == 4 else mask]


def _look(attention: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
    """A hook on an attention: set the gates; the last is the prefix's, where there is one."""
    x = given[0] if given else named["hidden_states"]
    attention.prefix_gate = attention.gates(x)[:, -1]
