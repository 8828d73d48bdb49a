"""Batches for a method, and its outputs for many examples as arrays."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain, count, islice

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from peftbench.core.configs import TrainingConfig
from peftbench.data import batching
from peftbench.data.augmentation import AugmentedSplit
from peftbench.data.batching import Batch
from peftbench.data.tokenization import TokenizedSplit
from peftbench.methods.base import Method
from peftbench.models import decoding
from peftbench.models.adapted_model import AdaptedModel
from peftbench.training.distributed import ProcessGroup

#: Padded tokens of an evaluation batch.
EVALUATION_TOKENS = {"cpu": 2048, "cuda": 65536}

#: Tokens that pad a batch of what is left behind a shared beginning, at most: a third of a batch
#: of short texts would be padding, and on a CPU a smaller batch costs little more a token.
PADDING_AFTER_BEGINNING = 32


class PredictionOutOfMemory(torch.OutOfMemoryError):
    """One example is too large to predict for, which no smaller training batch changes."""


def build_batch_source(
    shown: AugmentedSplit, recipe: TrainingConfig, seed: int, view: "Predictor"
) -> batching.BatchSource:
    """The training batches of what is shown, in the order of the seed."""
    tokens = shown.tokens

    def varied() -> Iterator[list[np.ndarray]]:
        return map(
            shown.vary, count(), batching.epochs(tokens, shown.rows, recipe.batch_size, seed)
        )

    weights = None if recipe.class_weights is None else class_weights(tokens.label[shown.rows])

    def collate(numbers: np.ndarray, length: int | None = None) -> Batch:
        batch = view.collate(tokens, numbers, length)
        if weights is not None:
            batch["weights"] = weights[batch["labels"]]
        return batch

    def stream(step: int) -> Iterator[Batch]:
        for numbers in islice(chain.from_iterable(varied()), step, None):
            yield collate(numbers)

    first = next(varied())
    longest = sorted(first, key=lambda numbers: int(tokens.lengths[numbers].max()))
    extremes = [collate(numbers) for numbers in (longest[0], longest[-1])]
    shapes: list[Batch] = []
    if view.static_shapes:
        sizes = {min(recipe.batch_size, len(shown.rows)), len(shown.rows) % recipe.batch_size}
        every = batching.bucketed_batches(tokens, shown.every, sizes - {0})
        shapes = [collate(numbers, length) for numbers, length in every]
    return batching.BatchSource(len(first), stream, extremes, shapes)


def class_weights(label: np.ndarray) -> Tensor:
    """The weight of each class by its number, so that all classes weigh the same together.

    n / (k n_c) of n examples, k classes and n_c examples of class c (King and Zeng 2001); their
    mean over the examples is 1. A class without examples has none.

    Args:
        label: (examples,) classes that are trained on.
    """
    from sklearn.utils.class_weight import compute_class_weight

    present = np.unique(label)
    weights = torch.ones(int(present.max()) + 1)
    balanced = compute_class_weight("balanced", classes=present, y=label)
    weights[torch.from_numpy(present)] = torch.from_numpy(balanced).float()
    return weights


def require_finite(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs, if all are finite: of the others no score means anything.

    Args:
        outputs: `(examples, …)` arrays by name.

    Raises:
        FloatingPointError: with the number of examples that have others.
    """
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
            raise FloatingPointError(
                f"{bad.sum()} of {len(array)} predictions are not finite ({name}); try a smaller "
                "train.lr, or train.precision=fp32"
            )
    return outputs


