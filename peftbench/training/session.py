"""A training in progress: what its steps change, and when it evaluates and saves.

A training is a function of the run: what it draws comes from the run's seeds, batches depend on
the order seed alone, and evaluations and warm-up passes leave no trace in the random state. So an
interrupted training continues exactly (bitwise on a CPU).
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from peftbench.core.configs import Budget, CheckpointSelection, TrainingConfig
from peftbench.core.figures import plain_figures
from peftbench.core.run import Json
from peftbench.data.batching import Batch, BatchSource
from peftbench.training import checkpointing
from peftbench.training.distributed import ProcessGroup
from peftbench.training.lr_schedule import learning_rate
from peftbench.training.measurement import Phases, step_seconds, warm_up
from peftbench.training.precision import restore_scaler, scaler_state
from peftbench.training.predictor import Predictor
from peftbench.training.state import TrainerState

#: Between the seeds of processes that train one run.
_APART = 1_000_003

#: On a GPU the losses are looked at together after so many steps, or the CPU would wait each time.
LOOK = 25


class TrainingInterrupted(Exception):
    """Training was asked to stop; its checkpoint is written."""


@dataclass(frozen=True)
class TrainerCallbacks:
    """What the surroundings do with a training.

    Attributes:
        report: gets step, fraction, loss and examples per second now and then.
        stop: whether to checkpoint and leave; called at every step.
        save: writes a checkpoint: tensors and state.
        minutes: between checkpoints.
    """

    report: Callable[[Json], None]
    stop: Callable[[], bool]
    save: Callable[[dict[str, Tensor], Json], None]
    minutes: float


@dataclass(frozen=True)
class StoppingRule:
    """When a training ends, and which of its evaluations it goes back to.

    Attributes:
        budget: that it may spend.
        selection: whether the best evaluation is kept, and when patience ends.
        metric: by which evaluations are ranked.
    """

    budget: Budget
    selection: CheckpointSelection
    metric: str


class Training:
    """A training in progress: what its steps change, and when it evaluates and saves.

    Args:
        predictor: of the model and the method that are trained.
        config: rate, clipping, number of evaluations.
        ends: when it ends.
        batches: in their order.
        callbacks: reports, stops and checkpoints.
        phases: the clock.
        seed: of dropout.
        saved: a checkpoint to continue from.

    Attributes:
        optimizer: torch's own; its parameter groups also say `decayed` and `factor` of the rate.
        take_step: gradients of a batch on the CPU and an optimizer step; returns the loss, a scalar
            on the device.
    """

    def __init__(
        self,
        predictor: Predictor,
        config: TrainingConfig,
        ends: StoppingRule,
        batches: BatchSource,
        callbacks: TrainerCallbacks,
        phases: Phases,
        seed: int,
        saved: tuple[dict[str, Tensor], Json] | None = None,
    ):
        self.predictor, self.config, self.ends = predictor, config, ends
        self.callbacks, self.phases = callbacks, phases
        self.state, self.best = TrainerState(), dict[str, Tensor]()
        self._before_end: dict[str, Tensor] = {}
        self.take_step: Callable[[Batch], Tensor] = self._take_step
        self.evaluation_due = False
        model, method, accelerator = predictor.model, predictor.method, predictor.accelerator
        self._peers = ProcessGroup(
            accelerator
        )  # they sum gradients: a wrapped model hides its parts
        groups = parameter_groups(model.trained(), config, method.lr_multipliers(model))
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, fused=True)
        accelerator.prepare_model(model, evaluation_mode=self._peers.count > 1)
        self._prepared = accelerator.prepare_optimizer(self.optimizer)
        with phases.phase("warmup"), torch.random.fork_rng():
            self._flops = warm_up(predictor, config.micro_batch_size, batches, phases.shared)
            self._pace = 0.0
            if ends.budget.seconds is not None and saved is None:  # else its first step has no rate
                longest, micro = batches.extremes[-1], config.micro_batch_size
                (self._pace,) = self._peers.agree(step_seconds(predictor, micro, longest))
        torch.manual_seed(seed + _APART * self._peers.rank)
        if saved is not None:
            self.state = TrainerState(**saved[1])
            self.best = checkpointing.restore(saved[0], model, self.optimizer)
            self._peers.restore(saved[0])
            restore_scaler(saved[0], accelerator)
        self.steps = ends.budget.steps_of(batches.epoch)
        self._resumed = self.state.fraction(ends.budget, self.steps) if saved is not None else 0.0
        method.on_step_end(model, self.state.step, self.steps)
        self._stream = batches.stream(self.state.step)
        timed = ends.budget.seconds is not None
        self._look = LOOK if accelerator.device.type == "cuda" and not timed else 1
        self._losses: list[Tensor] = []
        self._clock: ExitStack | None = None
        self._start = 0.0
        self._saved_at = self._reported_at = time.monotonic()
        self._pause = self._stop = False

    @property
    def done(self) -> bool:
        """Whether the budget is spent, or patience has run out."""
        return self.state.done

    @property
    def flops(self) -> float:
        """Model FLOPs so far, forward and backward."""
        return self._flops[0] * self.state.padded + self._flops[1] * self.state.squares

    def next_batch(self) -> Batch:
        """The next batch, on the CPU; the clock of training runs from the first one on."""
        if self._clock is None:
            self.predictor.model.train()
            self._clock = ExitStack()
            self._clock.enter_context(self.phases.phase("train"))
            self._start = self.phases.now() - self.state.seconds
        return next(self._stream)

    @property
    def learning_rate(self) -> float:
        """Of the step that comes next, before the factors of parameter groups."""
        fraction = self.state.fraction(self.ends.budget, self.steps, 0.5, self._pace)
        return learning_rate(self.config, fraction, self.state.step + 0.5)

    def _take_step(self, batch: Batch) -> Tensor:
        """Gradients of a batch and an optimizer step; the loss, a scalar on the device."""
        return self.update(self.predictor.gradients(batch, self.config.micro_batch_size))

    def update(self, loss: Tensor) -> Tensor:
        """Clip the gradients that are there and take an optimizer step.

        Args:
            loss: of the batch that gave them, a scalar on the device.

        Returns:
            The loss over all processes that train together.
        """
        peers = self._peers
        groups = self._prepared.param_groups
        trained = [p for group in groups for p in group["params"]]
        loss = peers.add(loss, trained)
        rate = self.learning_rate
        for group in groups:
            group["lr"] = rate * group["factor"]
        if self.config.max_grad_norm is not None:
            peers.accelerator.clip_grad_norm_(trained, self.config.max_grad_norm)
        else:
            peers.accelerator.unscale_gradients()
        if peers.accelerator.scaler is None or _finite(trained):  # else the step is left out
            self.predictor.method.on_gradients(self.predictor.model)
        self._prepared.step()
        self._prepared.zero_grad(set_to_none=True)
        return loss

    def advance(self, batch: Batch, loss: Tensor) -> None:
        """Count a step that was taken; see what is due by now.

        Args:
            batch: of the step.
            loss: its mean loss, a scalar on the device.

        Raises:
            FloatingPointError: at a loss that is not finite, with its step.
        """
        state, peers, rate = self.state, self._peers, self.learning_rate
        self._losses.append(loss)
        state.count(batch)
        model, method = self.predictor.model, self.predictor.method
        method.extra_update(model, state.step, self.config.batch_size, rate / self.config.lr)
        method.on_step_end(model, state.step, self.steps)
        self._stop = self.callbacks.stop()
        late = self._stop or time.monotonic() - self._saved_at > 60 * self.callbacks.minutes
        self._pause = late and peers.count == 1
        self.evaluation_due = self._marks_due() > state.marks
        if len(self._losses) >= self._look or self.evaluation_due or self._pause:
            state.look(self._losses)
            spent = self.phases.now() - self._start
            state.seconds, stop, pause = peers.agree(spent, self._stop, late)
            self._stop, self._pause = bool(stop), bool(pause)
            self.evaluation_due = self._marks_due() > state.marks
        if time.monotonic() - self._reported_at > 0.5 and state.recent:
            self._reported_at = time.monotonic()
            fraction = state.fraction(self.ends.budget, self.steps)
            self.callbacks.report(state.news(fraction, self._resumed))
        if self._clock is not None and (self.evaluation_due or self._pause):
            self._clock.close()
            self._clock = None

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """The clock of evaluation; random numbers drawn inside leave no trace."""
        self.state.marks = self._marks_due()
        self.state.done = self.state.marks >= self.config.num_evals
        model, method = self.predictor.model, self.predictor.method
        if self.ends.selection.fraction:
            if method.moves_at_end:
                self._before_end = {n: tensor.clone() for n, tensor in model.state().items()}
                method.on_train_end(model)
        elif self.state.done:
            method.on_train_end(model)
        with self.phases.phase("evaluate"), torch.random.fork_rng():
            yield

    def add_evaluation(self, scores: Json) -> None:
        """Add a point to the curve; keep the model where it is the best one so far.

        Raises:
            ValueError: if the method's diagnostics take a name that the curve has.
        """
        with torch.no_grad():
            more = self.predictor.method.diagnostics(self.predictor.model)
        figures, undefined = plain_figures(more)
        fraction = self.state.fraction(self.ends.budget, self.steps)
        self.state.point(fraction, scores, figures, undefined)
        if self.ends.selection.fraction:
            self._select()
        if self._before_end:
            self.predictor.model.restore(self._before_end)
            self._before_end = {}

    def checkpoint_if_due(self) -> None:
        """Write a checkpoint now and then, and before leaving.

        Raises:
            TrainingInterrupted: if a callback asked to stop.
        """
        if not self._pause or self.state.done:
            return
        model = self.predictor.model
        tensors = checkpointing.tensors(model, self.optimizer, self.best) | self._peers.random()
        tensors |= scaler_state(self.predictor.accelerator)
        if self._peers.rank == 0:
            self.callbacks.save(tensors, asdict(self.state))
        self._saved_at = time.monotonic()
        if self._stop:
            raise TrainingInterrupted(f"stopped at step {self.state.step}")

    def finish(self) -> None:
        """Take the model back to its best evaluation, where there is a selection."""
        if self.best:
            self.predictor.model.restore(self.best)
        if self.ends.selection.fraction and not self.predictor.method.moves_at_end:
            self.predictor.method.on_train_end(self.predictor.model)

    def _marks_due(self) -> int:
        return self.state.due(self.ends.budget, self.steps, self.config)

    def _select(self) -> None:
        """Keep the state of the best evaluation so far; stop when patience runs out."""
        state = self.state
        scores = [point[self.ends.metric] for point in state.curve]
        ranked = [-math.inf if score is None else score for score in scores]
        if state.best is None or ranked[-1] > ranked[state.best]:
            state.best = len(ranked) - 1
            model = self.predictor.model
            self.best = {name: tensor.clone() for name, tensor in model.state().items()}
        elif len(ranked) - 1 - state.best >= self.ends.selection.patience:
            state.done = True


def _finite(parameters: list[torch.nn.Parameter]) -> bool:
    """Whether all gradients are: in fp16 those of a loss that was scaled too far overflow."""
    return all(p.grad is None or bool(p.grad.isfinite().all()) for p in parameters)


def parameter_groups(
    trained: dict[str, torch.nn.Parameter], recipe: TrainingConfig, factors: dict[str, float]
) -> list[Json]:
    """Decay on matrices; none on biases and norms, as in BERT's own code. Rates by factor.

    A parameter that is no weight says `_no_weight_decay`, as in other code bases.
    """
    groups: dict[tuple[bool, float], Json] = {}
    for decayed in (True, False):
        for name, parameter in trained.items():
            exempt = parameter.ndim < 2 or getattr(parameter, "_no_weight_decay", False)
            if decayed != exempt:
                factor = factors.get(name, 1.0)
                decay = recipe.weight_decay if decayed else 0.0
                new: Json = {"params": [], "weight_decay": decay, "factor": factor}
                new["decayed"] = decayed
                groups.setdefault((decayed, factor), new)["params"].append(parameter)
    return list(groups.values())
