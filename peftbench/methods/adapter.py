"""Bottleneck adapters.

Houlsby, Giurgiu, Jastrzebski, Morrone, de Laroussilhe, Gesmundo, Attariyan and Gelly:
Parameter-efficient transfer learning for NLP, ICML 2019, arXiv 1902.00751 (section 2.1).
Pfeiffer, Kamath, Rücklé, Cho and Gurevych: AdapterFusion, EACL 2021, arXiv 2005.00247.
He, Zhou, Ma, Berg-Kirkpatrick and Neubig: Towards a unified view, ICLR 2022, arXiv 2110.04366.

A small two-layer network with a residual of its own, near the identity at the start:

    Houlsby, after a linear (attn_out, ffn_out):   y = h + s U f(D h)        h = W x
    Pfeiffer, around a norm (ffn_norm):            y = LN(z + s U f(D LN(z)))
    parallel, beside the feed-forward (ffn):       y = FFN(x) + s U f(D x)

    D: (width, dim)        U: (dim, width)        z: the sum of the block's output and its residual

Houlsby's recipe trains the norms of all blocks too.

Departures from the papers: `start: normal` draws weights from N(0, 0.02²) as in SparseAdapter's
code (Houlsby: truncated at two deviations of 1e-3). Houlsby's adapter stands right after its
linear, before the dropout (as SparseAdapter's code has it at the attention); in the authors' own
code, modeling.py of google-research/adapter-bert, it stands after the dropout. `train_norms` trains
the norms of the blocks; the authors' code trains the norm of the embeddings as well. In a pre-norm
block (ModernBERT) a norm comes before its layer; Pfeiffer's adapter then stands after ffn_out,
without the norm, as there. Beside the feed-forward there is no dropout inside, and the layer's own
acts on the sum; He et al.'s code has 0.1 between D and U and adds what they make after the layer's
dropout.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from peftbench.core.roles import ROLES
from peftbench.core.run import Json
from peftbench.methods.base import OWN, Method
from peftbench.methods.settings import Limits
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.module_ops import Tap, set_unregistered

NORMS = ("attn_norm", "ffn_norm")
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


@dataclass(frozen=True, kw_only=True)
class Adapter(Method):
    """Bottlenecks of `width` after the linears, around the norms, or beside what `at` names.

    Attributes:
        at: roles, and `ffn` for a bottleneck beside the whole feed-forward network.
        scale: s above.
        start: "normal", or "lora" for D as in a linear layer and U zero.
        train_norms: whether the norms of all blocks train as well.
    """

    identity_at_init: ClassVar[bool] = False

    width: Annotated[int, Limits(at_least=1)]
    at: Annotated[
        list[str],
        Limits(
            roles=(*ROLES, "ffn"),
            if_empty="name places of bottlenecks, or train norms alone with method=layernorm",
        ),
    ]
    activation: Annotated[str, Limits(choices=("relu", "gelu", "silu", "tanh"))]
    scale: Annotated[float, Limits(above=0)]
    start: Annotated[str, Limits(choices=("normal", "lora"))]
    train_norms: bool

    def insert(self, model: AdaptedModel) -> None:
        """Add the bottlenecks; unfreeze the norms before those are wrapped."""
        if self.train_norms:
            norms = {id(p) for norm in model.each(*NORMS) for p in norm.parameters()}
            model.unfreeze("norm", lambda name, parameter: id(parameter) in norms)
        dim = model.dim
        for role in self.at:
            if role == "ffn":
                beside = partial(BesideFFN, method=self, dim=dim, taps=model.tap("ffn_in"))
                model.replace("ffn_out", by=beside)
                continue
            around = role in NORMS and not model.pre_norm
            place = _AFTER_IN_PRE_NORM[role] if role in NORMS and not around else role
            kind = AroundNorm if around else AfterLinear
            model.replace(place, by=partial(kind, method=self, dim=dim))

    def export_forms(self) -> tuple[str, ...]:
        """Their weights, for peftbench and the adapters library: they cannot be merged."""
        return (OWN,)

    def to_adapters(self, model: AdaptedModel, name: str) -> tuple[Json, dict[str, Tensor]]:
        """A BnConfig's arguments; for models whose linears are called as BERT's."""
        places = {role: model.path(role) for role in ("attn_out", "ffn_out", *NORMS)}
        if places != _AS_IN_BERT or model.pre_norm:
            raise ValueError(f"the adapters library calls the parts of {model.name} otherwise")
        if frozenset(self.at) not in _LIBRARY:
            raise ValueError(f"the adapters library has no adapters at {', '.join(self.at)}")
        if model.dim % self.width:
            raise ValueError(
                f"the adapters library takes no width of {self.width}, which does not divide "
                f"{model.dim}"
            )
        config = _LIBRARY[frozenset(self.at)] | {
            "reduction_factor": model.dim // self.width,
            "non_linearity": self.activation,
            "scaling": float(self.scale),
            "original_ln_after": True,
            "residual_before_ln": True,
            "adapter_residual_before_ln": False,
            "ln_before": False,
            "ln_after": False,
        }
        tensors = {}
        for ours, tensor in model.state().items():
            inner = re.sub(r"\.(?:dense|LayerNorm)\.bottleneck\.", f".adapters.{name}.", ours)
            inner = inner.replace(f".adapters.{name}.down.", f".adapters.{name}.adapter_down.0.")
            inner = inner.replace(f".adapters.{name}.up.", f".adapters.{name}.adapter_up.")
            if not inner.endswith(".mask"):  # what it covers is 0
                tensors[inner.replace(".LayerNorm.part.", ".LayerNorm.")] = tensor.clone()
        return config, tensors

    def scale_width(self, times: int) -> "Adapter":
        """As many times as wide."""
        return replace(self, width=self.width * times)


_AS_IN_BERT = {
    "attn_out": "attention.output.dense",
    "ffn_out": "output.dense",
    "attn_norm": "attention.output.LayerNorm",
    "ffn_norm": "output.LayerNorm",
}

#: Places of adapters as arguments of the adapters library.
_LIBRARY: dict[frozenset[str], Json] = {
    frozenset(at): {
        "mh_adapter": "attn_out" in at,
        "output_adapter": True,
        "original_ln_before": "ffn_norm" in at,
        "is_parallel": "ffn" in at,
    }
    for at in (("attn_out", "ffn_out"), ("ffn_norm",), ("ffn",))
}

_AFTER_IN_PRE_NORM = {"attn_norm": "attn_out", "ffn_norm": "ffn_out"}


class Bottleneck(nn.Module):
    """s U f(D x), without the residual."""

    def __init__(self, method: Adapter, dim: int, device: torch.device):
        super().__init__()
        self.down = nn.Linear(dim, method.width, device=device)
        self.activation = ACTIVATIONS[method.activation]()
        self.up = nn.Linear(method.width, dim, device=device)
        self.scale = method.scale
        for linear in (self.down, self.up):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        if method.start == "lora":
            nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
            nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, dim) to the same."""
        y = self.up(self.activation(self.down(x)))
        return y if self.scale == 1 else self.scale * y


class Beside(nn.Module):
    """A part of the model and the bottleneck that goes with it."""

    def __init__(self, part: nn.Module, method: Adapter, dim: int):
        super().__init__()
        self.part = part
        self.bottleneck = Bottleneck(method, dim, next(part.parameters()).device)


class AfterLinear(Beside):
    """Houlsby's place."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, in) to (batch, tokens, dim)."""
        h = self.part(x)
        return h + self.bottleneck(h)


class AroundNorm(Beside):
    """Pfeiffer's place."""

    def forward(self, z: Tensor) -> Tensor:
        """(batch, tokens, dim) to the same; `part` is the norm of the sum z."""
        return self.part(z + self.bottleneck(self.part(z)))


class BesideFFN(Beside):
    """He et al.'s place; `part` is the feed-forward's last linear, `tap` saw what its first got."""

    tap: Tap

    def __init__(self, part: nn.Module, method: Adapter, dim: int, taps: Iterator[Tap]):
        super().__init__(part, method, dim)
        set_unregistered(self, "tap", next(taps))

    def forward(self, h: Tensor) -> Tensor:
        """(batch, tokens, inner) to (batch, tokens, dim)."""
        return self.part(h) + self.bottleneck(self.tap.seen)
