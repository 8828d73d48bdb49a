"""What several runs train, stacked along a run axis for as long as they train.

Parameters and AdamW's moments of a run are one row of three matrices (runs, parameters); the run's
own model and optimizer see that row through views. So gradients, clipping and the update of all
runs of a pass are a few operations on matrices, however many runs there are, while everything
that looks at one run alone (evaluation, checkpoints, the hooks of its method) works as ever.

A pass:  losses, gradients = vmap(loss)(rows, batches)
         gradients of each run clipped to its own norm, AdamW with its own rate and decay
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from peftbench.data.batching import Batch, micro_batches
from peftbench.training.loop import Training
from peftbench.training.packing.vmapped import mapped


@dataclass(frozen=True)
class _Part:
    """Where in a row a parameter lies."""

    name: str
    shape: torch.Size
    start: int
    end: int


@dataclass(frozen=True)
class _Segment:
    """Columns of one parameter group: whether they decay, and the factor of their rate."""

    start: int
    end: int
    decayed: bool
    factor: float


class RunStack:
    """Rows for runs whose trained tensors have the same names and shapes.

    Args:
        first: a run of that kind; it does not enter by that.
        size: rows.
    """

    def __init__(self, first: Training, size: int):
        self.size = size
        self.runs: list[Training | None] = [None] * size
        encoder = first.predictor.encoder
        names = {id(p): name for name, p in encoder.trained().items()}
        self.parts: list[_Part] = []
        self.segments: list[_Segment] = []
        start = 0
        for group in first.parameter_groups:
            begin = start
            for p in group["params"]:
                self.parts.append(_Part(names[id(p)], p.shape, start, start + p.numel()))
                start += p.numel()
            self.segments.append(_Segment(begin, start, group["decayed"], group["factor"]))
        device = encoder.device
        self.values, self.exp_avg, self.exp_avg_sq = (
            torch.zeros(size, start, device=device) for _ in range(3)
        )
        self.steps = torch.zeros(size, len(self.parts), device=device)
        self.fixed = {
            name: torch.empty(size, *t.shape, dtype=t.dtype, device=device)
            for name, t in encoder.own().items()
            if not t.requires_grad
        }

    @property
    def free(self) -> int:
        """Rows that no run has."""
        return self.runs.count(None)

    def enter(self, run: Training) -> None:
        """Copy a run's tensors into a free row, and let the run see that row from now on.

        Raises:
            ValueError: if all rows are taken.
        """
        row = self.runs.index(None)
        self.runs[row] = run
        own = run.predictor.encoder.own()
        with torch.no_grad():
            for number, part in enumerate(self.parts):
                self._admit(run, row, number, part, own[part.name])
            for name, stacked in self.fixed.items():
                stacked[row].copy_(own[name])
                own[name].data = stacked[row]

    def _admit(self, run: Training, row: int, number: int, part: _Part, p: Tensor) -> None:
        held = run.optimizer.state[p]
        sources = {"exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq}
        for name, matrix in sources.items():
            view = matrix[row, part.start : part.end].view(part.shape)
            view.copy_(held[name]) if name in held else view.zero_()
            held[name] = view
        step = self.steps[row, number]
        step.copy_(held["step"]) if "step" in held else step.zero_()
        held["step"] = step
        view = self.values[row, part.start : part.end].view(part.shape)
        p.data = view.copy_(p)

    def leave(self, run: Training) -> None:
        """Free the row of a run that is over."""
        self.runs[self.runs.index(run)] = None

    def gradients(
        self, runs: Sequence[Training], batches: Batch, micro: int | None
    ) -> tuple[Tensor, Tensor]:
        """The loss of each run on its batch, and the gradients: (runs,) and (runs, parameters).

        Args:
            runs: that are in the stack.
            batches: on the CPU, with a run axis in front.
            micro: examples of a run for each pass; None is the whole batch.
        """
        predictor = runs[0].predictor
        rows = self._rows(runs)
        values = self._of(self.values, rows)
        leaves = {
            part.name: values[:, part.start : part.end]
            .view(len(runs), *part.shape)
            .detach()
            .requires_grad_()
            for part in self.parts
        }
        fixed = {name: self._of(t, rows) for name, t in self.fixed.items()}
        each = mapped(runs, leaves | fixed, predictor.method.compute_loss)
        size = batches["labels"].shape[1]
        losses = torch.zeros(len(runs), device=predictor.device)
        flat: Tensor | None = None
        for piece in micro_batches(batches, micro or size, axis=1):
            moved = {n: t.to(predictor.device, non_blocking=True) for n, t in piece.items()}
            with predictor.accelerator.autocast():
                found = each(moved) * (piece["labels"].shape[1] / size)
            new = torch.autograd.grad(found.sum(), list(leaves.values()), allow_unused=True)
            whole = [
                torch.zeros_like(leaf) if grad is None else grad
                for leaf, grad in zip(leaves.values(), new, strict=True)
            ]
            row = torch.cat([grad.reshape(len(runs), -1) for grad in whole], dim=1)
            flat = row if flat is None else flat.add_(row)
            losses += found.detach()
        assert flat is not None
        return losses, flat

    def update(self, runs: Sequence[Training], grads: Tensor) -> None:
        """Clip the gradients of each run, and take its AdamW step; `grads` is used up.

        As torch's AdamW and `clip_grad_norm_`, with rate, decay and clipping of each run.
        """
        recipes = [run.config for run in runs]
        told = [
            [run.learning_rate for run in runs],
            [recipe.weight_decay for recipe in recipes],
            [recipe.max_grad_norm or float("inf") for recipe in recipes],
        ]
        rate, decay, clip = torch.tensor(told, device=grads.device).unsqueeze(-1).unbind()
        rows = self._rows(runs)
        with torch.no_grad():
            values, exp_avg, exp_avg_sq, steps = (
                self._of(t, rows) for t in (self.values, self.exp_avg, self.exp_avg_sq, self.steps)
            )
            norms = torch.linalg.vector_norm(grads, dim=1, keepdim=True)
            grads.mul_(torch.clamp(clip / (norms + 1e-6), max=1.0))
            steps += 1
            defaults = runs[0].optimizer.defaults
            (first, second), eps = defaults["betas"], defaults["eps"]
            exp_avg.lerp_(grads, 1 - first)
            exp_avg_sq.mul_(second).addcmul_(grads, grads, value=1 - second)
            taken = steps[:, :1]
            torch.sqrt(exp_avg_sq, out=grads)
            grads.div_((1 - second**taken).sqrt()).add_(eps)
            torch.div(exp_avg, grads, out=grads)
            size = rate / (1 - first**taken)
            for one in self.segments:
                part = values[:, one.start : one.end]
                if one.decayed:
                    part.mul_(1 - one.factor * rate * decay)
                part.addcmul_(grads[:, one.start : one.end], -one.factor * size)
            if rows is not None:
                pairs = ((self.values, values), (self.exp_avg, exp_avg))
                for whole, new in (*pairs, (self.exp_avg_sq, exp_avg_sq), (self.steps, steps)):
                    whole.index_copy_(0, rows, new)

    def predictions(self, runs: Sequence[Training]) -> Callable[[Batch], dict[str, Tensor]]:
        """A function of one batch: the outputs of each run's method for it, (runs, batch, …)."""
        predictor = runs[0].predictor
        predictor.encoder.eval()
        rows = self._rows(runs)
        values = self._of(self.values, rows)
        tensors = {
            part.name: values[:, part.start : part.end].view(len(runs), *part.shape)
            for part in self.parts
        } | {name: self._of(t, rows) for name, t in self.fixed.items()}
        each = mapped(runs, tensors, predictor.method.predict)

        def outputs(batch: Batch) -> dict[str, Tensor]:
            found: dict[str, Tensor] = each(
                {name: t.expand(len(runs), *t.shape) for name, t in batch.items()}
            )
            return found

        return outputs

    def _rows(self, runs: Sequence[Training]) -> Tensor | None:
        """Numbers of the runs' rows; None where these are all rows in order."""
        rows = [self.runs.index(run) for run in runs]
        if rows == list(range(self.size)):
            return None
        return torch.tensor(rows, device=self.values.device)

    @staticmethod
    def _of(stacked: Tensor, rows: Tensor | None) -> Tensor:
        return stacked if rows is None else stacked.index_select(0, rows)
