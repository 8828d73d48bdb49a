"""A training that is one of several, one after the other."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from peftbench.methods.base import Method
from peftbench.models.adapted_model import AdaptedModel


@dataclass(frozen=True)
class ContinualStage:
    """A training that is one of several, one after the other.

    Attributes:
        key: names its checkpoint, 12 hexadecimal digits.
        number: from 0; order and dropout are drawn again for each.
        rows: numbers of the examples to train on, in place of the run's own.
        state: trained weights to go on from, None at the first one.
        head: whether these hold the head of this task too; else it starts from new weights.
        posterior_as_prior: whether what is known from `state` is the prior of what comes.
    """

    key: str
    number: int
    rows: np.ndarray
    state: dict[str, Tensor] | None
    head: bool = True
    posterior_as_prior: bool = False

    def begin(self, model: AdaptedModel, method: Method) -> None:
        """Bring a model to where the stage before it ended."""
        if self.state is not None:
            new = {n: t for n, t in model.state().items() if not self.head and model.in_head(n)}
            model.restore(self.state | new)
            if self.head:
                model.from_unit()  # kept weights speak the unit of the labels
            if self.posterior_as_prior:
                method.posterior_to_prior(model)
