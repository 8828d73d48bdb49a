"""The only training loop, through accelerate. It knows no method by name.

A training is a function of the run: what it draws comes from the run's seeds, batches depend on
the order seed alone, and evaluations and warm-up passes leave no trace in the random state. So an
interrupted training continues exactly (bitwise on a CPU).
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from peftbench import resume
from peftbench.batches import Feed, micro_batches
from peftbench.distributed import Peers
from peftbench.encoder import Batch, Encoder
from peftbench.measure import Phases
from peftbench.method import Method
from peftbench.recipe import Budget, Recipe, Selection
from peftbench.run import Json
from peftbench.warmup import warm_up

#: Between the seeds of processes that train one run.
_APART = 1_000_003

#: On a GPU the losses are looked at together after so many steps, or the CPU would wait each time.
LOOK = 25


class Interrupted(Exception):
    """Training was asked to stop; its checkpoint is written."""


@dataclass
class Progress:
    """How far a training is; plain data, saved with every checkpoint.

    Attributes:
        seconds: of training alone.
        recent: losses since the latest evaluation.
        marks: evaluations that were due.
        padded, squares: tokens with padding, and the sum of their products with the length.
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


@dataclass(frozen=True)
class Hooks:
    """What the surroundings want of a training.

    Attributes:
        evaluate: scores of the encoder as it is, on the split that the curve follows.
        better: the primary score of such an evaluation, None where undefined.
        report: told step, steps, loss and examples per second now and then.
        stop: asked at every step whether to checkpoint and leave.
        save: writes a checkpoint: tensors and progress.
        minutes: between checkpoints.
    """

    evaluate: Callable[[], Json]
    better: Callable[[Json], float | None]
    report: Callable[[Json], None]
    stop: Callable[[], bool]
    save: Callable[[dict[str, Tensor], Json], None]
    minutes: float


def fit(
    encoder: Encoder,
    method: Method,
    recipe: Recipe,
    budget: Budget,
    selection: Selection,
    feed: Feed,
    hooks: Hooks,
    accelerator: Accelerator,
    phases: Phases,
    seed: int,
    peers: Peers,
    saved: tuple[dict[str, Tensor], Json] | None = None,
) -> tuple[Progress, float]:
    """Train what the encoder marks as trained; return the progress and the model's FLOPs.

    Args:
        seed: of dropout.
        peers: the processes that train this together.
        saved: a checkpoint to go on from.

    Raises:
        FloatingPointError: at a loss that is not finite, with its step.
        Interrupted: when `hooks.stop` says so; the checkpoint is written.
        torch.OutOfMemoryError: when the micro-batch is too large.
    """
    groups = _groups(encoder.trained(), recipe, method.rates(encoder))
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, fused=True)
    # gradients are summed by `peers`: a wrapped encoder would hide its parts from the method
    encoder = accelerator.prepare_model(encoder, evaluation_mode=peers.count > 1)
    wrapped = accelerator.prepare_optimizer(optimizer)
    with phases.phase("warmup"), torch.random.fork_rng():
        flops = warm_up(encoder, method, recipe.micro_batch, feed, accelerator)
    torch.manual_seed(seed + _APART * peers.rank)
    progress, best = Progress(), {}
    if saved is not None:
        progress, best = Progress(**saved[1]), resume.restore(saved[0], encoder, optimizer)
        peers.restore(saved[0])
    steps = budget.steps_of(feed.epoch)
    method.after_step(encoder, progress.step, steps)
    stream = feed.stream(progress.step)
    look = LOOK if accelerator.device.type == "cuda" and budget.seconds is None else 1
    alone, between = peers.count == 1, 60 * hooks.minutes
    saved_at = told_at = time.monotonic()
    while not progress.done:
        losses: list[Tensor] = []
        encoder.train()
        with phases.phase("train"):
            start = phases.now() - progress.seconds
            while True:
                rate = recipe.rate(_fraction(progress, budget, steps, ahead=0.5))
                batch = next(stream)
                losses.append(_step(encoder, method, recipe, rate, batch, wrapped, peers))
                progress.count(batch)
                method.after_step(encoder, progress.step, steps)
                asked: float = hooks.stop()
                late = asked or time.monotonic() - saved_at > between
                pause: float = alone and late
                due = _marks(progress, budget, steps, recipe) > progress.marks
                if len(losses) >= look or due or pause:
                    progress.recent += _look(losses, progress.step)
                    spent = phases.now() - start
                    progress.seconds, asked, pause = peers.agree(spent, asked, late)
                    due = _marks(progress, budget, steps, recipe) > progress.marks
                if time.monotonic() - told_at > 0.5 and progress.recent:
                    told_at = time.monotonic()
                    hooks.report(_news(progress, _fraction(progress, budget, steps)))
                if due or pause:
                    break
        if due:
            progress.marks = _marks(progress, budget, steps, recipe)
            progress.done = progress.marks >= recipe.evaluations
            if progress.done:
                method.finish(encoder)
            with phases.phase("evaluate"), torch.random.fork_rng():
                scores = hooks.evaluate()
            progress.curve.append(_point(progress, _fraction(progress, budget, steps), scores))
            progress.recent.clear()
            if selection.fraction:
                best = _select(progress, selection, hooks, encoder, best)
        if pause and not progress.done:
            state = resume.tensors(encoder, optimizer, best) | peers.random()
            if peers.rank == 0:
                hooks.save(state, asdict(progress))
            saved_at = time.monotonic()
            if asked:
                raise Interrupted(f"stopped at step {progress.step}")
    if best:
        encoder.restore(best)
    return progress, flops[0] * progress.padded + flops[1] * progress.squares