@dataclass(frozen=True)
class Predictor:
    """How tokens become batches for a model, and a model's outputs arrays.

    `writes` says how texts are written; None where the method's own predictions are the outputs.
    """

    padding: int
    mask: str
    device: torch.device
    method: Method
    model: AdaptedModel
    accelerator: Accelerator
    writes: decoding.Decoding | None = None

    @property
    def static_shapes(self) -> bool:
        """Whether batches are padded to few lengths."""
        return self.device.type in batching.STATIC_SHAPES

    def collate(
        self, tokens: TokenizedSplit, rows: np.ndarray, length: int | None = None, skip: int = 0
    ) -> Batch:
        """A batch on the CPU; see `batching.collate`."""
        wanted = None
        if self.static_shapes and length is None:
            length = batching.bucket(int(tokens.lengths[rows].max()) - skip, tokens.longest)
        if self.static_shapes and len(tokens.wanted):
            wanted = batching.bucket(int(tokens.wanted[rows].max()), tokens.longest)
        return batching.collate(tokens, rows, self.padding, self.mask, length, skip, wanted)

    def moved(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Batches on the device."""
        for batch in batches:
            yield batching.to_device(batch, self.device)

    def gradients(self, batch: Batch, micro: int | None) -> Tensor:
        """Add the gradients of a batch's mean loss to the parameters; return the loss, a scalar.

        Args:
            batch: on the CPU; processes that train together share it.
            micro: examples for each pass; None is the whole batch.
        """
        size = len(batch["labels"])
        total = torch.zeros((), device=self.device)
        for part in batching.micro_batches(
            ProcessGroup(self.accelerator).share(batch), micro or size
        ):
            if not len(part["labels"]):  # fewer rows than processes; `add` sends zeros for it
                continue
            moved = batching.to_device(part, self.device)
            with self.accelerator.autocast():
                loss = self.method.compute_loss(self.model, moved) * (len(part["labels"]) / size)
            self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def predict(
        self,
        tokens: TokenizedSplit,
        rows: np.ndarray,
        after: Callable[[int], None] = lambda count: None,
    ) -> dict[str, np.ndarray]:
        """Outputs of the method for these examples, in their order, with item and label.

        Processes that train together share the work; each gets the whole. A causal model sees the
        tokens with which many examples begin once.

        Args:
            tokens: of the split.
            rows: example numbers.
            after: called after each batch with the number of its examples.

        Raises:
            FloatingPointError: if some are not finite.
        """
        self.model.eval()
        peers = ProcessGroup(self.accelerator)

        def one(batch: Batch) -> dict[str, Tensor]:
            if self.writes is None:
                found = self.method.predict(self.model, batch)
            else:
                found = {"written": decoding.greedy(self.model, batch, self.writes)}
            after(len(next(iter(found.values()))))
            return {n: t[None] for n, t in found.items()}

        if self.writes is not None:
            tokens = tokens.questions()

        return require_finite(
            peers.whole(next(self.outputs(tokens, peers.part(rows), one, share=True)))
        )

    def outputs(
        self,
        tokens: TokenizedSplit,
        rows: np.ndarray,
        of: Callable[[Batch], dict[str, Tensor]],
        runs: int = 1,
        share: bool = False,
    ) -> Iterator[dict[str, np.ndarray]]:
        """For each of so many runs what `of`, which gives (runs, batch, …), finds in all examples.

        Args:
            tokens: of the split.
            rows: example numbers; items come in their order.
            of: called with batches in inference mode.
            runs: that `of` answers for.
            share: whether `of` may get the rest of texts of which the model has seen the
                beginning.
        """
        most = max(1, EVALUATION_TOKENS[self.device.type] // runs)
        share = share and self.mask == "causal" and self.method.token_wise
        groups = batching.shared_beginnings(tokens, rows) if share else [(rows, 0)]
        # texts that are written are passed many times, where fewer batches are worth more
        tight = self.writes is None and not self.static_shapes
        order: list[np.ndarray] = []
        found: dict[str, list[Tensor]] = {}
        with torch.inference_mode(), self.accelerator.autocast():
            for members, skip in groups:
                padding = PADDING_AFTER_BEGINNING if skip and tight else None
                batches = batching.by_length(tokens, members, most, skip, padding)
                order += batches
                with self._after(tokens, members[0], skip):
                    made = (self.collate(tokens, numbers, skip=skip) for numbers in batches)
                    for numbers, batch in zip(batches, self.moved(made), strict=True):
                        for part in self._in_parts(of, batch, tokens, numbers, skip, runs):
                            for name, tensor in part.items():
                                found.setdefault(name, []).append(tensor.float())
        places = np.argsort(np.concatenate(order), kind="stable")
        items = np.sort(rows)
        whole = {name: torch.cat(parts, 1).cpu().numpy() for name, parts in found.items()}
        for run in range(runs):
            arrays = {name: array[run][places] for name, array in whole.items()}
            yield {"item": items, "label": tokens.label[items], **arrays}

    def _in_parts(
        self,
        of: Callable[[Batch], dict[str, Tensor]],
        batch: Batch,
        tokens: TokenizedSplit,
        numbers: np.ndarray,
        skip: int,
        runs: int,
    ) -> Iterator[dict[str, Tensor]]:
        """What `of` finds in a batch, halved where memory is short.

        Passes of several runs are made for fewer of them instead, see `packing.pack`.

        Raises:
            torch.OutOfMemoryError: of several runs; of one `PredictionOutOfMemory`.
        """
        try:
            found = of(batch)
        except torch.OutOfMemoryError as error:
            if runs > 1:
                raise
            if len(numbers) == 1:
                raise PredictionOutOfMemory("no memory to predict for one example") from error
            found = None
        if found is not None:
            yield found
            return
        warnings.warn(
            f"no memory to predict for {len(numbers)} examples at once; they are halved",
            stacklevel=2,
        )
        for half in np.array_split(numbers, 2):
            (moved,) = self.moved(iter([self.collate(tokens, half, skip=skip)]))
            yield from self._in_parts(of, moved, tokens, half, skip, runs)

    def _after(self, tokens: TokenizedSplit, row: int, count: int) -> AbstractContextManager[None]:
        """The first so many tokens of an example come before all that is given inside."""
        if not count:
            return nullcontext()
        start = int(tokens.ends[row] - tokens.lengths[row])
        ids = torch.from_numpy(tokens.ids[None, start : start + count].astype(np.int64))
        mask = batching.attention_mask(torch.ones_like(ids, dtype=torch.bool), self.mask)
        batch = {"input_ids": ids, "attention_mask": mask}
        return self.model.after(batching.to_device(batch, self.device))
