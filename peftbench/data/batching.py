"""Which examples meet in a batch, what a batch holds, and an encoder's outputs for many of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from peftbench.core.configs import CheckpointSelection
from peftbench.core.errors import ConfigError
from peftbench.core.run import Run
from peftbench.data import loading, splitting
from peftbench.data.tokenization import TokenizedSplit

Batch = dict[str, Tensor]

#: How many batches' worth of examples are sorted by length together, at most. Batches are then of
#: similar length, while which examples meet in a batch still depends on the shuffle.
WINDOW = 32

#: How many windows an epoch has at least, where there are batches enough: in one window over all
#: examples the shuffle would be lost, and every epoch of a small subset have the same batches.
WINDOWS = 2


#: Devices whose batches are padded to few lengths: there kernels are chosen for each new shape,
#: which costs more than the padding. On a CPU padding costs what tokens cost.
STATIC_SHAPES = frozenset({"cuda"})

#: Lengths up to the first are padded to a multiple of the second.
BUCKETS = ((64, 16), (256, 32), (512, 64))


@dataclass(frozen=True)
class BatchSource:
    """Training batches of a run.

    Attributes:
        epoch: number of batches in an epoch.
        stream: endless batches from a step on, on the CPU.
        extremes: a shortest and a longest batch, to count operations with.
        shapes: a batch of each shape that the stream can have, to warm up with; none where shapes
            do not matter.
    """

    epoch: int
    stream: Callable[[int], Iterator[Batch]]
    extremes: list[Batch]
    shapes: list[Batch] = field(default_factory=list)


def bucket(length: int, most: int) -> int:
    """The length that a batch is padded to where shapes are static.

    Args:
        length: of its longest example.
        most: of the longest example of the split; nothing is padded beyond.
    """
    step = next((step for limit, step in BUCKETS if length <= limit), 128)
    return min(-(-length // step) * step, most)


def bucketed_batches(
    tokens: TokenizedSplit, rows: np.ndarray, sizes: set[int]
) -> list[tuple[np.ndarray, int]]:
    """Example numbers and a length for each shape that batches of these examples can have.

    Where texts are to be written, a shape also has a number of wanted tokens: that of the first.

    Args:
        rows: example numbers.
        sizes: examples in a batch.
    """
    counts = tokens.wanted if len(tokens.wanted) else np.zeros_like(tokens.lengths)
    rows = rows[np.argsort(-counts[rows], kind="stable")]
    lengths, wanted = (
        np.array([bucket(int(n), tokens.longest) for n in of[rows]])
        for of in (tokens.lengths, counts)
    )
    return [
        (np.resize(rows[(lengths <= length) & (wanted <= most)], size), int(length))
        for length in np.unique(lengths)
        for most in np.unique(wanted[lengths <= length])
        for size in sorted(sizes)
    ]


def subset(tokens: TokenizedSplit, classes: int, size: int, seed: int) -> np.ndarray:
    """Numbers of `size` training examples: stratified, nested, one choice for each seed."""
    return loading.stratified(tokens.label, classes, seed)[:size]


def epochs(
    tokens: TokenizedSplit, rows: np.ndarray, batch: int, seed: int
) -> Iterator[list[np.ndarray]]:
    """Endless epochs, each a list of batches of example numbers.

    Examples are shuffled, sorted by length within windows of up to `WINDOW` batches, cut into
    batches, and these are shuffled. Every example comes once an epoch; a last short batch is kept.
    """
    lengths = tokens.lengths
    generator = np.random.default_rng(seed)
    span = batch * max(1, min(WINDOW, len(rows) // (WINDOWS * batch)))
    while True:
        shuffled = generator.permutation(rows)
        batches = []
        for start in range(0, len(rows), span):
            window = shuffled[start : start + span]
            window = window[np.argsort(lengths[window], kind="stable")]
            batches += [window[i : i + batch] for i in range(0, len(window), batch)]
        yield [batches[i] for i in generator.permutation(len(batches))]


def by_length(
    tokens: TokenizedSplit, rows: np.ndarray, most: int, skip: int = 0, padding: int | None = None
) -> list[np.ndarray]:
    """Batches for evaluation: the longest first, about `most` padded tokens in each.

    Args:
        tokens: of the split.
        rows: example numbers.
        most: padded tokens of a batch.
        skip: tokens at the beginning of each that `collate` is to skip; they do not count.
        padding: tokens that pad a batch at most; None for as many as there are.
    """
    lengths = tokens.lengths - skip
    order = rows[np.argsort(-lengths[rows], kind="stable")]
    batches, start = [], 0
    while start < len(order):
        longest = int(lengths[order[start]])
        count = max(1, most // longest)
        if padding is not None:
            pads = np.cumsum(longest - lengths[order[start : start + count]])
            count = int(np.searchsorted(pads, padding, side="right"))
        batches.append(order[start : start + count])
        start += count
    return batches


def shared_beginnings(tokens: TokenizedSplit, rows: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Groups of examples that begin alike, and with how many equal tokens.

    The same demonstrations in front of many texts are such a beginning. At least one token of each
    example is left; a beginning of fewer than `LEAST_SHARED` tokens, or of one example, is 0.
    """
    ends = tokens.ends[rows]
    starts = ends - tokens.lengths[rows]
    groups: dict[bytes, list[int]] = {}
    for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
        long_enough = end - start > LEAST_SHARED
        first = tokens.ids[start : start + LEAST_SHARED].tobytes() if long_enough else b""
        groups.setdefault(first, []).append(place)
    found, alone = [], groups.pop(b"", [])
    for places in groups.values():
        if len(places) == 1:
            alone += places
            continue
        most = int((ends - starts)[places].min()) - 1
        begun = tokens.ids[starts[places][:, None] + np.arange(most)]
        differ = (begun != begun[0]).any(axis=0)
        found.append((rows[places], int(differ.argmax()) if differ.any() else most))
    return [*found, *([(rows[sorted(alone)], 0)] if alone else [])]


