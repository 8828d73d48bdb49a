"""BitFit: the biases.

Ben Zaken, Goldberg and Ravfogel: BitFit, ACL 2022, arXiv 2106.10199.

Only the additive terms of linear layers and norms train, pooler included (section 3.1):

    y = W x + b        W: (out, in), frozen        b: (out,), trained

102,912 scalars of BERT-base.
"""

from dataclasses import dataclass

from peftbench.encoder import Encoder
from peftbench.method import Method


@dataclass(frozen=True, kw_only=True)
class BitFit(Method):
    """All biases."""

    def insert(self, encoder: Encoder) -> None:
        """Unfreeze every parameter that is called bias."""
        encoder.unfreeze("bias", lambda name, parameter: name.rpartition(".")[2].endswith("bias"))
