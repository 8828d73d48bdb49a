"""Several methods at once.

He, Zhou, Ma, Berg-Kirkpatrick and Neubig: Towards a unified view of parameter-efficient transfer
learning, ICLR 2022, arXiv 2110.04366 (section 4.6, the MAM adapter).

Each member changes another place of a block; the yaml's are a prefix at the attention and a scaled
adapter beside the feed-forward network:

    h = Attention(x, [P_k; K], [P_v; V])        y = FFN(h) + s U f(D h)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from peftbench.core.configs import Budget
from peftbench.data.batching import Batch
from peftbench.methods.base import OWN, Method
from peftbench.methods.settings import Limits
from peftbench.models.adapted_model import AdaptedModel


@dataclass(frozen=True, kw_only=True)
class Combined(Method):
    """All `members`, inserted in their order; their losses and predictions are the task's own.

    Planning refuses wrapper methods as members. Those that train weights of the model itself come
    before those that put parts around them.
    """

    identity_at_init: ClassVar[bool] = False

    members: Annotated[dict[str, Method], Limits(if_empty="name at least one method")]

    @property
    def supports_packing(self) -> bool:
        """Whether all do."""
        return all(member.supports_packing for member in self.members.values())

    @property
    def head_alone(self) -> bool:
        """Whether all mean to."""
        return all(member.head_alone for member in self.members.values())

    @property
    def names_blocks(self) -> bool:
        """Whether one does."""
        return any(member.names_blocks for member in self.members.values())

    @property
    def token_wise(self) -> bool:
        """Whether all do."""
        return all(member.token_wise for member in self.members.values())

    @property
    def uniform_posterior(self) -> bool:
        """Where it is BH-PEFT's own base method: a prefix and adapters."""
        return {type(member).__name__ for member in self.members.values()} == {"Prefix", "Adapter"}

    def insert(self, model: AdaptedModel) -> None:
        """Insert one after the other."""
        for member in self.members.values():
            member.insert(model)

    def on_train_begin(self, model: AdaptedModel, batches: Iterator[Batch]) -> None:
        """Let each look at batches.

        Raises:
            ValueError: if the loss or the predictions of a member are not the task's own.
        """
        for name, member in self.members.items():
            if not member.task_alone:
                raise ValueError(
                    f"members.{name}: {type(member).__name__} has a loss or predictions of its "
                    "own, of which a combination takes no notice: train it alone"
                )
        for member in self.members.values():
            member.on_train_begin(model, batches)

    def check_budget(self, budget: Budget) -> None:
        """Let each do it."""
        for member in self.members.values():
            member.check_budget(budget)

    def on_gradients(self, model: AdaptedModel) -> None:
        """Let each read them."""
        for member in self.members.values():
            member.on_gradients(model)

    def on_step_end(self, model: AdaptedModel, step: int, steps: int | None) -> None:
        """Let each act."""
        for member in self.members.values():
            member.on_step_end(model, step, steps)

    def extra_update(
        self, model: AdaptedModel, step: int, batch_size: int, lr_share: float
    ) -> None:
        """Let each act."""
        for member in self.members.values():
            member.extra_update(model, step, batch_size, lr_share)

    def diagnostics(self, model: AdaptedModel) -> dict[str, float]:
        """The members' figures."""
        return {n: v for m in self.members.values() for n, v in m.diagnostics(model).items()}

    @property
    def moves_at_end(self) -> bool:
        """Whether a member's does."""
        return any(member.moves_at_end for member in self.members.values())

    def on_train_end(self, model: AdaptedModel) -> None:
        """Let each act."""
        for member in self.members.values():
            member.on_train_end(model)

    def export_forms(self) -> tuple[str, ...]:
        """Their weights together, where each could be exported alone."""
        for member in self.members.values():
            member.export_forms()
        return (OWN,)

    def lr_multipliers(self, model: AdaptedModel) -> dict[str, float]:
        """The members' factors."""
        found: dict[str, float] = {}
        for member in self.members.values():
            found |= member.lr_multipliers(model)
        return found
