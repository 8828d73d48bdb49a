"""How a run trains: recipe, budget and selection, checked as soon as they are made."""

from dataclasses import dataclass

from peftbench.core.errors import ConfigError, above, at_least, between, one_of

SCHEDULES = ("linear", "constant")
PRECISIONS = ("bf16", "fp32")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The optimisation that all methods share; AdamW.

    Attributes:
        batch: examples for each optimizer step.
        micro_batch: examples for each forward pass; None is the whole batch.
        lr: peak learning rate.
        schedule: one of `SCHEDULES`, after a linear warm-up.
        warmup: fraction of the budget.
        weight_decay: on matrices only.
        clip: largest gradient norm; None is no clipping.
        precision: one of `PRECISIONS`; bf16 is autocast over fp32 weights.
        max_length: tokens of an example.
        evaluations: points on the curve, the last at the end of the budget.
    """

    batch: int
    lr: float
    schedule: str
    warmup: float
    weight_decay: float
    precision: str
    max_length: int
    evaluations: int
    clip: float | None
    micro_batch: int | None

    def __post_init__(self) -> None:
        at_least("train.batch", self.batch, 1, whole=True)
        if self.micro_batch is not None:
            at_least("train.micro_batch", self.micro_batch, 1, whole=True)
        above("train.lr", self.lr, 0)
        one_of("train.schedule", self.schedule, SCHEDULES)
        one_of("train.precision", self.precision, PRECISIONS)
        between("train.warmup", self.warmup, 0, 1)
        at_least("train.weight_decay", self.weight_decay, 0)
        if self.clip is not None:
            above("train.clip", self.clip, 0)
        at_least("train.max_length", self.max_length, 8, whole=True)
        at_least("train.evaluations", self.evaluations, 1, whole=True)

    def rate(self, fraction: float) -> float:
        """The learning rate when a fraction of the budget is spent."""
        if fraction < self.warmup:
            return self.lr * fraction / self.warmup
        if self.schedule == "constant":
            return self.lr
        return self.lr * max(0.0, (1 - fraction) / max(1 - self.warmup, 1e-12))


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a run may spend: exactly one of epochs, steps and seconds of training.

    Attributes:
        calibrated: take the steps that so many seconds buy by a short measurement, so that runs
            may be packed; the seconds themselves are then not looked at.
    """

    epochs: float | None = None
    steps: int | None = None
    seconds: float | None = None
    calibrated: bool = False

    def __post_init__(self) -> None:
        given = [n for n in ("epochs", "steps", "seconds") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ConfigError(f"a budget is one of epochs, steps and seconds, got {given}")
        if self.calibrated not in (True, False):
            raise ConfigError(f"budget.calibrated must be true or false, got {self.calibrated!r}")
        if self.calibrated and self.seconds is None:
            raise ConfigError("budget.calibrated=true is for budget=seconds alone")
        if self.steps is not None:
            at_least("budget.steps", self.steps, 1, whole=True)
        else:
            above(f"budget.{given[0]}", getattr(self, given[0]), 0)

    def steps_of(self, batches: int) -> int | None:
        """Optimizer steps when an epoch has so many batches; None for a budget of seconds."""
        if self.epochs is not None:
            return max(1, round(self.epochs * batches))
        return self.steps

    def overshoot(self, seconds: float) -> float | None:
        """How many seconds of training were too many; None if it was no budget of seconds."""
        return None if self.seconds is None else seconds - self.seconds


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A split carved out of train, on which the best moment of a training is chosen.

    Attributes:
        fraction: of the training examples; 0 is no selection.
        patience: evaluations without a better score before training stops.
    """

    fraction: float = 0.0
    patience: int = 0

    def __post_init__(self) -> None:
        if self.fraction:
            between("select.fraction", self.fraction, 0, 0.5)
            at_least("select.patience", self.patience, 1, whole=True)
