"""BitFit: the biases.

Ben Zaken, Goldberg and Ravfogel: BitFit, ACL 2022, arXiv 2106.10199.

Only the additive terms of linear layers and norms train, pooler included (section 3.1):

    y = W x + b        W: (out, in), frozen        b: (out,), trained

102,912 scalars of BERT-base; of queries and the feed-forward's first layers alone (the paper's
half-size subset, section 4.2) 46,080, and with them, as in the authors' code, the pooler's.
"""

from dataclasses import dataclass

from peftbench.encoder import Encoder, check_roles
from peftbench.method import Method


@dataclass(frozen=True, kw_only=True)
class BitFit(Method):
    """All biases, or those of the roles in `at` and of what is above the blocks."""

    at: str | list[str]

    def __post_init__(self) -> None:
        if isinstance(self.at, list):
            check_roles("at", self.at)
        if self.at != "all" and (isinstance(self.at, str) or not self.at):
            raise ValueError(f"at must be all or a list of roles, got {self.at!r}")

    def insert(self, encoder: Encoder) -> None:
        """Unfreeze what is called bias."""
        chosen = {id(p) for part in self._parts(encoder) for p in part.parameters()}

        def wanted(name: str, parameter: object) -> bool:
            bias = name.rpartition(".")[2].endswith("bias")
            above = encoder.block_of(name) is None
            return bias and (self.at == "all" or above or id(parameter) in chosen)

        encoder.unfreeze("bias", wanted)

    def _parts(self, encoder: Encoder) -> list:  # type: ignore[type-arg]
        return [] if self.at == "all" else list(encoder.each(*self.at))
