"""What several runs train, stacked along a run axis for as long as they train.

Parameters and AdamW's moments of a run are one row of three matrices (runs, parameters); the run's
own model and optimizer see that row through views. So gradients and clipping of all runs of a pass
are a few operations on matrices, however many runs there are, while everything that looks at one
run alone (evaluation, checkpoints, the hooks of its method) works as ever. The update is torch's
fused AdamW, once for each run and parameter group, as it takes one rate: it reads and writes a row
once, where arithmetic on the matrices would do so a dozen times, and a graph launches all of them.

A pass:  losses, gradients = vmap(loss)(rows, batches)
         gradients of each run clipped to its own norm, AdamW with its own rate and decay
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from peftbench.data.batching import Batch, micro_batches, to_device
from peftbench.training import step_graphs
from peftbench.training.predictor import Predictor
from peftbench.training.session import Training
from peftbench.training.step_graphs import PAYS, WARM, Inputs, StepGraphs
from peftbench.training.vmapped import mapped


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
        tell: called with the reason why steps cannot be captured.
        grain: passes are of a multiple of so many runs, as each number of runs is a shape of its
            own: rows that no run can have fill them up.
    """

    def __init__(
        self, first: Training, size: int, tell: Callable[[str], None] = print, grain: int = 1
    ):
        self.size, self.grain = size, grain
        self.runs: list[Training | None] = [None] * size
        model = first.predictor.model
        names = {id(p): name for name, p in model.trained().items()}
        self.parts: list[_Part] = []
        self.segments: list[_Segment] = []
        start = 0
        for group in first.optimizer.param_groups:
            begin = start
            for p in group["params"]:
                self.parts.append(_Part(names[id(p)], p.shape, start, start + p.numel()))
                start += p.numel()
            self.segments.append(_Segment(begin, start, group["decayed"], group["factor"]))
        defaults = first.optimizer.defaults
        self.betas: tuple[float, float] = defaults["betas"]
        self.eps: float = defaults["eps"]
        device = model.device
        rows = size + max(self.filled(count) - count for count in range(1, size + 1))
        self.values, self.exp_avg, self.exp_avg_sq = (
            torch.zeros(rows, start, device=device) for _ in range(3)
        )
        self.steps = torch.zeros(rows, len(self.parts), device=device)
        changing = (self.values, self.exp_avg, self.exp_avg_sq, self.steps)
        self.graphs = StepGraphs(device, changing, tell, WARM if size == 1 else PAYS)
        own = model.own()
        self.fixed = {
            name: t.detach().expand(rows, *t.shape).clone()
            for name, t in own.items()
            if not t.requires_grad
        }
        for part in self.parts:  # what fills up computes what a run does
            whole = own[part.name].detach().reshape(-1)
            self.values[size:, part.start : part.end] = whole

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
        own = run.predictor.model.own()
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

    def filled(self, count: int) -> int:
        """Runs of the pass that so many are taken in."""
        if count >= self.grain:
            return min(-(-count // self.grain) * self.grain, max(count, self.size))
        return min(self.grain, 1 << (count - 1).bit_length())

    def leave(self, run: Training) -> None:
        """Free the row of a run that is over."""
        self.runs[self.runs.index(run)] = None

    def step(self, runs: Sequence[Training], batches: Batch, micro: int | None) -> Tensor:
        """Take an optimizer step of each run; the losses of its batch before it, (runs,).

        Args:
            runs: that are in the stack.
            batches: with a run axis in front, on the CPU.
            micro: examples of a run for each pass; None is the whole batch.

        Raises:
            torch.OutOfMemoryError: then nothing has changed.
        """
        inputs, predictor = self.inputs(runs, batches), runs[0].predictor

        def one(inputs: Inputs) -> Tensor:
            losses, grads = self.gradients(predictor, inputs, micro)
            self.update(grads, inputs)
            return losses

        return self.graphs.take((len(runs), micro), one, inputs)[: len(runs)]

    def warm_up(self, batches: Sequence[Batch], micro: int | None) -> None:
        """Take steps of the only run, until each shape is captured, and undo them.

        Memory is measured of steps that are taken as they are, without the copy for undoing them:
        a capture copies the state too, which no step of the training does.

        Args:
            batches: one of each shape, on the CPU.
            micro: as in `step`.
        """
        [run] = [run for run in self.runs if run is not None]
        before = [tensor.clone() for tensor in self.graphs.state]
        copied = sum(tensor.nbytes for tensor in before)
        run.predictor.model.train()
        try:
            with torch.random.fork_rng():
                for batch in batches:
                    one = partial(self.step, [run], {n: t[None] for n, t in batch.items()}, micro)
                    for _ in range(WARM):
                        peak = run.phases.peak_of("warmup", one) - copied
                        self.graphs.peak_bytes = max(self.graphs.peak_bytes, peak)
                    one()
        finally:
            for tensor, values in zip(self.graphs.state, before, strict=True):
                tensor.copy_(values)

    def inputs(self, runs: Sequence[Training], batches: Batch) -> Inputs:
        """All that a step reads beside the stack itself, on the device.

        Returns:
            The tensors of the batches, and `rows` of the runs (left out where they are all rows in
            order), their `recipe` (3, runs, 1): rate, decay, clipping, and `examples` (runs,). The
            first run stands in the place of those that fill up, in rows of their own.
        """
        more = self.filled(len(runs)) - len(runs)
        rows = [self.runs.index(run) for run in runs] + list(range(self.size, self.size + more))
        if more:
            runs = [*runs, *[runs[0]] * more]
            batches = {
                name: torch.cat([t, t[:1].expand(more, *t.shape[1:])])
                for name, t in batches.items()
            }
        recipes = [run.config for run in runs]
        told = [
            [run.learning_rate for run in runs],
            [recipe.weight_decay for recipe in recipes],
            [recipe.max_grad_norm or float("inf") for recipe in recipes],
        ]
        counts = [float(run.predictor.model.examples) for run in runs]
        own = {"recipe": torch.tensor(told).unsqueeze(-1), "examples": torch.tensor(counts)}
        if rows != list(range(self.size)):
            own["rows"] = torch.tensor(rows)
        return to_device(own | batches, self.values.device)

    def gradients(
        self, predictor: Predictor, inputs: Inputs, micro: int | None
    ) -> tuple[Tensor, Tensor]:
        """The loss of each run on its batch, and the gradients: (runs,) and (runs, parameters).

        Args:
            predictor: whose model and method compute for all.
            inputs: from `inputs`.
            micro: examples of a run for each pass; None is the whole batch.
        """
        examples = inputs["examples"]
        batches = {name: t for name, t in inputs.items() if name not in _OWN}
        count, size = batches["labels"].shape[:2]
        values = self._of(self.values, inputs)
        leaves = {
            part.name: values[:, part.start : part.end]
            .view(count, *part.shape)
            .detach()
            .requires_grad_()
            for part in self.parts
        }
        fixed = {name: self._of(t, inputs) for name, t in self.fixed.items()}
        each = mapped(predictor, leaves | fixed, examples, predictor.method.compute_loss)
        losses = torch.zeros(count, device=values.device)
        flat: Tensor | None = None
        for piece in micro_batches(batches, micro or size, axis=1):
            with predictor.accelerator.autocast():
                found = each(piece) * (piece["labels"].shape[1] / size)
            new = torch.autograd.grad(found.sum(), list(leaves.values()), allow_unused=True)
            whole = [
                torch.zeros_like(leaf) if grad is None else grad
                for leaf, grad in zip(leaves.values(), new, strict=True)
            ]
            row = torch.cat([grad.reshape(count, -1) for grad in whole], dim=1)
            flat = row if flat is None else flat.add_(row)
            losses += found.detach()
        assert flat is not None
        return losses, flat

    def update(self, grads: Tensor, inputs: Inputs) -> None:
        """Clip the gradients of each run, and take its AdamW step; `grads` is used up.

        Args:
            grads: (runs, parameters).
            inputs: from `inputs`.
        """
        rate, decay, clip = inputs["recipe"].unbind()
        state = (self.values, self.exp_avg, self.exp_avg_sq, self.steps)
        with torch.no_grad():
            norms = torch.linalg.vector_norm(grads, dim=1, keepdim=True)
            grads.mul_(torch.clamp(clip / (norms + 1e-6), max=1.0))
            values, exp_avg, exp_avg_sq, steps = (self._of(t, inputs) for t in state)
            for one in self.segments:
                columns = slice(one.start, one.end)
                if one.decayed:
                    values[:, columns].mul_(1 - one.factor * rate * decay)
                for row, taken in enumerate(steps[:, :1].clone()):
                    adamw(
                        [values[row, columns]],
                        [grads[row, columns]],
                        [exp_avg[row, columns]],
                        [exp_avg_sq[row, columns]],
                        [],
                        [taken[0]],
                        fused=True,
                        amsgrad=False,
                        maximize=False,
                        lr=one.factor * rate[row, 0],
                        weight_decay=0.0,  # a rate of decay is a number here, not a tensor
                        eps=self.eps,
                        beta1=self.betas[0],
                        beta2=self.betas[1],
                    )
            steps += 1
            if (rows := inputs.get("rows")) is not None:
                for whole, part in zip(state, (values, exp_avg, exp_avg_sq, steps), strict=True):
                    whole.index_copy_(0, rows, part)

    def predictions(self, runs: Sequence[Training]) -> Callable[[Batch], dict[str, Tensor]]:
        """A function of one batch: the outputs of each run's method for it, (runs, batch, …)."""
        predictor = runs[0].predictor
        predictor.model.eval()
        numbers = [self.runs.index(run) for run in runs]
        rows = torch.tensor(numbers, device=self.values.device)
        values = self.values.index_select(0, rows)
        tensors = {
            part.name: values[:, part.start : part.end].view(len(runs), *part.shape)
            for part in self.parts
        } | {name: t.index_select(0, rows) for name, t in self.fixed.items()}
        counts = [float(run.predictor.model.examples) for run in runs]
        examples = torch.tensor(counts, device=self.values.device)
        each = mapped(predictor, tensors, examples, predictor.method.predict)

        def outputs(batch: Batch) -> dict[str, Tensor]:
            found: dict[str, Tensor] = each(
                {name: t.expand(len(runs), *t.shape) for name, t in batch.items()}
            )
            return found

        return outputs

    def _of(self, stacked: Tensor, inputs: Inputs) -> Tensor:
        """The rows of a pass: those of all runs as they lie there, or copies of some."""
        rows = inputs.get("rows")
        return stacked[: self.size] if rows is None else stacked.index_select(0, rows)


#: Inputs of a step that are no part of a batch.
_OWN = ("rows", "recipe", "examples")


def captured_alone(training: Training, batches: Sequence[Batch]) -> StepGraphs:
    """Have a run that trains alone take its steps as graphs, where that is possible; else warn.

    Args:
        training: that has not begun, or was restored.
        batches: one of each shape that it will meet, on the CPU.

    Returns:
        The graphs, which say so where its steps stay as they were.
    """
    predictor, micro = training.predictor, training.config.micro_batch_size
    refused = StepGraphs(predictor.device, (), _warn)
    if refused.refused is not None:
        return refused
    if reason := not_stacked(training):
        refused.refuse(reason)
        return refused
    try:
        stack = RunStack(training, 1, _warn)
        stack.enter(training)
        stack.warm_up(batches, micro)
    except Exception as error:  # what cannot be mapped or has no memory for a stack trains as ever
        refused.refuse(step_graphs.reason_of(error))
        return refused

    def take(batch: Batch) -> Tensor:
        return stack.step([training], {name: t[None] for name, t in batch.items()}, micro)[0]

    training.take_step = take
    return stack.graphs


def _warn(text: str) -> None:
    """A worker passes warnings on to the person; what it prints is in the run's log alone."""
    warnings.warn(text, stacklevel=2)


def row_bytes(own: Iterable[Tensor]) -> int:
    """Bytes of a run in a stack: what trains has two moments beside it.

    Args:
        own: the tensors of the run's own.
    """
    return sum(t.numel() * t.element_size() * (3 if t.requires_grad else 1) for t in own)


def not_stacked(training: Training) -> str:
    """Why a run's own tensors cannot be rows of a stack; empty if they can."""
    accelerator = training.predictor.accelerator
    if accelerator.num_processes > 1:
        return "several processes train one run"
    if accelerator.scaler is not None:
        return "fp16 scales the loss of each run"
    if training.config.gradient_checkpointing:
        return "train.gradient_checkpointing computes activations again"
    if not training.predictor.method.supports_packing:
        return "the method takes derivatives of its own, or reads gradients"
    groups = training.optimizer.param_groups
    if not all(p.requires_grad for group in groups for p in group["params"]):
        return "the method lets parameters rest for some steps"
    return ""
