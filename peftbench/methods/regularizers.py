"""Regularisers that ask for the same answer under small changes, for the loss of any method.

Jiang et al.: SMART, ACL 2020, arXiv 1911.03437. Aghajanyan et al.: R3F, ICLR 2021, arXiv
2008.03156. Wu et al.: R-Drop, NeurIPS 2021, arXiv 2106.14448.

All compare two outputs f of (batch, classes) by D(a, b) = KL(a || b) + KL(b || a), the mean over
the batch; for regression by their squared difference. x are word embeddings.

    rdrop: D / 2 of two passes with different dropout
    r3f:   D(f(x), f(x + z)), z uniform in [-epsilon, epsilon]
    smart: D(f(x), f(x + epsilon z)), z the direction, greatest component of each word 1, in which
           D grows fastest from a random start of 1e-5 (one step)

Departures from the papers: R3F leaves out regression, here it has the squared difference; SMART's
Bregman term is not here, and its authors' code moves by z, not by epsilon z.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from peftbench.data.batching import Batch
from peftbench.models.adapted_model import AdaptedModel

Penalty = Callable[[AdaptedModel, Batch, Tensor, float], Tensor]


def divergence(a: Tensor, b: Tensor) -> Tensor:
    """D of two outputs (batch, classes), or (batch, 1) values; a scalar."""
    if a.shape[-1] == 1:
        return F.mse_loss(a.float(), b.float())
    p, q = a.float().log_softmax(-1), b.float().log_softmax(-1)
    return ((p.exp() - q.exp()) * (p - q)).sum(-1).mean()


def rdrop(encoder: AdaptedModel, batch: Batch, logits: Tensor, epsilon: float) -> Tensor:
    """Half of D between these logits and those of another pass."""
    return divergence(logits, encoder(batch)) / 2


def r3f(encoder: AdaptedModel, batch: Batch, logits: Tensor, epsilon: float) -> Tensor:
    """D between these logits and those under uniform noise."""
    noise = torch.empty_like(_words(encoder, batch)).uniform_(-epsilon, epsilon)
    return divergence(logits, _shifted(encoder, batch, noise))


def smart(encoder: AdaptedModel, batch: Batch, logits: Tensor, epsilon: float) -> Tensor:
    """D between these logits and those under the worst small change."""
    with torch.enable_grad():
        z = (torch.randn_like(_words(encoder, batch)) * 1e-5).requires_grad_()
        apart = divergence(_shifted(encoder, batch, z), logits.detach())
        (slope,) = torch.autograd.grad(apart, z)
    direction = slope / (slope.abs().amax(-1, keepdim=True) + 1e-12)
    return divergence(logits, _shifted(encoder, batch, epsilon * direction))


def _words(encoder: AdaptedModel, batch: Batch) -> Tensor:
    """Embeddings (batch, tokens, dim) of the words of a batch."""
    embedded: Tensor = encoder.module.get_input_embeddings()(batch["input_ids"])
    return embedded.detach()


def _shifted(encoder: AdaptedModel, batch: Batch, shift: Tensor) -> Tensor:
    """Logits (batch, classes) with the words' embeddings moved by (batch, tokens, dim)."""
    embedding = encoder.module.get_input_embeddings()
    hook = embedding.register_forward_hook(lambda module, given, output: output + shift)
    try:
        logits: Tensor = encoder(batch)
        return logits
    finally:
        hook.remove()


PENALTIES: dict[str, Penalty] = {"rdrop": rdrop, "r3f": r3f, "smart": smart}
