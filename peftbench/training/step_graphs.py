"""Steps as CUDA graphs: what a step launches is recorded once for each shape and then replayed.

A LoRA step on one GPU launches about 800 kernels and waits for the CPU most of the time; a replay
is one launch. Recorded are addresses, so a step reads its inputs from tensors that stay, and what
it changes stays where it is (`run_stack`).
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Inputs = dict[str, Tensor]

#: Steps of a shape that are taken as they are before it is captured: libraries choose kernels and
#: take memory in them, which may not happen while a graph records.
WARM = 1

#: The same in a pack, where capturing a shape takes as long as some five replays of it save.
PAYS = 6


#: Records steps, one after the other: gives what replays a step, and where its result is then.
Capture = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]


def _capture_on_cuda() -> Capture:
    """Graphs of one memory pool: no two run at a time, and what one leaves is copied at once.

    With a pool for each, 12 shapes of 64 LoRA runs of BERT-base took 123 GiB.
    """
    pool = torch.cuda.graph_pool_handle()

    def capture(step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            out = step()
        return graph.replay, out

    return capture


#: Makes what records steps, by device; a step is not carried out by that. Where there is nothing,
#: steps are taken as they are.
CAPTURE: dict[str, Callable[[], Capture]] = {"cuda": _capture_on_cuda}


#: How far a replayed step may be from the step, relative: the order of sums may differ.
NEAR = 1e-2


@dataclass(frozen=True)
class _Captured:
    """A recorded step; it holds what lies at the addresses that were recorded."""

    step: Callable[[Inputs], Tensor]
    inputs: Inputs
    replay: Callable[[], None]
    out: Tensor

    def take(self, inputs: Inputs) -> Tensor:
        """Replay it with other values."""
        for name, tensor in inputs.items():
            self.inputs[name].copy_(tensor, non_blocking=True)
        self.replay()
        return self.out.clone()


def reason_of(error: Exception) -> str:
    """What an error says first, for a record: CUDA's go on about memory for lines."""
    first = str(error).partition("\n")[0]
    return ". ".join(first.split(". ")[:2]) or type(error).__name__


class StepGraphs:
    """Takes steps, by replaying them where that is possible.

    Args:
        device: of all tensors.
        state: all that steps change.
        tell: called with the reason why steps, or those of a shape, are not replayed.
        after: steps of a shape that are taken as they are, before it is captured.

    Attributes:
        peak_bytes: that CUDA allocates in a step at most, as a replay takes its memory beforehand;
            0 where no step was measured.
    """

    def __init__(
        self,
        device: torch.device,
        state: Sequence[Tensor],
        tell: Callable[[str], None],
        after: int = WARM,
    ):
        self.refused = None if device.type in CAPTURE else f"no graphs on {device.type}"
        self.state, self._device, self._tell, self._after = state, device, tell, after
        self._capture = CAPTURE[device.type]() if self.refused is None else None
        self.peak_bytes = 0
        self._seen: dict[Hashable, int] = {}
        self._captured: dict[Hashable, _Captured] = {}
        self._too_large: set[Hashable] = set()

    @property
    def told(self) -> str:
        """How steps are taken, for a record."""
        if self.refused is not None:
            return self.refused
        count, more = len(self._captured), len(self._too_large)
        of, rest = (f" of {count + more}", ", no memory for the rest") if more else ("", "")
        return f"{count}{of} shapes captured{rest}"

    def take(self, kind: Hashable, step: Callable[[Inputs], Tensor], inputs: Inputs) -> Tensor:
        """Carry out a step.

        Args:
            kind: beside the shapes of its inputs, all that decides what the step launches.
            step: must change `state` in place, nothing else, and never look at a value.
            inputs: on the device.

        Returns:
            What the step returns.
        """
        key = (kind, *((name, tensor.shape, tensor.dtype) for name, tensor in inputs.items()))
        if self.refused is None and key not in self._captured and key not in self._too_large:
            self._seen[key] = self._seen.get(key, 0) + 1
            if self._seen[key] > self._after:
                self._record(key, step, inputs)
        found = self._captured.get(key)
        return step(inputs) if found is None else found.take(inputs)

    def _record(self, key: Hashable, step: Callable[[Inputs], Tensor], inputs: Inputs) -> None:
        """Capture a step on inputs that stay, and keep it if it does what the step does."""
        assert self._capture is not None
        try:
            held = {name: tensor.clone() for name, tensor in inputs.items()}
            replay, out = self._capture(lambda: step(held))
            captured = _Captured(step, held, replay, out)
            apart = self._apart(captured, step, inputs)
            if apart > NEAR:
                raise RuntimeError(f"a replayed step is {apart:.2g} off the step, relative")
            self._captured[key] = captured
        except torch.OutOfMemoryError:  # graphs of other shapes are as good as before
            if not self._too_large:
                self._tell("steps of a shape are launched one kernel at a time: no memory for more")
            self._too_large.add(key)
        except RuntimeError as error:
            self.refuse(reason_of(error))

    def refuse(self, reason: str) -> None:
        """Launch steps as they are from now on, and say why."""
        self.refused = reason
        self._captured.clear()
        self._tell(f"steps are launched one kernel at a time: {reason}")

    def _apart(
        self, captured: _Captured, step: Callable[[Inputs], Tensor], inputs: Inputs
    ) -> float:
        """The largest relative difference of what a step and its replay make of one state."""
        before, random = [t.clone() for t in self.state], self._random()
        try:
            out = step(inputs).clone()
            moved = [t.clone().sub_(b) for t, b in zip(self.state, before, strict=True)]
            self._restore(before, random)
            differences = [_difference(out, captured.take(inputs))]
            for one, tensor, start in zip(moved, self.state, before, strict=True):
                differences.append(_difference(one, tensor - start))  # one after the other
        finally:
            self._restore(before, random)
        return max(differences)

    def _random(self) -> Tensor:
        if self._device.type == "cuda":
            return torch.cuda.get_rng_state(self._device)
        return torch.get_rng_state()

    def _restore(self, state: list[Tensor], random: Tensor) -> None:
        for tensor, before in zip(self.state, state, strict=True):
            tensor.copy_(before)
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(random, self._device)
        else:
            torch.set_rng_state(random)


def _difference(one: Tensor, other: Tensor) -> float:
    """Relative, of tensors that are used up; a run may have diverged."""
    size = one.nan_to_num_().norm()
    return float(one.sub_(other.nan_to_num_()).norm() / size.clamp(min=1e-30))
