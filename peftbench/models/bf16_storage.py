"""Frozen weights that are stored in bf16, in a model that computes as ever.

The matrices of linears and the word embeddings, nearly all of a model, stay as they were loaded.
Norms, biases and positions are widened to fp32, and so is what leaves the word embeddings: sums
between blocks are fp32, as with fp32 weights. Autocast multiplies the stored weights as they are;
without it they are widened for each product.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from peftbench.models.mapped_linear import MappedLinear


def widen_small(root: nn.Module) -> None:
    """Widen all parameters but the matrices of linears and the word embeddings to fp32."""
    large = {id(m.weight) for m in root.modules() if isinstance(m, nn.Linear | Conv1D)}
    words = root.get_input_embeddings()  # type: ignore[operator]
    large |= {id(words.weight)} if type(words) is nn.Embedding else set()
    for parameter in root.parameters():
        if id(parameter) not in large or parameter.ndim < 2:
            parameter.data = parameter.data.float()


def let_store(root: nn.Module) -> None:
    """Let linears and word embeddings compute with weights that `widen_small` left as they were."""
    for part in root.modules():
        if type(part) is nn.Linear:
            part.__class__ = StoredLinear
    words = root.get_input_embeddings()  # type: ignore[operator]
    if type(words) is nn.Embedding:
        words.__class__ = StoredEmbedding


class StoredLinear(MappedLinear):
    """A linear whose weight may have another type than what it multiplies."""

    def forward(self, input: Tensor) -> Tensor:
        """(…, in) to (…, out)."""
        if self.weight.dtype == input.dtype or torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)


class StoredEmbedding(nn.Embedding):
    """An embedding that gives fp32, whatever its weight is."""

    def forward(self, input: Tensor) -> Tensor:
        """(batch, tokens) to (batch, tokens, dim)."""
        return super().forward(input).float()
