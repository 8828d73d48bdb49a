"""Robust partial fine-tuning: few influential blocks, a smooth answer, a step back.

A composition of published methods, not a reproduction of a paper:

Lee et al.: Surgical fine-tuning, ICLR 2023, arXiv 2210.11466 (Auto-RGN). Sung, Nair and Raffel:
FISH mask, NeurIPS 2021, arXiv 2111.09839. Pan et al.: LISA, NeurIPS 2024, arXiv 2403.17919.
Wortsman et al.: WiSE-FT, CVPR 2022, arXiv 2109.01903. Regularisers: see regularizers.py.

    rgn:    the `part` of the blocks with the greatest |g| / |w|, averaged over batches
    fisher: that with the greatest mean g^2
    lisa:   every `interval` steps another one, drawn at random; embeddings always train
    manual: the blocks that are listed            all: all of them
    loss = task loss + strength * penalty         at the end: w = (1 - wise) w + wise w0

Departures from the papers: scores choose whole blocks (Auto-RGN scales rates of tensors, FISH masks
scalars) and are taken once; `fisher` squares the gradient of a batch's mean loss, FISH those of
single examples; what is below the blocks stays frozen but for `lisa` and `all`. In
`suite=continual` the end is that of each round: of what the first of T rounds learnt (1 - wise)^T
is left, of a training on all rounds at once 1 - wise. There the blocks of the first round stay
where pretrained weights train; inserted ones (lora) are chosen again in each round, by gradients of
the model before any training.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

import torch
from torch import Tensor

from peftbench.data.batching import Batch
from peftbench.methods.base import (
    Method,
    WrapperMethod,
    micro_batches_with_shares,
    not_in_fp16,
    task_loss,
)
from peftbench.methods.regularizers import PENALTIES, divergence
from peftbench.methods.settings import Limits
from peftbench.models.adapted_model import AdaptedModel


@dataclass(frozen=True, kw_only=True)
class RobustPartial(WrapperMethod):
    """A base method, of whose trained parameters those of some blocks train.

    Attributes:
        choose, which: rgn, fisher, lisa, manual or all; the blocks for `manual`, from 0.
        part: of the blocks, rounded, at least one.
        batches, interval: to score on; steps between `lisa`'s choices.
        penalty: none, rdrop, r3f or smart.
        strength, epsilon: of the penalty; of the change that r3f and smart make to embeddings.
        wise: part of the pretrained weights in the end.
    """

    choose: Annotated[str, Limits(choices=("rgn", "fisher", "lisa", "manual", "all"))]
    part: Annotated[float, Limits(between=(0, 1))]
    which: Annotated[list[int], Limits(blocks=True)]
    batches: Annotated[int, Limits(at_least=1)]
    interval: Annotated[int, Limits(at_least=1)]
    penalty: Annotated[str, Limits(choices=("none", "rdrop", "r3f", "smart"))]
    strength: Annotated[float, Limits(at_least=0)]
    epsilon: Annotated[float, Limits(at_least=0)]
    wise: Annotated[float, Limits(between=(0, 1))]

    @property
    def supports_packing(self) -> bool:
        """Not with a penalty: it takes derivatives of its own."""
        return self.penalty == "none" and super().supports_packing

    @property
    def task_alone(self) -> bool:
        """Whether there is no penalty, and the base method's are the task's own."""
        return self.penalty == "none" and self.base_method.task_alone

    @property
    def moves_at_end(self) -> bool:
        """Whether weights go back, or the base method moves them."""
        return self.wise > 0 or super().moves_at_end

    @property
    def names_blocks(self) -> bool:
        """Whether it or the base method does."""
        return bool(self.which) or super().names_blocks

    def insert(self, model: AdaptedModel) -> None:
        """Insert the base method; all that it trains still does."""
        depth = len(model.blocks)
        if not all(0 <= block < depth for block in self.which):
            raise ValueError(f"which={self.which}: {model.name} has {depth} blocks, from 0")
        self.base_method.insert(model)
        if self.wise and not any(
            model.pretrained_of(name) is not None and not model.in_head(name)
            for name in model.trained()
        ):
            raise ValueError(
                f"wise={self.wise} goes back towards the pretrained weights, of which "
                f"{type(self.base_method).__name__} trains none: choose wise=0, or another "
                "base_method, such as full"
            )
        if self.choose == "lisa":  # a choice is a function of this and the step
            model.module.register_buffer("lisa_seed", torch.randint(2**31, ()))

    def on_train_begin(self, model: AdaptedModel, batches: Iterator[Batch]) -> None:
        """Choose the blocks, and freeze the others.

        Raises:
            ValueError: if there is nothing to choose from, to score by, or to compare.
        """
        if self.penalty == "rdrop" and not (model.drops or model.has_part("draws_weights")):
            raise ValueError(
                f"penalty=rdrop compares two passes with different dropout, and neither "
                f"{model.name} nor {type(self.base_method).__name__} as it is configured drops "
                "anything, so that both passes are one: choose smart or r3f, or a base method with "
                "dropout, such as method.base_method=lora method.base_method.dropout=0.1"
            )
        self.base_method.on_train_begin(model, batches)
        if self.choose != "all" and not self._by_block(model):
            raise ValueError(
                f"choose={self.choose}: {type(self.base_method).__name__} trains nothing that is "
                f"inside a block of {model.name}, so that all of it would train; choose=all does "
                "that on purpose"
            )
        if self.choose in ("all", "lisa"):
            return
        chosen = self.which
        if not chosen:
            scores = self._scores(model, list(islice(batches, self.batches)))
            chosen = sorted(scores, key=lambda b: -scores[b])[: self._count(model)]
        model.freeze(lambda name: model.block_of(name) not in (*chosen, None))

    def compute_loss(self, model: AdaptedModel, batch: Batch) -> Tensor:
        """The task's loss, and the penalty."""
        if self.penalty == "none":
            return self.base_method.compute_loss(model, batch)
        if self.penalty == "rdrop":
            (first, logits), (second, others) = (self._pass(model, batch) for _ in range(2))
            apart = divergence(logits, others, batch["labels"])
            return (first + second) / 2 + self.strength * apart / 2
        logits = model(batch)
        plain = (
            type(self.base_method).compute_loss is Method.compute_loss
        )  # then these logits are enough
        loss = (
            task_loss(logits, batch["labels"], batch.get("weights"))
            if plain
            else self.base_method.compute_loss(model, batch)
        )
        penalty = PENALTIES[self.penalty](model, batch, logits, self.epsilon)
        return loss + self.strength * penalty

    def _pass(self, model: AdaptedModel, batch: Batch) -> tuple[Tensor, Tensor]:
        """The base method's loss, and the logits of its (last) forward pass."""
        seen: list[Tensor] = []
        hook = model.register_forward_hook(lambda module, given, logits: seen.append(logits))
        try:
            loss = self.base_method.compute_loss(model, batch)
        finally:
            hook.remove()
        return loss, seen[-1]

    def on_step_end(self, model: AdaptedModel, step: int, steps: int | None) -> None:
        """Let the base method act; draw other blocks where it is time."""
        self.base_method.on_step_end(model, step, steps)
        if self.choose == "lisa":
            seed = int(model.module.lisa_seed) + step // self.interval
            generator = torch.Generator().manual_seed(seed)
            order = torch.randperm(len(model.blocks), generator=generator)
            active = {-1, None, *order[: self._count(model)].tolist()}
            model.rest(lambda name: model.block_of(name) not in active)

    def on_train_end(self, model: AdaptedModel) -> None:
        """Go back towards the pretrained weights."""
        super().on_train_end(model)
        if self.wise:
            state = model.state()
            for name in state:
                start = model.pretrained_of(name)
                if start is not None and not model.in_head(name):
                    state[name] = state[name].lerp(start.float(), self.wise)
            model.restore(state)

    def _count(self, model: AdaptedModel) -> int:
        return max(1, round(self.part * len(model.blocks)))

    def _by_block(self, model: AdaptedModel) -> dict[int, list[Any]]:
        """What trains inside the blocks."""
        found: dict[int, list[Any]] = {}
        for name, parameter in model.trained().items():
            block = model.block_of(name)
            if block is not None and block >= 0:
                found.setdefault(block, []).append(parameter)
        return found

    def _scores(self, model: AdaptedModel, batches: list[Batch]) -> dict[int, float]:
        """How much each block asks to change.

        Raises:
            ValueError: if all that trains in a block is 0, where rgn divides by its norm.
        """
        model.eval()
        found = self._by_block(model)
        if self.choose == "rgn" and not all(
            any(bool(p.any()) for p in parameters) for parameters in found.values()
        ):
            raise ValueError(
                f"choose=rgn divides by the norm of a block's trained weights, and those of "
                f"{type(self.base_method).__name__} in {model.name} start at 0; choose fisher or "
                "manual"
            )
        scores = dict.fromkeys(found, 0.0)
        every = [parameter for parameters in found.values() for parameter in parameters]
        for batch in batches:
            summed: dict[Tensor, Tensor] = {}
            for share, piece in micro_batches_with_shares(model, batch):
                with not_in_fp16(model.device):
                    loss = share * self.base_method.compute_loss(model, piece)
                    grads = torch.autograd.grad(
                        loss, every, allow_unused=True, materialize_grads=True
                    )
                for parameter, grad in zip(every, grads, strict=True):
                    before = summed.get(parameter)
                    summed[parameter] = grad if before is None else before + grad
            for block, parameters in found.items():
                squares = sum(float(summed[p].square().sum()) for p in parameters)
                if self.choose == "rgn":
                    weights = sum(float(p.detach().square().sum()) for p in parameters)
                    scores[block] += math.sqrt(squares / weights)
                else:
                    scores[block] += squares / sum(p.numel() for p in parameters)
        return scores
