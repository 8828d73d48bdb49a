"""Regularisers that ask for the same answer under small changes, for the loss of any method.

Jiang et al.: SMART, ACL 2020, arXiv 1911.03437. Aghajanyan et al.: R3F, ICLR 2021, arXiv
2008.03156. Wu et al.: R-Drop, NeurIPS 2021, arXiv 2106.14448.

All compare two outputs f of (batch, classes) by D(a, b) = KL(a || b) + KL(b || a), the mean over
the batch (of texts, first over the wanted tokens of each); for regression by their squared
difference. x are word embeddings.

    rdrop: D / 2 of two passes with different dropout; the task loss is the mean of both passes'
    r3f:   D(f(x), f(x + z)), z uniform in [-epsilon, epsilon]
    smart: D(f(x), f(x + epsilon z)), z the direction, greatest component of each word 1, in which
           D grows fastest from a random start of 1e-5 (one step); as in its authors' code each KL
           has a gradient in its second argument alone, its first is a target (detached)

Departures from the papers: R3F leaves out regression, here it has the squared difference; in
fairseq its noised pass has no gradient through the embeddings, here it has; R-Drop's is halved
there too; SMART's Bregman term is not here, and its authors' code moves by z, not by epsilon z.
R3F's epsilon is 1e-5 in its paper, which 16 bits round away; that of the yaml is a thousand times
as large.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from peftbench.data.batching import NO_TOKEN, Batch
from peftbench.methods.base import computes_in_fp16
from peftbench.models.adapted_model import AdaptedModel

Penalty = Callable[[AdaptedModel, Batch, Tensor, float], Tensor]


#: The greatest gradient of a logit in fp16, which holds those of a scaled loss alone.
_FP16_GRADIENT = 256.0


def divergence(a: Tensor, b: Tensor, labels: Tensor | None = None, targets: bool = False) -> Tensor:
    """D of two outputs; a scalar.

    Args:
        a, b: (batch, classes), (batch, 1) values, or (batch, tokens, vocabulary) of texts.
        labels: of texts, which say where their tokens end.
        targets: whether the first argument of each KL is a target, without a gradient; the value
            is the same.
    """
    if a.shape[-1] == 1:
        return F.mse_loss(a.float(), b.float())
    p, q = a.float().log_softmax(-1), b.float().log_softmax(-1)
    whole = _mean(((p.exp() - q.exp()) * (p - q)).sum(-1), labels)
    if not targets:
        return whole
    slopes = -_mean((p.exp().detach() * q + q.exp().detach() * p).sum(-1), labels)
    return whole.detach() + slopes - slopes.detach()  # a sum of two KLs would round its value away


def _mean(values: Tensor, labels: Tensor | None) -> Tensor:
    """Of (batch,), or of (batch, tokens) that of each text's wanted tokens; a scalar."""
    if values.ndim == 1:
        return values.mean()
    assert labels is not None
    there = labels != NO_TOKEN
    return ((values * there).sum(1) / there.sum(1)).mean()


def r3f(model: AdaptedModel, batch: Batch, logits: Tensor, epsilon: float) -> Tensor:
    """D between these logits and those under uniform noise."""
    noise = torch.empty_like(_words(model, batch)).uniform_(-epsilon, epsilon)
    return divergence(logits, _shifted(model, batch, noise), batch["labels"])


def smart(model: AdaptedModel, batch: Batch, logits: Tensor, epsilon: float) -> Tensor:
    """D between these logits and those under the worst small change."""
    with torch.enable_grad():
        z = (torch.randn_like(_words(model, batch)) * 1e-5).requires_grad_()
        moved = _shifted(model, batch, z).float()
        apart = divergence(moved, logits.detach(), batch["labels"])
        (top,) = torch.autograd.grad(apart, moved)
        if computes_in_fp16(model.device):  # a factor leaves the direction as it is
            top = top * (_FP16_GRADIENT / top.abs().max().clamp(min=1e-30))
        (slope,) = torch.autograd.grad(moved, z, top)
    direction = slope / (slope.abs().amax(-1, keepdim=True) + 1e-12)
    shifted = _shifted(model, batch, epsilon * direction)
    return divergence(logits, shifted, batch["labels"], targets=True)


def _words(model: AdaptedModel, batch: Batch) -> Tensor:
    """Embeddings (batch, tokens, dim) of the words of a batch."""
    embedded: Tensor = model.module.get_input_embeddings()(batch["input_ids"])
    return embedded.detach()


def _shifted(model: AdaptedModel, batch: Batch, shift: Tensor) -> Tensor:
    """Logits (batch, classes) with the words' embeddings moved by (batch, tokens, dim)."""
    embedding = model.module.get_input_embeddings()
    hook = embedding.register_forward_hook(lambda module, given, output: output + shift)
    try:
        logits: Tensor = model(batch)
        return logits
    finally:
        hook.remove()


#: Penalties on a second pass that is made for them alone.
PENALTIES: dict[str, Penalty] = {"r3f": r3f, "smart": smart}