#: Tokens from which on it is worth a pass of its own to compute a shared beginning once.
LEAST_SHARED = 16


def collate(
    tokens: TokenizedSplit,
    rows: np.ndarray,
    padding: int,
    mask: str,
    length: int | None = None,
    skip: int = 0,
    wanted: int | None = None,
) -> Batch:
    """Make a batch of the examples, padded to the longest of them, or to a length.

    Args:
        tokens: of the split.
        rows: example numbers.
        padding: the token that pads.
        mask: "4d" for a ready boolean mask (batch, 1, 1, tokens), "2d" for (batch, tokens),
            "causal" for one (batch, 1, tokens, tokens) in which nothing sees what comes after it.
        length: tokens of a row; None is those of the longest example.
        skip: tokens at the beginning of each that are left out because a causal model has seen
            them: they are in the mask, (batch, 1, tokens, skip + tokens), and nowhere else.
        wanted: places of tokens to be written, padded; None is the most of an example.
    """
    ends = tokens.ends[rows]
    lengths = tokens.lengths[rows] - skip
    place = np.arange(int(lengths.max()) if length is None else length)
    real = place < lengths[:, None]
    flat = np.where(real, (ends - lengths)[:, None] + place, 0)
    ids = np.where(real, tokens.ids[flat], padding).astype(np.int64)
    batch = {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": attention_mask(torch.from_numpy(real), mask, skip),
        "labels": torch.from_numpy(tokens.label[rows]),
        "lengths": torch.from_numpy(lengths),
    }
    if len(tokens.types):
        types = np.where(real, tokens.types[flat], 0).astype(np.int64)
        batch["token_type_ids"] = torch.from_numpy(types)
    if len(tokens.answer):
        batch["answer"] = torch.from_numpy(tokens.answer[rows].astype(np.int64) - skip)
    if len(tokens.wanted):
        count = tokens.wanted[rows]
        batch |= _wanted(ids, lengths, count, wanted or int(count.max()))
    return batch


#: The label of a place that has none, as of torch's cross entropy.
NO_TOKEN = -100


