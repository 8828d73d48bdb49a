"""Many trainings at once on one shared backbone.

Each training is the one of `training.loop`, with its own rates, batches and end; what it asks for
(`requests`) is computed for several at a time. What they train is stacked along a run axis while
they are in the pack (`run_stack`), and what is frozen is shared.

A training that ends or fails leaves alone, and the next one enters. Random numbers drawn in a
shared pass come from the stream of the first of its members, so dropout differs from a training
alone, but for passes of one.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from peftbench.core.arrays import Arrays
from peftbench.data import batching
from peftbench.data.batching import Batch, widened
from peftbench.training.loop import Training
from peftbench.training.packing import requests
from peftbench.training.packing.requests import (
    Answer,
    ForwardRequest,
    ForwardRequests,
    PredictRequest,
    StepRequest,
)
from peftbench.training.predictor import require_finite
from peftbench.training.run_stack import RunStack, not_stacked

T = TypeVar("T")

#: What a pass costs beside its padded tokens, in tokens: a GPU is not full of work at first.
OVERHEAD = {"cpu": 32, "cuda": 4096}

#: Into how many parts the members of a pack may be cut for passes where shapes are static: each
#: number of runs is a shape of its own.
PARTS = 4

#: The part of a GPU's free memory that passes may fill.
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
        stack: in which it has a row, once it has shared a pass.
        shared: keys of those it shared a pass with.
    """

    key: str
    requests: ForwardRequests[T]
    random: list[Tensor]
    ask: ForwardRequest | None = None
    training: Training | None = None
    tensors: dict[str, Tensor] = field(default_factory=dict)
    trains: tuple[bool, ...] = ()
    like: int = -1
    stack: RunStack | None = None
    shared: set[str] = field(default_factory=set)

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
        graphs: how its shared steps were launched.
    """

    key: str
    end: T | None
    error: Exception | None
    shared: tuple[str, ...]
    graphs: str | None


class Pack(Generic[T]):
    """Trainings that share passes.

    Args:
        device: of all of them.
        size: how many at a time, at most.
        tell: is told how many share a pass, as far as memory decides it.
    """

    def __init__(self, device: torch.device, size: int, tell: Callable[[str], None] = print):
        self.device = device
        self.tell = tell
        self.size = size
        self.most = size  # in a pass
        self.tokens: float = float("inf")  # padded, of a pass
        self._static = device.type in batching.STATIC_SHAPES
        self._grain = max(1, size // PARTS) if self._static else 1
        self._probed = device.type != "cuda"
        self._members: list[_Member[T]] = []
        self._structures: dict[Any, int] = {}
        self._refused: set[int] = set()
        self._stacks: dict[int, RunStack] = {}

    def train(self, waiting: Iterator[tuple[str, ForwardRequests[T]]]) -> Iterator[Left[T]]:
        """Train all, each as soon as there is room for it; yield each when it is over.

        Args:
            waiting: keys and trainings that have not begun; they must differ in values only, not
                in what is frozen, in the method's structure, or in precision.
        """
        while True:
            while len(self._members) < self.size and (new := next(waiting, None)):
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
        except torch.OutOfMemoryError:
            self.most = min(self.most, max(1, len(group) - 1))
            self.tell(f"pack: no memory for {len(group)} in a pass, {self.most} from here on")
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
        graphs = member.stack.graphs.told if member.stack else None
        member.leave()
        return Left(member.key, end, error, tuple(sorted(member.shared)), graphs)

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

    def _kind(self, member: _Member[T]) -> tuple[Any, ...]:
        """Equal for members that can share a pass; the last of it, for those that share a stack."""
        ask = member.ask
        assert ask is not None
        if ask.training is not member.training:
            member.leave()
            member.training, member.trains = ask.training, ()
            member.tensors = ask.training.predictor.encoder.own()
        trains = tuple(tensor.requires_grad for tensor in member.tensors.values())
        if trains != member.trains:  # a method may let other parts train at any step
            member.trains = trains
            shapes = tuple((name, t.shape) for name, t in member.tensors.items())
            member.like = self._structures.setdefault((shapes, trains), len(self._structures))
        like = member.like
        if like in self._refused or not self._probed or not_stacked(ask.training):
            return "alone", member.key
        if isinstance(ask, PredictRequest):
            return PredictRequest, id(ask.tokens), ask.rows.tobytes(), like
        return StepRequest, len(ask.batch["labels"]), ask.micro, like

    # passes

    def _answers(self, group: list[_Member[T]]) -> list[Answer | Exception]:
        """An answer to each, or why there is none.

        Raises:
            torch.OutOfMemoryError: if there is no memory for so many.
        """
        if len(group) == 1 and not (self._static and self._kind(group[0])[0] is StepRequest):
            return [self._alone(group[0])]  # else a graph may be there
        try:
            with self._turn(group[0]):
                found = self._together(group)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of one of them, or of the pass: alone they will tell
            each = [self._alone(member) for member in group]
            if not any(isinstance(one, Exception) for one in each):
                self._refused.add(group[0].like)
                warnings.warn(f"these runs cannot share passes: {error}", stacklevel=2)
            return each
        keys = {member.key for member in group}
        for member in group:
            member.shared |= keys - {member.key}
        return found

    def _together(self, group: list[_Member[T]]) -> list[Answer | Exception]:
        """Answers to requests of one kind, in one pass; nothing changes where it raises."""
        stack = self._stacked(group)
        runs, asks = [one.training for one in group if one.training], [one.ask for one in group]
        if isinstance(asks[0], PredictRequest):
            first, outputs = asks[0], stack.predictions(runs)
            found = runs[0].predictor.outputs(first.tokens, first.rows, outputs, runs=len(runs))
            return [_finite(one) for one in found]
        steps = [ask for ask in asks if isinstance(ask, StepRequest)]
        return [*stack.step(runs, stacked_batches(steps), steps[0].micro)]

    def _stacked(self, group: list[_Member[T]]) -> RunStack:
        """The stack of a group, in which all its members have a row."""
        like = group[0].like
        old = self._stacks.get(like)
        new = [member for member in group if old is None or member.stack is not old]
        if old is None or old.free < len(new):
            alike = [one for one in self._members if one.like == like]
            new = [one for one in alike if one.stack is not None or one in group]
            assert group[0].training is not None
            self._stacks[like] = RunStack(group[0].training, len(alike), self.tell, self._grain)
        stack = self._stacks[like]
        for member in new:
            member.leave()
            assert member.training is not None
            stack.enter(member.training)
            member.stack = stack
        return stack

    def _alone(self, member: _Member[T]) -> Answer | Exception:
        ask = member.ask
        assert ask is not None
        try:
            with self._turn(member):
                return requests.compute(ask) if self._probed else self._probe(ask)
        except Exception as error:
            return error

    def _probe(self, ask: ForwardRequest) -> Answer:
        """Compute, and see from the memory that it takes how many tokens a pass may have."""
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        answer = requests.compute(ask)
        if isinstance(ask, StepRequest):
            took = torch.cuda.max_memory_allocated(self.device) - before
            cached = torch.cuda.memory_reserved(self.device) - before
            free = torch.cuda.mem_get_info(self.device)[0] + max(0, cached)
            self.tokens = FILL * free / max(1, took) * ask.batch["input_ids"].numel()
            self._probed = True
            runs = int(self.tokens // ask.batch["input_ids"].numel())
            self.tell(
                f"pack: {min(runs, self.size)} of up to {self.size} runs share a pass; one takes "
                f"{took / 2**20:,.0f} MiB of {free / 2**30:.1f} GiB"
            )
        return answer


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
