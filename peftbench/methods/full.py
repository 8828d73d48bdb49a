"""Full fine-tuning.

Devlin, Chang, Lee and Toutanova: BERT, NAACL 2019, arXiv 1810.04805, section 4.

Every pretrained parameter trains, with a small learning rate.
"""

from dataclasses import dataclass

from peftbench.encoder import Encoder
from peftbench.method import Method


@dataclass(frozen=True, kw_only=True)
class Full(Method):
    """All parameters."""

    def insert(self, encoder: Encoder) -> None:
        """Unfreeze everything."""
        encoder.unfreeze("parameter", lambda name, parameter: True)