def _fraction(progress: Progress, budget: Budget, steps: int | None, ahead: float = 0) -> float:
    """The part of the budget that is spent, or will be in so many steps."""
    if steps is not None:
        return (progress.step + ahead) / steps
    assert budget.seconds is not None
    pace = progress.seconds / progress.step if progress.step else 0.0
    return (progress.seconds + ahead * pace) / budget.seconds


def _marks(progress: Progress, budget: Budget, steps: int | None, recipe: Recipe) -> int:
    """How many of the evenly spaced evaluations are due by now."""
    fraction = min(1.0, _fraction(progress, budget, steps))
    return math.floor(fraction * recipe.evaluations + 1e-9)


def _look(losses: list[Tensor], step: int) -> list[float]:
    """Bring losses to the CPU, and stop at the first that is not finite."""
    if not losses:
        return []
    values: list[float] = torch.stack(losses).tolist()
    for place, value in enumerate(values):
        if not math.isfinite(value):
            at = step - len(values) + place + 1
            raise FloatingPointError(f"the loss is {value} at step {at}; try a smaller train.lr")
    losses.clear()
    return values


def _news(progress: Progress, fraction: float) -> Json:
    speed = progress.examples / progress.seconds if progress.seconds else None
    loss = progress.recent[-1]
    return {"step": progress.step, "fraction": fraction, "loss": loss, "speed": speed}


def _point(progress: Progress, fraction: float, scores: Json) -> Json:
    return {
        "step": progress.step,
        "fraction": min(1.0, fraction),
        "seconds": progress.seconds,
        "examples": progress.examples,
        "loss": sum(progress.recent) / len(progress.recent),
        **scores,
    }


def _select(
    progress: Progress,
    selection: Selection,
    hooks: Hooks,
    encoder: Encoder,
    best: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Keep the state of the best evaluation so far; stop when patience runs out."""
    worst = -math.inf
    scores = [hooks.better(point) for point in progress.curve]
    ranked = [worst if score is None else score for score in scores]
    if progress.best is None or ranked[-1] > ranked[progress.best]:
        progress.best = len(ranked) - 1
        best = {name: tensor.clone() for name, tensor in encoder.state().items()}
    elif len(ranked) - 1 - progress.best >= selection.patience:
        progress.done = True
    return best


def _groups(
    trained: dict[str, torch.nn.Parameter], recipe: Recipe, factors: dict[str, float]
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
                groups.setdefault((decayed, factor), new)["params"].append(parameter)
    return list(groups.values())


def _step(
    encoder: Encoder,
    method: Method,
    recipe: Recipe,
    rate: float,
    batch: Batch,
    optimizer: Any,
    peers: Peers,
) -> Tensor:
    """One optimizer step over a batch, micro-batch by micro-batch; its mean loss, detached."""
    size, accelerator = len(batch["labels"]), peers.accelerator
    total = torch.zeros((), device=accelerator.device)
    for micro in micro_batches(peers.share(batch), recipe.micro_batch or size):
        moved = {name: t.to(accelerator.device, non_blocking=True) for name, t in micro.items()}
        with accelerator.autocast():
            loss = method.loss(encoder, moved) * (len(micro["labels"]) / size)
        accelerator.backward(loss)
        total += loss.detach()
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    total = peers.add(total, trained)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    if recipe.clip is not None:
        accelerator.clip_grad_norm_(trained, recipe.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total
