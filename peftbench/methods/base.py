"""What a method may do, and when.

A method is a frozen dataclass: it is its hyper-parameters. What changes during training lives in
parameters and buffers of the modules that it inserts, so that a checkpoint and a pack hold it.

A module that maps to a small width and back calls the two linears `down` and `up`: wrapper methods
find the matrices of their base method by these names (`AdaptedModel.inserted`).
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import MISSING, dataclass, fields
from types import FunctionType
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from peftbench.core.configs import Budget, MethodConfig, import_class
from peftbench.core.errors import ConfigError
from peftbench.core.run import Json
from peftbench.data.batching import NO_TOKEN, Batch, micro_batches
from peftbench.methods.settings import check_values
from peftbench.models.adapted_model import AdaptedModel

#: Hooks as they were called in the release before, and now.
OLD_HOOKS = {
    "starts_pretrained": "identity_at_init",
    "packs": "supports_packing",
    "prepare": "on_train_begin",
    "loss": "compute_loss",
    "after_step": "on_step_end",
    "finish": "on_train_end",
    "chain": "posterior_to_prior",
    "rates": "lr_multipliers",
    "wider": "scale_width",
}


#: Forms in which trained weights are exported: a plain folder of transformers, an adapter of the
#: peft library, the inserted modules as peftbench itself loads them.
MODEL, PEFT, OWN = "model", "peft", "peftbench"

#: The largest difference of two logits that are the same, of logits around 1; sums of products in
#: another order differ by a tenth of it.
SAME_LOGITS = 1e-4

#: What the names of tensors inside the model begin with in a file of the peft library.
PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way of fine-tuning.

    Attributes:
        identity_at_init: whether the model still computes what the pretrained one does once the
            method is inserted; the contract tests check it.
    """

    identity_at_init: ClassVar[bool] = True

    @property
    def uniform_posterior(self) -> bool:
        """Whether means of posteriors over its `down` start at a uniform draw (BH-PEFT)."""
        return False

    def __post_init__(self) -> None:
        """Refuse values that a setting cannot have; see `settings.py` for the package's own."""
        for kind in type(self).__mro__:
            check_values(f"{kind.__module__}.{kind.__qualname__}", vars(self))

    def __init_subclass__(cls) -> None:
        """Refuse hooks by their old names, which nothing would call.

        Raises:
            TypeError: naming the hook.
        """
        for old, new in OLD_HOOKS.items():
            if isinstance(vars(cls).get(old), FunctionType | property | bool):
                raise TypeError(f"{cls.__name__}.{old}: this hook is called {new} now")

    @property
    def supports_packing(self) -> bool:
        """Whether torch.func can map loss and predictions over runs; contract tests check it.

        Not where `on_gradients` is to read gradients, as mapped steps have none of one run alone.
        """
        return type(self).on_gradients is Method.on_gradients

    @property
    def head_alone(self) -> bool:
        """Whether nothing but the head is meant to train; else values that leave it are refused."""
        return False

    @property
    def names_blocks(self) -> bool:
        """Whether its values name blocks by number, so that a rehearsal needs all of them."""
        return False

    @property
    def task_alone(self) -> bool:
        """Whether loss and predictions are the task's own: of a member of `Combined` they are."""
        own = type(self)
        return own.compute_loss is Method.compute_loss and own.predict is Method.predict

    @property
    def token_wise(self) -> bool:
        """Whether it changes each token by itself, and predicts in one pass without sampling.

        Then keys and values of a causal model stay what they are when further tokens come.
        """
        return self.predicts_once

    @property
    def predicts_once(self) -> bool:
        """Whether a prediction is one pass, without sampling."""
        return type(self).predict is Method.predict

    @property
    def moves_at_end(self) -> bool:
        """Whether `on_train_end` changes weights."""
        return False

    def insert(self, model: AdaptedModel) -> None:
        """Add modules to a frozen model, or let some of its parameters train.

        Raises:
            ValueError: if the model does not have what the method needs.
        """
        raise NotImplementedError

    def on_train_begin(self, model: AdaptedModel, batches: Iterator[Batch]) -> None:
        """Read as many training batches as it takes, after `insert`, before the first step."""

    def compute_loss(self, model: AdaptedModel, batch: Batch) -> Tensor:
        """The mean loss of a batch; a scalar."""
        return task_loss(model(batch), batch["labels"], batch.get("weights"))

    def check_budget(self, budget: Budget) -> None:
        """Refuse a budget that the method cannot train in, when runs are planned.

        Raises:
            ValueError: saying why.
        """

    def on_gradients(self, model: AdaptedModel) -> None:
        """Read the gradients of a step, clipped, before the optimizer takes it.

        A method that has this hook shares no passes, and no GPU replays its steps.
        """

    def on_step_end(self, model: AdaptedModel, step: int, steps: int | None) -> None:
        """Act after optimizer step `step` of `steps` (None for a budget of seconds).

        Also called before the first step, and once when training continues from a checkpoint.
        """

    def extra_update(
        self, model: AdaptedModel, step: int, batch_size: int, lr_share: float
    ) -> None:
        """Change parameters beside AdamW, after each of its steps: a second optimizer.

        Args:
            model: after AdamW's step.
            step: number of the step, from 1.
            batch_size: examples of a step.
            lr_share: the learning rate of the step as a share of its peak.
        """

    def diagnostics(self, model: AdaptedModel) -> dict[str, float]:
        """Figures for each point of the curve beside loss and scores, by names of their own."""
        return {}

    def on_train_end(self, model: AdaptedModel) -> None:
        """Act when the budget is spent, before the last evaluation.

        Where a state is selected and `moves_at_end`: before each evaluation, which is of what would
        be kept; afterwards the training goes on from where it was.
        """

    def posterior_to_prior(self, model: AdaptedModel) -> None:
        """Take the posterior of this round of data as the prior of the next (continual learning).

        Raises:
            ValueError: if nothing it learns is a distribution.
        """
        raise ValueError(f"{type(self).__name__} has no posterior to take as a prior")

    def lr_multipliers(self, model: AdaptedModel) -> dict[str, float]:
        """Factors of the learning rate, by the name of a trained parameter; 1 where none is."""
        return {}

    def export_forms(self) -> tuple[str, ...]:
        """The forms that its trained weights can be exported in, the default first.

        Of `MODEL` (needs `merge`), `PEFT` (needs `to_peft`) and `OWN`.

        Raises:
            ValueError: if there is none, with the reason and what could be exported instead.
        """
        raise ValueError(f"{type(self).__name__} declares no form of an export (`export_forms`)")

    def merge(self, model: AdaptedModel) -> None:
        """Fold all that it inserted into linears of the model's own; the backbone stays as it is.

        Raises:
            ValueError: if that is not possible.
        """
        model.merge()

    def to_peft(self, model: AdaptedModel) -> tuple[Json, dict[str, Tensor]]:
        """The same thing in the peft library, the head left out.

        Returns:
            The arguments of its config, and tensors by their names in its file.

        Raises:
            ValueError: if the library has no such thing.
        """
        raise ValueError(f"{type(self).__name__} has no form in the peft library")

    def to_adapters(self, model: AdaptedModel, name: str) -> tuple[Json, dict[str, Tensor]]:
        """The same thing in the adapters library.

        Args:
            model: after training.
            name: of the adapter.

        Returns:
            The arguments of its config, and all trained tensors by their names in its models.

        Raises:
            ValueError: if the library has no such thing.
        """
        raise ValueError(f"{type(self).__name__} has no form in the adapters library")

    def scale_width(self, times: int) -> "Method":
        """The same method with `times` as many trained parameters.

        Raises:
            ValueError: if it has no width.
        """
        raise ValueError(
            f"{type(self).__name__} has no width; choose another base_method, or widen=1"
        )

    def predict(self, model: AdaptedModel, batch: Batch) -> dict[str, Tensor]:
        """Outputs in eval mode: `scores` (batch, classes), and spreads where the method samples."""
        return {"scores": model(batch)}


