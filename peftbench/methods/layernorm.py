"""Norm tuning.

Qi, Ruan, Zuo and Li: Parameter-efficient tuning on layer normalization for pre-trained language
models, 2022, arXiv 2211.08682.

Gain and bias of the norms of all blocks train:

    y = g (x - mean) / deviation + b        g, b: (dim,)
"""

from dataclasses import dataclass

from peftbench.methods.base import MODEL, Method
from peftbench.models.adapted_model import AdaptedModel


@dataclass(frozen=True, kw_only=True)
class LayerNorm(Method):
    """The norms of all blocks."""

    def export_forms(self) -> tuple[str, ...]:
        """A model with other norms."""
        return (MODEL,)

    def insert(self, model: AdaptedModel) -> None:
        """Unfreeze them."""
        norms = {id(p) for norm in model.each("attn_norm", "ffn_norm") for p in norm.parameters()}
        model.unfreeze("norm", lambda name, parameter: id(parameter) in norms)
