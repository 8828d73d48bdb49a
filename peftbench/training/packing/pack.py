"""Many trainings at once on one shared backbone.

Each training runs the loop of `training.loop`, with its own rates, batches and end; the steps and
predictions that it asks for are computed for several at a time. What they train is stacked along a
run axis while they are in the pack (`run_stack`), and what is frozen is shared.

A training that ends or fails leaves alone, and the next one enters. Random numbers drawn in a
shared pass come from the stream of the first of its members, so dropout differs from a training
alone, but for passes of one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from peftbench.core.arrays import Arrays
from peftbench.data import batching
from peftbench.data.batching import Batch, widened
from peftbench.training.loop import (
    Answer,
    PredictRequest,
    Request,
    Requests,
    StepRequest,
    release,
)
from peftbench.training.predictor import require_finite
from peftbench.training.run_stack import RunStack, not_stacked, row_bytes
from peftbench.training.session import Training
from peftbench.training.step_graphs import reason_of

T = TypeVar("T")

#: What a pass costs beside its padded tokens, in tokens: a GPU is not full of work at first.
OVERHEAD = {"cpu": 32, "cuda": 4096}

#: Into how many parts the members of a pack may be cut for passes where shapes are static: each
#: number of runs is a shape of its own.
PARTS = 4

#: The part of a GPU's free memory that a pack may fill.
FILL = 0.8


@dataclass
class _Member(Generic[T]):
    """A training in the pack, and what it waits for.

    Attributes:
        random: the state of its random numbers while another has the turn.
        training: of its latest ask; where memory was short, it starts again with another one.
        tensors: what is its own of the training's model, by name.
        trains: which of these train.
        like: the number of its structure: equal where names, shapes and what trains are.
        alone: whether its present ask is computed for itself.
        stack: in which it has a row.
        shared: keys of those it shared a pass with.
        notes: why it shared fewer passes than it could have.
    """

    key: str
    requests: Requests[T]
    random: list[Tensor]
    ask: Request | None = None
    training: Training | None = None
    tensors: dict[str, Tensor] = field(default_factory=dict)
    trains: tuple[bool, ...] = ()
    like: int = -1
    alone: bool = False
    stack: RunStack | None = None
    shared: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def enter(self, stack: RunStack) -> None:
        """Take a row."""
        assert self.training is not None
        stack.enter(self.training)
        self.stack = stack

    def leave(self) -> None:
        """Give up its row."""
        if self.stack is not None:
            assert self.training is not None
            self.stack.leave(self.training)
            self.stack = None


@dataclass(frozen=True)
class Left(Generic[T]):
    """A training that is over: what it ended with, or why it failed; which runs it was packed with.

    Attributes:
        graphs: how its steps were launched.
        notes: why it shared fewer passes than it could have; empty if nothing stood in the way.
    """

    key: str
    end: T | None
    error: Exception | None
    shared: tuple[str, ...]
    graphs: str
    notes: str


class Pack(Generic[T]):
    """Trainings that share passes.

    Args:
        device: of all of them.
        size: how many at a time, at most; more than there are would be rows for nobody.
        tell: called with what keeps runs from sharing passes, and how many memory is enough for.
    """

    def __init__(self, device: torch.device, size: int, tell: Callable[[str], None] = print):
        self.device = device
        self.tell = tell
        self.size = size
        self.most = size  # in a pass
        self.tokens: float = float("inf")  # padded, of a pass
        self._static = device.type in batching.STATIC_SHAPES
        self._probed = device.type != "cuda"
        self._members: list[_Member[T]] = []
        self._structures: dict[Any, int] = {}
        self._refused: dict[int, str] = {}
        self._stacks: dict[int, list[RunStack]] = {}
        self._told: set[str] = set()

    @property
    def _grain(self) -> int:
        """Passes are of a multiple of so many runs."""
        return max(1, self.size // PARTS) if self._static else 1

    def train(self, waiting: Iterator[tuple[str, Requests[T]]]) -> Iterator[Left[T]]:
        """Train all, each as soon as there is room for it; yield each when it is over.

        Args:
            waiting: keys and trainings that have not begun; they must differ in values only, not
                in what is frozen, in the method's structure, or in precision.
        """
        while True:
            most = self.size if self._probed else 1  # memory for others is seen from the first
            while len(self._members) < most and (new := next(waiting, None)):
                member = _Member(*new, random=_random(self.device))
                self._members.append(member)
                yield from self._resume(member, None)
            if not self._members:
                return
            for group in self._groups():
                yield from self._advance(group)

    def _advance(self, group: list[_Member[T]]) -> Iterator[Left[T]]:
        """Answer a group, in as many passes as memory wants."""
        try:
            answers = self._answers(group)
        except torch.OutOfMemoryError as error:
            release(error)
            self.most = min(self.most, len(group) - 1)
            self._note(group, f"no memory for {len(group)} runs in a pass, at most {self.most} now")
            half = len(group) // 2
            for part in (group[:half], group[half:]):
                yield from self._advance(part)
            return
        for member, answer in zip(group, answers, strict=True):
            yield from self._resume(member, answer)

    def _resume(self, member: _Member[T], answer: Answer | Exception | None) -> Iterator[Left[T]]:
        """Let a training go on until it asks again or is over."""
        try:
            with self._turn(member):
                if isinstance(answer, Exception):
                    member.ask = member.requests.throw(answer)
                elif answer is None:
                    member.ask = next(member.requests)
                else:
                    member.ask = member.requests.send(answer)
        except StopIteration as end:
            yield self._leave(member, end.value, None)
        except Exception as error:  # a run that fails must not sink the others
            yield self._leave(member, None, error)

    def _leave(self, member: _Member[T], end: T | None, error: Exception | None) -> Left[T]:
        self._members.remove(member)
        notes = "; ".join(member.notes)
        graphs = member.stack.graphs.told if member.stack else notes
        member.leave()
        return Left(member.key, end, error, tuple(sorted(member.shared)), graphs, notes)

    def _note(self, members: list[_Member[T]], text: str) -> None:
        """Remember for a record why members share fewer passes, and tell it once."""
        for member in members:
            if text not in member.notes:
                member.notes.append(text)
        if text not in self._told:
            self._told.add(text)
            self.tell(f"pack: {text}")

    def _refuse(self, members: list[_Member[T]], reason: str) -> None:
        """Have members, and all that are like them, pass alone from here on."""
        self._refused[members[0].like] = reason
        for member in members:
            member.alone = True
        self._note(members, reason)

    @contextmanager
    def _turn(self, member: _Member[T]) -> Iterator[None]:
        """Whatever is drawn inside comes from the member's own stream."""
        _set_random(member.random)
        try:
            yield
        finally:
            member.random = _random(self.device)

    # who goes together

    def _groups(self) -> list[list[_Member[T]]]:
        """All members, those together that can share a pass and that it pays for."""
        for member in self._members:
            self._look(member)
        sharing = [member for member in self._members if not member.alone]
        for like in {member.like for member in sharing}:
            self._seat([member for member in sharing if member.like == like])
        alike: dict[Any, list[_Member[T]]] = {}
        for member in self._members:
            alike.setdefault(self._kind(member), []).append(member)
        found = []
        for kind, members in alike.items():
            if kind[0] == "alone":
                found += [[member] for member in members]
            elif kind[0] is PredictRequest:
                found += [members[i : i + self.most] for i in range(0, len(members), self.most)]
            else:
                members.sort(key=_length, reverse=True)
                lengths, rows = [_length(member) for member in members], kind[1]
                most = max(1, int(min(self.most, self.tokens // (rows * lengths[0]))))
                overhead = OVERHEAD[self.device.type]
                cuts = partition(lengths, rows, overhead, most, min(self._grain, most))
                found += [members[start:end] for start, end in cuts]
        return found

    def _look(self, member: _Member[T]) -> None:
        """See whose tensors a member's ask is about, and whether it can share a pass."""
        ask = member.ask
        assert ask is not None
        if ask.training is not member.training:
            member.leave()
            member.training, member.trains = ask.training, ()
            member.tensors = ask.training.predictor.model.own()
        trains = tuple(tensor.requires_grad for tensor in member.tensors.values())
        if trains != member.trains:  # a method may let other parts train at any step
            member.trains = trains
            shapes = tuple((name, t.shape) for name, t in member.tensors.items())
            member.like = self._structures.setdefault((shapes, trains), len(self._structures))
        reason = self._refused.get(member.like) or not_stacked(ask.training)
        member.alone = bool(reason) or not self._probed
        if reason:
            self._note([member], reason)

    def _seat(self, alike: list[_Member[T]]) -> None:
        """See that all have a row, who are all the members of a structure that can share passes."""
        if len(alike) == 1 and not self._static:
            return
        stacks = self._stacks.setdefault(alike[0].like, [])
        new = [member for member in alike if member.stack is None]
        if len(new) > sum(stack.free for stack in stacks):
            stacks.clear()
            for member in alike:
                member.leave()
            self._stack(alike, stacks)
        else:
            for member in new:
                member.enter(next(stack for stack in stacks if stack.free))

    def _stack(self, members: list[_Member[T]], stacks: list[RunStack]) -> None:
        """Make a stack for members, or two of half the rows where there is no memory for it."""
        count, first = len(members), members[0].training
        assert first is not None
        try:
            stack = RunStack(first, count, self.tell, self._grain)
        except torch.OutOfMemoryError as error:
            release(error)
            if count == 1:
                self._refuse(members, "no memory for a stack of parameters")
                return
            self._note(members, f"no memory for {count} runs in a stack, at most {count - 1} now")
            for part in (members[: count // 2], members[count // 2 :]):
                self._stack(part, stacks)
            return
        stacks.append(stack)
        for member in members:
            member.enter(stack)

    def _kind(self, member: _Member[T]) -> tuple[Any, ...]:
        """Equal for members that can share a pass."""
        ask = member.ask
        if member.alone or member.stack is None:
            return "alone", member.key
        if isinstance(ask, PredictRequest):
            return PredictRequest, id(ask.tokens), ask.rows.tobytes(), id(member.stack)
        assert ask is not None
        return StepRequest, len(ask.batch["labels"]), ask.micro, id(member.stack)

    # passes

    def _answers(self, group: list[_Member[T]]) -> list[Answer | Exception]:
        """An answer to each, or why there is none.

        Raises:
            torch.OutOfMemoryError: if there is no memory for so many, of which there are several.
        """
        assert group
        if len(group) == 1 and not (self._static and self._kind(group[0])[0] is StepRequest):
            return [self._alone(group[0])]  # else a graph may be there
        try:
            with self._turn(group[0]):
                found = self._together(group)
        except Exception as error:  # of one of them, or of the pass: alone they will tell
            if isinstance(error, torch.OutOfMemoryError) and len(group) > 1:
                raise
            release(error)
            each = [self._alone(member) for member in group]
            if not any(isinstance(one, Exception) for one in each):
                self._refuse(group, f"these runs cannot share passes: {reason_of(error)}")
            return each
        keys = {member.key for member in group}
        for member in group:
            member.shared |= keys - {member.key}
        return found

    def _together(self, group: list[_Member[T]]) -> list[Answer | Exception]:
        """Answers to requests of one kind, in one pass; nothing changes where it raises."""
        stack = group[0].stack
        assert stack is not None
        runs, asks = [one.training for one in group if one.training], [one.ask for one in group]
        if isinstance(asks[0], PredictRequest):
            first, outputs = asks[0], stack.predictions(runs)
            found = runs[0].predictor.outputs(first.tokens, first.rows, outputs, runs=len(runs))
            return [_finite(one) for one in found]
        steps = [ask for ask in asks if isinstance(ask, StepRequest)]
        return [*stack.step(runs, stacked_batches(steps), steps[0].micro)]

    def _alone(self, member: _Member[T]) -> Answer | Exception:
        ask = member.ask
        assert ask is not None
        try:
            with self._turn(member):
                return ask.compute() if self._probed else self._probe(member, ask)
        except Exception as error:
            release(error)
            return error

    def _probe(self, member: _Member[T], ask: Request) -> Answer:
        """Compute, and see from the memory that it takes how many runs and tokens there may be."""
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        answer = ask.compute()
        if isinstance(ask, StepRequest):
            took = torch.cuda.max_memory_allocated(self.device) - before
            cached = torch.cuda.memory_reserved(self.device) - before
            free = torch.cuda.mem_get_info(self.device)[0] + max(0, cached)
            row = row_bytes(member.tensors.values())
            fit, share = fitting(free, max(1, took), row, self.size)
            self.tokens = share * ask.batch["input_ids"].numel()
            self._probed = True
            self.tell(
                f"pack: {fit} of up to {self.size} runs at a time, {min(int(share), fit)} of them "
                f"in a pass; a pass of one takes {took / 2**20:,.0f} MiB, its parameters "
                f"{row / 2**20:,.0f} MiB of {free / 2**30:.1f} GiB"
            )
            self.size = fit
        return answer


def fitting(free: int, took: int, row: int, size: int) -> tuple[int, float]:
    """How many runs may be in a pack, and how many of them in a pass, by memory.

    Runs may take half of it: each a row, a quarter of one that fills passes up, and half of one
    for the tensors that it comes with. The passes have what is left, twice: for those in graphs,
    and for those of shapes that are not captured yet.

    Args:
        free: bytes of the device.
        took: bytes of a pass of one run.
        row: bytes of a run in a stack.
        size: runs at most.
    """
    fill = FILL * free
    fit = max(1, min(size, int(fill / 2 / (row * (1.5 + 1 / PARTS)))))
    return fit, max(1.0, (fill - fit * row * (1 + 1 / PARTS)) / (2 * took))


def partition(
    lengths: list[int], rows: int, overhead: int, most: int, grain: int = 1
) -> list[tuple[int, int]]:
    """Cut batches into passes, so that overhead and padded tokens are least; ranges of indices.

    Args:
        lengths: of batches of `rows` examples, the longest first; a pass is padded to its longest.
        overhead: of a pass, in tokens.
        most: batches in a pass, `grain` at least.
        grain: passes are of a multiple of so many batches, all but the last.
    """
    ends = [*range(0, len(lengths), grain), len(lengths)]
    costs, cuts = {0: 0}, dict[int, int]()
    for end in ends[1:]:
        costs[end], cuts[end] = min(
            (costs[start] + overhead + (end - start) * rows * lengths[start], start)
            for start in ends
            if end - most <= start < end
        )
    found, end = [], len(lengths)
    while end:
        found.append((cuts[end], end))
        end = cuts[end]
    return found[::-1]


def _length(member: _Member[Any]) -> int:
    assert isinstance(member.ask, StepRequest)
    return int(member.ask.batch["input_ids"].shape[1])


def _finite(outputs: Arrays) -> Answer | Exception:
    """The outputs of one run, or that they are not finite: the others of the pass go on."""
    try:
        return require_finite(outputs)
    except FloatingPointError as error:
        return error


def stacked_batches(asks: list[StepRequest]) -> Batch:
    """The batches with a run axis in front, padded to the longest."""
    length = max(ask.batch["input_ids"].shape[1] for ask in asks)
    wide = [widened(ask.batch, length, ask.training.predictor.padding) for ask in asks]
    return {name: torch.stack([batch[name] for batch in wide]) for name in wide[0]}


def _random(device: torch.device) -> list[Tensor]:
    found = [torch.get_rng_state()]
    return [*found, torch.cuda.get_rng_state(device)] if device.type == "cuda" else found


def _set_random(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state)