@dataclass(frozen=True, kw_only=True)
class WrapperMethod(Method):
    """A method around another one, its base method, which does what it would do alone."""

    identity_at_init: ClassVar[bool] = False

    base_method: Method

    @property
    def supports_packing(self) -> bool:
        """Whether the base method does, and it reads no gradients itself."""
        own = type(self).on_gradients is WrapperMethod.on_gradients
        return own and self.base_method.supports_packing

    @property
    def head_alone(self) -> bool:
        """Whether the base method means to."""
        return self.base_method.head_alone

    @property
    def names_blocks(self) -> bool:
        """Whether the base method does."""
        return self.base_method.names_blocks

    @property
    def task_alone(self) -> bool:
        """Whether those of the base method are, and it changes neither."""
        own, plain = type(self), WrapperMethod
        same = own.compute_loss is plain.compute_loss and own.predict is plain.predict
        return same and self.base_method.task_alone

    @property
    def predicts_once(self) -> bool:
        """Whether those of the base method are, and it does not change them."""
        return type(self).predict is WrapperMethod.predict and self.base_method.predicts_once

    @property
    def moves_at_end(self) -> bool:
        """Whether the base method's does."""
        return self.base_method.moves_at_end

    @property
    def token_wise(self) -> bool:
        """Whether the base method does."""
        return type(self).predict is WrapperMethod.predict and self.base_method.token_wise

    def insert(self, model: AdaptedModel) -> None:
        """Insert the host."""
        self.base_method.insert(model)

    def on_train_begin(self, model: AdaptedModel, batches: Iterator[Batch]) -> None:
        """Let the base method read them."""
        self.base_method.on_train_begin(model, batches)

    def compute_loss(self, model: AdaptedModel, batch: Batch) -> Tensor:
        """The base method's loss."""
        return self.base_method.compute_loss(model, batch)

    def check_budget(self, budget: Budget) -> None:
        """Let the base method do it."""
        self.base_method.check_budget(budget)

    def on_gradients(self, model: AdaptedModel) -> None:
        """Let the base method read them."""
        self.base_method.on_gradients(model)

    def on_step_end(self, model: AdaptedModel, step: int, steps: int | None) -> None:
        """Let the base method act."""
        self.base_method.on_step_end(model, step, steps)

    def extra_update(
        self, model: AdaptedModel, step: int, batch_size: int, lr_share: float
    ) -> None:
        """Let the base method act."""
        self.base_method.extra_update(model, step, batch_size, lr_share)

    def diagnostics(self, model: AdaptedModel) -> dict[str, float]:
        """The base method's figures."""
        return self.base_method.diagnostics(model)

    def on_train_end(self, model: AdaptedModel) -> None:
        """Let the base method act."""
        self.base_method.on_train_end(model)

    def posterior_to_prior(self, model: AdaptedModel) -> None:
        """Let the base method do it."""
        self.base_method.posterior_to_prior(model)

    def lr_multipliers(self, model: AdaptedModel) -> dict[str, float]:
        """The base method's factors."""
        return self.base_method.lr_multipliers(model)

    def export_forms(self) -> tuple[str, ...]:
        """Those of the base method."""
        return self.base_method.export_forms()

    def merge(self, model: AdaptedModel) -> None:
        """Let the base method do it."""
        self.base_method.merge(model)

    def to_peft(self, model: AdaptedModel) -> tuple[Json, dict[str, Tensor]]:
        """The base method's."""
        return self.base_method.to_peft(model)

    def to_adapters(self, model: AdaptedModel, name: str) -> tuple[Json, dict[str, Tensor]]:
        """The base method's."""
        return self.base_method.to_adapters(model, name)

    def predict(self, model: AdaptedModel, batch: Batch) -> dict[str, Tensor]:
        """The base method's outputs."""
        return self.base_method.predict(model, batch)


