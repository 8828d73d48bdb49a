"""The only training loop, through accelerate. It knows no method by name.

A training is a function of the run: what it draws comes from the run's seeds, batches depend on
the order seed alone, and evaluations and warm-up passes leave no trace in the random state. So an
interrupted training continues exactly (bitwise on a CPU).
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor

from peftbench.core.run import Json
from peftbench.core.training_config import Budget, Recipe, Selection
from peftbench.data.batching import Feed
from peftbench.models.adapted_model import Encoder
from peftbench.training import checkpointing
from peftbench.training.distributed import Peers
from peftbench.training.measurement import Phases, warm_up
from peftbench.training.predictor import Predictor
from peftbench.training.requests import Asking, Gradient
from peftbench.training.state import Progress

#: Between the seeds of processes that train one run.
_APART = 1_000_003

#: On a GPU the losses are looked at together after so many steps, or the CPU would wait each time.
LOOK = 25


class Interrupted(Exception):
    """Training was asked to stop; its checkpoint is written."""


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

    evaluate: Callable[[], Asking[Json]]
    better: Callable[[Json], float | None]
    report: Callable[[Json], None]
    stop: Callable[[], bool]
    save: Callable[[dict[str, Tensor], Json], None]
    minutes: float


def fit(
    view: Predictor,
    recipe: Recipe,
    budget: Budget,
    selection: Selection,
    feed: Feed,
    hooks: Hooks,
    phases: Phases,
    seed: int,
    saved: tuple[dict[str, Tensor], Json] | None = None,
) -> Asking[tuple[Progress, float]]:
    """Train what the view's encoder marks as trained; end with the progress and the model's FLOPs.

    Args:
        seed: of dropout.
        saved: a checkpoint to go on from.

    Raises:
        FloatingPointError: at a loss that is not finite, with its step.
        Interrupted: when `hooks.stop` says so; the checkpoint is written.
        torch.OutOfMemoryError: when the micro-batch is too large.
    """
    encoder, method, accelerator = view.encoder, view.method, view.accelerator
    peers = Peers(accelerator)  # they sum gradients: a wrapped encoder would hide its parts
    groups = _groups(encoder.trained(), recipe, method.rates(encoder))
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, fused=True)
    accelerator.prepare_model(encoder, evaluation_mode=peers.count > 1)
    wrapped = accelerator.prepare_optimizer(optimizer)
    with phases.phase("warmup"), torch.random.fork_rng():
        flops = warm_up(view, recipe.micro_batch, feed)
    torch.manual_seed(seed + _APART * peers.rank)
    progress, best = Progress(), {}
    if saved is not None:
        progress, best = Progress(**saved[1]), checkpointing.restore(saved[0], encoder, optimizer)
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
                rate = recipe.rate(progress.fraction(budget, steps, ahead=0.5))
                batch = next(stream)
                loss = yield Gradient(view, batch, recipe.micro_batch)
                assert isinstance(loss, Tensor)
                losses.append(_step(loss, wrapped, rate, recipe.clip, peers))
                progress.count(batch)
                method.after_step(encoder, progress.step, steps)
                asked: float = hooks.stop()
                late = asked or time.monotonic() - saved_at > between
                pause: float = alone and late
                due = progress.due(budget, steps, recipe) > progress.marks
                if len(losses) >= look or due or pause:
                    progress.look(losses)
                    spent = phases.now() - start
                    progress.seconds, asked, pause = peers.agree(spent, asked, late)
                    due = progress.due(budget, steps, recipe) > progress.marks
                if time.monotonic() - told_at > 0.5 and progress.recent:
                    told_at = time.monotonic()
                    hooks.report(progress.news(progress.fraction(budget, steps)))
                if due or pause:
                    break
        if due:
            progress.marks = progress.due(budget, steps, recipe)
            progress.done = progress.marks >= recipe.evaluations
            if progress.done:
                method.finish(encoder)
            with phases.phase("evaluate"), torch.random.fork_rng():
                scores = yield from hooks.evaluate()
            progress.point(progress.fraction(budget, steps), scores)
            if selection.fraction:
                best = _select(progress, selection, hooks, encoder, best)
        if pause and not progress.done:
            state = checkpointing.tensors(encoder, optimizer, best) | peers.random()
            if peers.rank == 0:
                hooks.save(state, asdict(progress))
            saved_at = time.monotonic()
            if asked:
                raise Interrupted(f"stopped at step {progress.step}")
    if best:
        encoder.restore(best)
    return progress, flops[0] * progress.padded + flops[1] * progress.squares


def _step(
    loss: Tensor, optimizer: AcceleratedOptimizer, rate: float, clip: float | None, peers: Peers
) -> Tensor:
    """One optimizer step with the gradients that are there; the loss over all processes."""
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    loss = peers.add(loss, trained)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    if clip is not None:
        peers.accelerator.clip_grad_norm_(trained, clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss


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
