"""The head alone, on a frozen encoder.

The `frozen` control of Ben Zaken, Goldberg and Ravfogel: BitFit, ACL 2022, arXiv 2106.10199.

What the pretrained features are worth without touching them: the floor for every other method.
"""

from dataclasses import dataclass

from peftbench.methods.base import MODEL, Method
from peftbench.models.adapted_model import AdaptedModel


@dataclass(frozen=True, kw_only=True)
class Head(Method):
    """Nothing but the head, which always trains."""

    @property
    def head_alone(self) -> bool:
        """It is all that is meant to train."""
        return True

    def export_forms(self) -> tuple[str, ...]:
        """A model with a head."""
        return (MODEL,)

    def insert(self, model: AdaptedModel) -> None:
        """Leave the model frozen."""
        if not model.trained():
            raise ValueError(f"{model.name} has no head of its own that could train, only words")
