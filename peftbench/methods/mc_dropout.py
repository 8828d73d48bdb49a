"""Monte Carlo dropout: a prediction averaged over dropout masks.

Gal and Ghahramani: Dropout as a Bayesian approximation, ICML 2016, arXiv 1506.02142.

The base method trains as it would alone; in prediction its dropout stays on, and probabilities are
averaged over `samples` passes, whose spread is the uncertainty:

    p(y | x) = 1/N sum_i softmax f(x, mask_i)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from peftbench.data.batching import Batch
from peftbench.methods.base import WrapperMethod, averaged, repeated
from peftbench.methods.settings import Limits
from peftbench.models.adapted_model import AdaptedModel


@dataclass(frozen=True, kw_only=True)
class MCDropout(WrapperMethod):
    """A base method whose predictions are averaged over `samples` dropout masks."""

    samples: Annotated[int, Limits(at_least=1)]

    def insert(self, model: AdaptedModel) -> None:
        """Insert the base method.

        Raises:
            ValueError: if it samples too: passes in training mode would share one draw of its.
        """
        if not self.base_method.predicts_once:
            raise ValueError(
                f"MCDropout averages passes with dropout, and {type(self.base_method).__name__} "
                "averages samples of its own: choose a base method that predicts in one pass, such "
                "as method.base_method=lora, or train that method alone"
            )
        super().insert(model)

    def on_train_begin(self, model: AdaptedModel, batches: Iterator[Batch]) -> None:
        """Refuse a model in which nothing is dropped: all passes would be one."""
        super().on_train_begin(model, batches)
        if not model.drops:
            raise ValueError(
                f"MCDropout averages passes with dropout, and neither {model.name} nor "
                f"{type(self.base_method).__name__} as it is configured drops anything, so that "
                "all passes are alike: choose a base method with dropout, such as "
                "method.base_method=lora method.base_method.dropout=0.1, or train the base method "
                "alone"
            )

    def export_forms(self) -> tuple[str, ...]:
        """None: it averages passes with dropout."""
        raise ValueError(
            "MCDropout averages passes with dropout, which no plain model does; one pass without "
            "it could be exported, but would give other probabilities than the record's: train its "
            "base method alone for a folder, or use `peftbench predict KEY`"
        )

    def predict(self, model: AdaptedModel, batch: Batch) -> dict[str, Tensor]:
        """The average over masks as `scores`, and its spreads."""
        try:
            model.train()
            logits = model(repeated(batch, self.samples))
        finally:
            model.eval()
        return averaged(logits.unflatten(0, (self.samples, -1)))