def task_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross entropy of (batch, classes) logits, squared error of (batch, 1) values; the mean.

    Of (batch, tokens, vocabulary) logits, of texts, the cross entropy of the tokens that are
    wanted: the mean of each text, then of these.

    Args:
        logits: of the batch.
        labels: (batch,) classes, or values; (batch, tokens) with `NO_TOKEN` after the last.
        weights: (batch,) of each example's class, with mean 1 over the training set
            (`train.class_weights`). The sum is divided by the number of examples, not by that of
            the weights, so that the gradients of micro-batches add up to that of the batch.
    """
    if logits.ndim == 3:
        losses = F.cross_entropy(
            logits.float().transpose(1, 2), labels, ignore_index=NO_TOKEN, reduction="none"
        )
        means = losses.sum(1) / (labels != NO_TOKEN).sum(1)
        return means.mean() if weights is None else (weights * means).mean()
    if logits.shape[-1] == 1:
        return F.mse_loss(logits[:, 0].float(), labels)
    if weights is None:
        return F.cross_entropy(logits.float(), labels)
    return (weights * F.cross_entropy(logits.float(), labels, reduction="none")).mean()


def micro_batches_with_shares(model: AdaptedModel, batch: Batch) -> Iterator[tuple[float, Batch]]:
    """Micro-batches of a batch, each with its share of the examples.

    Gradients of their mean losses, times these shares, add up to that of the batch.
    """
    whole = len(batch["labels"])
    for piece in micro_batches(batch, model.micro_batch_size or whole):
        yield len(piece["labels"]) / whole, piece


def computes_in_fp16(device: torch.device) -> bool:
    """Whether autocast is fp16, which holds gradients of a scaled loss alone."""
    kind = device.type
    return torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16


def not_in_fp16(device: torch.device) -> AbstractContextManager[object]:
    """In fp32 where autocast is fp16."""
    if computes_in_fp16(device):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def repeated(batch: Batch, times: int) -> Batch:
    """The batch so many times over, one after the other, for as many samples in one pass."""
    return {name: t.repeat(times, *[1] * (t.ndim - 1)) for name, t in batch.items()}


def averaged(logits: Tensor) -> dict[str, Tensor]:
    """One prediction from the samples (samples, batch, classes) or (samples, batch, 1).

    Returns:
        `scores` (batch, classes), log probabilities for classes; `variance` (batch,), summed over
        classes; for classes `mutual_information` (batch,) in nats, the entropy of the mean less
        the mean entropy, which is the mean KL of a sample from the mean.
    """
    logits = logits.float()
    if logits.shape[-1] == 1:
        return {"scores": logits.mean(0), "variance": logits.var(0, correction=0)[:, 0]}
    logs = logits.log_softmax(-1)
    mean = logs.logsumexp(0) - math.log(len(logits))
    entropy = -(mean.exp() * mean).sum(-1)
    within = -(logs.exp() * logs).sum(-1).mean(0)
    return {
        "scores": mean,
        "variance": logs.exp().var(0, correction=0).sum(-1),
        "mutual_information": (entropy - within).clamp(min=0),
    }


def build_method(config: MethodConfig) -> Method:
    """Instantiate the method of a run; no weights are touched.

    Raises:
        ConfigError: if its class is no method, or the method refuses a value.
    """
    try:
        kind = import_class(config.target, Method)
    except ConfigError as error:
        raise ConfigError(f"method {config.name}: {error}") from error
    given = {name: _built(value) for name, value in config.hyperparameters.items()}
    if config.base_method is not None:
        given["base_method"] = build_method(config.base_method)
    known = {f.name for f in fields(kind)}
    needed = {f.name for f in fields(kind) if f.default is MISSING}
    if not needed <= set(given) <= known:
        raise ConfigError(f"method {config.name}: takes {sorted(known)}, got {sorted(given)}")
    try:
        return kind(**given)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"method {config.name}: {error}") from error
    except Exception as error:  # the code of a user's own method raises what it likes
        raise ConfigError(f"method {config.name}: {type(error).__name__}: {error}") from error


def _built(value: Any) -> Any:
    """A hyper-parameter; methods inside it (the members of a combination) are instantiated."""
    if not isinstance(value, dict):
        return value
    if "_target_" in value:
        return build_method(MethodConfig.from_json(value))
    return {name: _built(inner) for name, inner in value.items()}
