"""SparseAdapter: a base method with few weights, chosen before training.

He, Ding, Dong, Zhang and Tao: SparseAdapter, EMNLP Findings 2022, arXiv 2210.04284.
Lee et al.: SNIP, ICLR 2019. Wang et al.: GraSP, ICLR 2020. Evci et al.: RigL, ICML 2020 (the
Erdős–Rényi densities).

The weights w of the base method's matrices are scored once and the best `keep` of them stay;
the rest are zero from then on. With L the loss on training batches, dropout off, g its gradient,
H its Hessian:

    random: N(0, 1)    magnitude: |w|    snip: |w g|    grasp: w (H g), highest stay
    er: random, a matrix' density in proportion to (out + in) / (out in)

Large-Sparse is `widen: k` with `keep: 1/k`: as many weights as before, in a wider base method.

Departures from the paper: bottleneck and recipe are the base method's own. In the authors' code an
adapter has a norm of its input, ReLU, and the backbone's dropout between its matrices; their script
has lr 1e-4, decay 0.1, batch 48 and 10 epochs. The head trains (in their script it keeps its random
start); batches are as large for GraSP as for the others; ties are broken at random. Magnitude, SNIP
and GraSP refuse base methods with matrices of zeros (LoRA's start), of which they tell nothing.
`score: learned` goes further than the paper: hard-concrete gates, whose expected number beyond
`keep` costs `penalty`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, TypeVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from peftbench.core.run import Json
from peftbench.data.batching import Batch
from peftbench.methods.base import Method, WrapperMethod, micro_batches_with_shares
from peftbench.methods.layers import masked
from peftbench.methods.settings import Limits
from peftbench.models.adapted_model import AdaptedModel

Part = TypeVar("Part", masked.MaskedLinear, masked.GatedLinear)


@dataclass(frozen=True, kw_only=True)
class SparseAdapter(WrapperMethod):
    """A base method of whose matrices the part `keep` exists."""

    keep: Annotated[float, Limits(above=0, between=(0, 1))]
    score: Annotated[str, Limits(choices=("random", "magnitude", "er", "snip", "grasp", "learned"))]
    scope: Annotated[str, Limits(choices=("global", "local"))]
    batches: Annotated[int, Limits(at_least=1)]
    widen: Annotated[int, Limits(at_least=1)]
    penalty: Annotated[float, Limits(at_least=0)]

    @property
    def task_alone(self) -> bool:
        """Whether no gates have a price, and the base method's are the task's own."""
        return self.score != "learned" and self.base_method.task_alone

    def insert(self, model: AdaptedModel) -> None:
        """Insert the base method, wider if asked, and give its matrices masks or gates."""
        self._inner().insert(model)
        found = model.inserted("down", "up")
        if not found:
            raise ValueError(
                f"{type(self.base_method).__name__} has no matrices to prune; choose adapter, "
                "parallel, lora, prefix or combined as method.base_method"
            )
        by_weight = self.score in ("snip", "magnitude", "grasp")
        if by_weight and not all(linear.weight.any() for linear in found.values()):
            raise ValueError(
                f"score={self.score} is 0 for a matrix of {type(self.base_method).__name__} that "
                "starts at 0, so that it tells nothing of its weights and may prune all of them: "
                "use random or er, or another base_method, such as adapter"
            )
        if self.score == "learned" and model.has_part("reads_weights"):
            raise ValueError(
                "score=learned gates the updates of DoRA, whose lengths are those of the weights "
                "without gates: choose another score, or method.base_method.use_dora=false"
            )
        kind = masked.GatedLinear if self.score == "learned" else masked.MaskedLinear
        for name, linear in found.items():
            model.put(name, kind(linear))

    def export_forms(self) -> tuple[str, ...]:
        """Those of the base method, whose pruned weights are 0; none with gates."""
        if self.score == "learned":
            raise ValueError(
                "SparseAdapter with score=learned has a gate at each weight, which no other "
                "library holds; weights times gates could be exported: train with another score "
                "for a folder, or use `peftbench predict KEY`"
            )
        return super().export_forms()

    def to_peft(self, model: AdaptedModel) -> tuple[Json, dict[str, Tensor]]:
        """That of the base method, as wide as it was inserted."""
        return self._inner().to_peft(model)

    def to_adapters(self, model: AdaptedModel, name: str) -> tuple[Json, dict[str, Tensor]]:
        """That of the base method, as wide as it was inserted."""
        return self._inner().to_adapters(model, name)

    def merge(self, model: AdaptedModel) -> None:
        """Let the base method do it, as wide as it was inserted."""
        self._inner().merge(model)

    def _inner(self) -> Method:
        return self.base_method.scale_width(self.widen) if self.widen > 1 else self.base_method

    def on_train_begin(self, model: AdaptedModel, batches: Iterator[Batch]) -> None:
        """Score on `batches` batches, and prune."""
        self.base_method.on_train_begin(model, batches)
        parts = _parts(model, masked.MaskedLinear)
        if not parts:
            return
        scores = self._scores(model, parts, batches)
        if not any(score.any() for score in scores.values()):
            raise ValueError(
                f"score={self.score} is 0 for every weight of this base method; use random or er"
            )
        local = self.scope == "local"
        chosen = (
            masked.erdos_renyi(scores, self.keep)
            if self.score == "er"
            else masked.best(scores, self.keep, local)
        )
        for name, part in parts.items():
            part.keep(chosen[name])

    def compute_loss(self, model: AdaptedModel, batch: Batch) -> Tensor:
        """The base method's loss, and the price of open gates."""
        loss = self.base_method.compute_loss(model, batch)
        gates = _parts(model, masked.GatedLinear).values()
        if not gates:
            return loss
        count = sum(gate.weight.numel() for gate in gates)
        kept = torch.stack([gate.expected() for gate in gates]).sum() / count
        return loss + self.penalty * torch.relu(kept - self.keep)

    def _scores(
        self, model: AdaptedModel, parts: dict[str, masked.MaskedLinear], batches: Iterator[Batch]
    ) -> dict[str, Tensor]:
        weights = [part.weight for part in parts.values()]
        if self.score in ("random", "er"):
            found = [torch.randn_like(w) for w in weights]
        elif self.score == "magnitude":
            found = [w.detach().abs() for w in weights]
        else:
            seen = list(islice(batches, self.batches))
            found = _by_gradient(self.score, self.base_method, model.eval(), weights, seen)
        return dict(zip(parts, found, strict=True))


