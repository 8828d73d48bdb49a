"""What a method may do, and when.

A method is a frozen dataclass: it is its hyper-parameters. What changes during training lives in
parameters and buffers of the modules that it inserts, so that a checkpoint and a pack hold it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch.nn.functional as F
from hydra.utils import get_class
from torch import Tensor

from peftbench.encoder import Batch, Encoder
from peftbench.run import ConfigError, Json


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way of fine-tuning.

    Attributes:
        starts_pretrained: claims that, once inserted, the encoder still computes what the
            pretrained one does; the contract tests hold a method to it.
    """

    starts_pretrained: ClassVar[bool] = True

    def insert(self, encoder: Encoder) -> None:
        """Add modules to a frozen encoder, or let some of its parameters train.

        Raises:
            ValueError: if the encoder lacks what the method needs.
        """
        raise NotImplementedError

    def prepare(self, encoder: Encoder, batches: Iterator[Batch]) -> None:
        """Look at as many training batches as it takes, after `insert`, before the first step."""

    def loss(self, encoder: Encoder, batch: Batch) -> Tensor:
        """The mean loss of a batch; a scalar."""
        return task_loss(encoder(batch), batch["labels"])

    def after_step(self, encoder: Encoder, step: int, steps: int | None) -> None:
        """Act after optimizer step `step` of `steps` (None for a budget of seconds)."""

    def rates(self, encoder: Encoder) -> dict[str, float]:
        """Factors of the learning rate, by the name of a trained parameter; 1 where none is."""
        return {}

    def wider(self, times: int) -> "Method":
        """The same method with so many times the trained parameters.

        Raises:
            ValueError: if it has no width.
        """
        raise ValueError(f"{type(self).__name__} has no width; choose another host, or widen=1")

    def predict(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        """Outputs in eval mode: `scores` (batch, classes), and spreads where the method samples."""
        return {"scores": encoder(batch)}


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of (batch, classes) logits, squared error of (batch, 1) values; the mean."""
    if logits.shape[-1] == 1:
        return F.mse_loss(logits[:, 0].float(), labels)
    return F.cross_entropy(logits.float(), labels)


def make(node: Json) -> Method:
    """Instantiate the method node of a run; no weights are touched.

    Raises:
        ConfigError: if its `_target_` is no method, or the method refuses a value.
    """
    target = node["_target_"]
    given: dict[str, Any] = {k: v for k, v in node.items() if k not in ("_target_", "name")}
    try:
        kind = get_class(target)
    except Exception as error:  # hydra wraps whatever the import raised
        raise ConfigError(f"method {node['name']}: cannot import {target}: {error}") from error
    if not issubclass(kind, Method):
        raise ConfigError(f"method {node['name']}: {target} is not a peftbench.method.Method")
    known = {f.name for f in fields(kind)}
    if set(given) != known:
        raise ConfigError(f"method {node['name']}: takes {sorted(known)}, got {sorted(given)}")
    try:
        return kind(**given)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"method {node['name']}: {error}") from error
