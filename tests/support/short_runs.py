"""Runs of a few steps, executed in this process."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from peftbench.config.sweep import plan
from peftbench.core.run import Run
from peftbench.core.runtime import RuntimeConfig
from peftbench.methods.base import Method
from peftbench.models.adapted_model import AdaptedModel

CPU = RuntimeConfig(device="cpu")
SHORT = ("model=tiny", "size=24", "budget=steps", "budget.steps=4", "train.num_evals=2")


@dataclass(frozen=True, kw_only=True)
class Watched(Method):
    """Another method, whose batches and first head are noted."""

    base_method: Method
    batches: ClassVar[list[torch.Tensor]] = []
    heads: ClassVar[list[dict[str, torch.Tensor]]] = []

    def insert(self, model: AdaptedModel) -> None:
        """Insert the method."""
        self.base_method.insert(model)
        trained = model.trained().items()
        self.heads.append({n: p.detach().clone() for n, p in trained if model.in_head(n)})

    def compute_loss(self, model: AdaptedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The method's loss."""
        self.batches.append(batch["input_ids"])
        return self.base_method.compute_loss(model, batch)


def one(task, *words) -> Run:
    given = {word.partition("=")[0]: word for word in (*SHORT, *words)}  # the last one counts
    (run,) = plan(*task, *given.values()).runs
    return run


def losses(record):
    return [(point["step"], point["loss"]) for point in record.curve]


def after(steps):
    """Ask to stop when so many steps are done."""
    asked = iter(range(10**6))
    return lambda: next(asked) >= steps