def _wanted(ids: np.ndarray, lengths: np.ndarray, count: np.ndarray, most: int) -> Batch:
    """What is to be learnt of texts of which the last `count` tokens are wanted.

    Returns:
        `places` (batch, most), behind which a token is wanted; `labels` (batch, most), these
        tokens, `NO_TOKEN` after the last; `weights` (batch,), so that the mean of the examples'
        mean losses is the mean loss of a token.
    """
    number = np.arange(most)
    there = number < count[:, None]
    places = np.where(there, (lengths - count - 1)[:, None] + number, 0).astype(np.int64)
    labels = np.where(there, np.take_along_axis(ids, places + there, axis=1), NO_TOKEN)
    return {
        "places": torch.from_numpy(places),
        "labels": torch.from_numpy(labels),
        "weights": torch.from_numpy((count / count.mean()).astype(np.float32)),
    }


def attention_mask(real: Tensor, kind: str, skip: int = 0) -> Tensor:
    """What a family wants to know of the tokens (batch, tokens) that are there; see `collate`."""
    if kind == "2d":
        return real.long()
    if kind == "4d":
        return real[:, None, None, :]
    length = real.shape[1]
    seen = F.pad(real, (skip, 0), value=True)[:, None, None, :]
    return seen & torch.ones(length, skip + length, dtype=torch.bool).tril(skip)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """A batch on a device; the CPU does not wait for a GPU, which may still be at earlier steps.

    Only a copy from pinned memory goes on by itself.
    """
    if device.type == "cuda":
        batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def occurring_ids(tokens: TokenizedSplit, rows: np.ndarray, padding: int) -> Tensor:
    """The ids that occur in batches of these examples, sorted."""
    ends, lengths = tokens.ends[rows], tokens.lengths[rows]
    occur = np.zeros(max(padding, int(tokens.ids.max())) + 1, dtype=bool)
    occur[padding] = True
    first = np.cumsum(lengths) - lengths  # of each example's places in one row of all of them
    occur[tokens.ids[np.repeat(ends - lengths - first, lengths) + np.arange(lengths.sum())]] = True
    return torch.from_numpy(np.flatnonzero(occur))


def widened(batch: Batch, length: int, padding: int) -> Batch:
    """A batch padded further, to so many tokens."""
    more = length - batch["input_ids"].shape[1]
    if not more:
        return batch
    mask = F.pad(batch["attention_mask"], (0, more))
    if mask.ndim == 4 and mask.shape[2] > 1:  # what comes last sees all that is there
        mask = torch.cat([mask, mask[:, :, -1:].expand(-1, -1, more, -1)], dim=2)
    wide = {"input_ids": F.pad(batch["input_ids"], (0, more), value=padding)}
    if "token_type_ids" in batch:
        wide["token_type_ids"] = F.pad(batch["token_type_ids"], (0, more))
    return batch | wide | {"attention_mask": mask}


def label_unit(label: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the labels of a regression; 1 where all are one value."""
    values = label.astype(np.float64)
    std = float(values.std())
    return float(values.mean()), std if std > 0 else 1.0


def micro_batches(batch: Batch, size: int, axis: int = 0) -> Iterator[Batch]:
    """Cut a batch into pieces of so many examples, which lie along an axis."""
    for pieces in zip(*(tensor.split(size, axis) for tensor in batch.values()), strict=True):
        yield dict(zip(batch, pieces, strict=True))


def check_count(run: Run, found: int) -> None:
    """Refuse data with another number of training examples than their yaml names.

    Raises:
        ConfigError: saying what to do with them.
    """
    known = run.task.examples.get("train")
    if known not in (None, found):
        raise ConfigError(
            f"{run.task.name} has {known} training examples, {found} were found: these "
            "are not its data; give them a task of their own (task=file, or a yaml)"
        )


def split_rows(
    run: Run, tokens: TokenizedSplit, selection: CheckpointSelection, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the examples to train on, and of those held out for selection.

    See `splitting.split_training`.
    """
    check_count(run, len(tokens))
    rows = splitting.split_training(run, tokens.label, selection, seed)
    return rows.train, rows.selection
