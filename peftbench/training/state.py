"""How far a training is, as plain data: what its checkpoint, its curve and its news are made of."""

import math
import warnings
from dataclasses import dataclass, field

import torch
from torch import Tensor

from peftbench.core.configs import Budget, TrainingConfig
from peftbench.core.run import Json
from peftbench.data.batching import Batch


@dataclass
class TrainerState:
    """How far a training is; plain data, saved with every checkpoint.

    Attributes:
        seconds: of training alone.
        recent: losses since the latest evaluation.
        marks: evaluations that were due.
        padded, squares: tokens with padding, and the sum of their products with the length.
        undefined: diagnostics that were not finite, and at how many evaluations.
        curve: evaluations so far.
        best: index in the curve of the best evaluation on the selection split.
        done: whether the budget is spent, or patience has run out.
    """

    step: int = 0
    marks: int = 0
    examples: int = 0
    tokens: int = 0
    padded: int = 0
    squares: int = 0
    seconds: float = 0.0
    recent: list[float] = field(default_factory=list)
    undefined: dict[str, int] = field(default_factory=dict)
    curve: list[Json] = field(default_factory=list)
    best: int | None = None
    done: bool = False

    def count(self, batch: Batch) -> None:
        """Add a batch that was trained on."""
        rows, length = batch["input_ids"].shape
        self.step += 1
        self.examples += rows
        self.tokens += int(batch["lengths"].sum())
        self.padded += rows * length
        self.squares += rows * length * length

    def fraction(
        self, budget: Budget, steps: int | None, ahead: float = 0, pace: float = 0
    ) -> float:
        """The part of the budget that is spent, or will be in so many steps.

        Args:
            budget: of the training.
            steps: that it buys; None for one of seconds.
            ahead: steps to come.
            pace: seconds of a step, before there was any.
        """
        if steps == 0:  # nothing is to be trained
            return 1.0
        if steps is not None:
            return (self.step + ahead) / steps
        assert budget.seconds is not None
        pace = self.seconds / self.step if self.step else pace
        return (self.seconds + ahead * pace) / budget.seconds

    def due(self, budget: Budget, steps: int | None, recipe: TrainingConfig) -> int:
        """How many of the evenly spaced evaluations are due by now."""
        fraction = min(1.0, self.fraction(budget, steps))
        return math.floor(fraction * recipe.num_evals + 1e-9)

    def look(self, losses: list[Tensor]) -> None:
        """Bring losses to the CPU, and stop at the first that is not finite.

        Raises:
            FloatingPointError: with its step.
        """
        if not losses:
            return
        values: list[float] = torch.stack(losses).tolist()
        for place, value in enumerate(values):
            if not math.isfinite(value):
                at = self.step - len(values) + place + 1
                raise FloatingPointError(
                    f"the loss is {value} at step {at}; try a smaller train.lr"
                )
        losses.clear()
        self.recent += values

    def news(self, fraction: float, resumed: float) -> Json:
        """What a display shows.

        Args:
            fraction: of the budget that is spent.
            resumed: the part of it that was spent before this process.
        """
        return {
            "step": self.step,
            "fraction": fraction,
            "resumed": resumed,
            "loss": self.recent[-1],
            "speed": self.examples / self.seconds if self.seconds else None,
        }

    def point(self, fraction: float, scores: Json, figures: Json, undefined: list[str]) -> None:
        """Add an evaluation to the curve.

        Args:
            fraction: of the budget that is spent.
            scores: by metric.
            figures: the method's diagnostics.
            undefined: those of them that were not finite; counted and warned of.

        Raises:
            ValueError: if a figure has a name that the curve has.
        """
        mean = sum(self.recent) / len(self.recent) if self.recent else None  # before any step
        self.recent.clear()
        own = {
            "step": self.step,
            "fraction": min(1.0, fraction),
            "seconds": self.seconds,
            "examples": self.examples,
            "loss": mean,
            **scores,
        }
        if taken := sorted(own.keys() & figures.keys()):
            raise ValueError(
                f"the method's diagnostics have the names {', '.join(taken)}, which are those of "
                "the loss and the scores; choose others"
            )
        for name in undefined:
            self.undefined[name] = self.undefined.get(name, 0) + 1
            warnings.warn(
                f"{name} of the method's diagnostics is not finite; it is recorded as null",
                stacklevel=2,
            )
        self.curve.append(own | figures)
