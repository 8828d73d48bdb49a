"""BitFit: the biases.

Ben Zaken, Goldberg and Ravfogel: BitFit, ACL 2022, arXiv 2106.10199.

Only the additive terms of linear layers and norms train, pooler included (section 3.1):

    y = W x + b        W: (out, in), frozen        b: (out,), trained

102,912 scalars of BERT-base; of queries and the feed-forward's first layers alone (the paper's
half-size subset, section 4.2) 46,080, and with them, as in the authors' code, the pooler's.
"""

from dataclasses import dataclass
from typing import Annotated

from torch import nn

from peftbench.core.roles import ROLES
from peftbench.methods.base import MODEL, Method
from peftbench.methods.settings import Limits
from peftbench.models.adapted_model import AdaptedModel


@dataclass(frozen=True, kw_only=True)
class BitFit(Method):
    """All biases, or those of the roles in `target_modules` and of what is above the blocks."""

    target_modules: Annotated[list[str] | None, Limits(roles=ROLES, empty=True)]

    def export_forms(self) -> tuple[str, ...]:
        """A model with other biases."""
        return (MODEL,)

    def insert(self, model: AdaptedModel) -> None:
        """Unfreeze what is called bias."""
        chosen = {id(p) for part in self._parts(model) for p in part.parameters()}

        def wanted(name: str, parameter: object) -> bool:
            bias = name.rpartition(".")[2].endswith("bias")
            above = model.block_of(name) is None
            return bias and (self.target_modules is None or above or id(parameter) in chosen)

        model.unfreeze("bias", wanted)

    def _parts(self, model: AdaptedModel) -> list[nn.Module]:
        return [] if self.target_modules is None else list(model.each(*self.target_modules))
