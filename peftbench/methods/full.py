"""Full fine-tuning.

Devlin, Chang, Lee and Toutanova: BERT, NAACL 2019, arXiv 1810.04805, section 4.
Howard and Ruder: ULMFiT, ACL 2018, arXiv 1801.06146, section 3.2 (rates that differ by layer).

Every pretrained parameter trains, with a small learning rate, which may fall with the depth:

    rate of block l = rate * layer_decay ** (blocks - 1 - l)        embeddings: l = -1

Pooler and head have the full rate.
"""

from dataclasses import dataclass
from typing import Annotated

from peftbench.methods.base import MODEL, Method
from peftbench.methods.settings import Limits
from peftbench.models.adapted_model import AdaptedModel


@dataclass(frozen=True, kw_only=True)
class Full(Method):
    """All parameters, those of lower blocks with smaller rates where `layer_decay` is below 1."""

    layer_decay: Annotated[float, Limits(above=0, between=(0, 1))]

    def export_forms(self) -> tuple[str, ...]:
        """A model."""
        return (MODEL,)

    def insert(self, model: AdaptedModel) -> None:
        """Unfreeze everything."""
        model.unfreeze("parameter", lambda name, parameter: True)

    def lr_multipliers(self, model: AdaptedModel) -> dict[str, float]:
        """Powers of the decay."""
        if self.layer_decay == 1:
            return {}
        depth = len(model.blocks)
        found = {}
        for name in model.trained():
            block = model.block_of(name)
            if block is not None:
                found[name] = self.layer_decay ** (depth - 1 - block)
        return found