def _by_gradient(
    score: str,
    base_method: Method,
    model: AdaptedModel,
    weights: Sequence[Tensor],
    batches: list[Batch],
) -> list[Tensor]:
    def gradient(share: float, piece: Batch, again: bool = False) -> tuple[Tensor, ...]:
        # in fp32, and for the second derivative by the kernel that has one
        with torch.autocast(model.device.type, enabled=False), sdpa_kernel(SDPBackend.MATH):
            loss = share * base_method.compute_loss(model, piece)
            return torch.autograd.grad(loss, weights, create_graph=again)

    cut = [one for batch in batches for one in micro_batches_with_shares(model, batch)]
    found = [gradient(*one) for one in cut]
    summed = [torch.stack(parts).sum(0) for parts in zip(*found, strict=True)]
    if score == "snip":
        return [(w * g).detach().abs() for w, g in zip(weights, summed, strict=True)]
    curved = [torch.zeros_like(w) for w in weights]
    for one in cut:
        again = gradient(*one, again=True)
        inner = sum(((a * b).sum() for a, b in zip(again, summed, strict=True)), torch.zeros(()))
        for total, h in zip(curved, torch.autograd.grad(inner, weights), strict=True):
            total += h
    return [(w * h).detach() for w, h in zip(weights, curved, strict=True)]


def _parts(model: AdaptedModel, kind: type[Part]) -> dict[str, Part]:
    return {name: part for name, part in model.module.named_modules() if isinstance(part, kind)}
