"""What methods share that put an update beside the linears of some roles."""

from dataclasses import dataclass
from typing import Annotated

from torch import nn

from peftbench.core.roles import LINEARS
from peftbench.methods.base import Method
from peftbench.methods.settings import Limits
from peftbench.models.adapted_model import AdaptedModel


@dataclass(frozen=True, kw_only=True)
class LinearUpdates(Method):
    """Each linear of `target_modules`, replaced by itself and an update.

    Attributes:
        dropout: of what goes into an update.
        target_modules: roles of these linears.
    """

    dropout: Annotated[float, Limits(between=(0, 0.9))]
    target_modules: Annotated[list[str], Limits(roles=LINEARS)]

    def insert(self, model: AdaptedModel) -> None:
        """Put an update beside every target."""
        model.replace(*self.target_modules, by=self._updated)

    def updated(self, linear: nn.Linear) -> nn.Module:
        """The linear with its update."""
        raise NotImplementedError

    def _updated(self, part: nn.Module) -> nn.Module:
        if not isinstance(part, nn.Linear):
            raise ValueError(
                f"{type(self).__name__} updates linear layers; {type(part).__name__} is none: "
                "choose other target_modules"
            )
        return self.updated(part)
