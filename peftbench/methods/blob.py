"""BLoB: a Gaussian posterior over LoRA's first matrix, with an optimiser of its own for the KL.

Wang, Shi, Han, Metaxas and Wang: BLoB, NeurIPS 2024, arXiv 2406.11675, and the authors' code
(modelwrappers/blob.py of bayesian-peft). Wen, Vicol, Ba, Tran and Grosse: Flipout, ICLR 2018.

    A ~ N(M, G^4), G trained        M, G: (r, in)        h = W x + s B A x, B not Bayesian

M starts as LoRA's A, G uniform in [spread / sqrt 2, spread]. In training A is drawn by flipout,
with signs of each token's own. A step is two, with the same schedule:

    AdamW on the negative log likelihood of a batch                        (rate train.lr)
    SGD on pi_i KL(q || N(mean, std^2)), the KL summed over all weights    (rate kl_lr)
    pi_i = 2^i / (2^(m + 1) - 1), i = 1 .. m over and over, m = 100 n^(pi / gamma) / batch size

n: training examples. The recorded loss is the negative log likelihood alone; `kl` beside it in the
curve is the KL over n, so that their sum is the negative evidence lower bound of an example. For
regression the likelihood is that of the squared error of standardised labels: Gaussian noise of
variance 1/2 of theirs, fixed and not learnt (the authors have classes alone).

Departures from the paper: the head is a linear layer that trains (the authors' RoBERTa script puts
LoRA into it); a prior may be an earlier run's posterior.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch

from peftbench.methods.layers.gaussian import (
    GaussianWrapper,
    RootGaussianLinear,
    divergence,
    gaussians,
    start_at_posterior,
)
from peftbench.methods.settings import Limits
from peftbench.models.adapted_model import AdaptedModel


@dataclass(frozen=True, kw_only=True)
class BLoB(GaussianWrapper):
    """A base method whose `down` matrices have posteriors.

    Attributes:
        base_method: LoRA, or another method that inserts linears called `down`.
        spread: standard deviations start at G^2, G uniform in [spread / sqrt 2, spread].
        prior: mean, std; or `from`, a file of trained weights whose posterior is the prior.
        kl_lr: peak rate of the SGD on the KL.
        gamma: how the length of a cycle of KL weights grows with the training examples.
    """

    spread: Annotated[float, Limits(above=0)]
    prior: Annotated[dict[str, Any], Limits(inner={"std": Limits(above=0)})]
    kl_lr: Annotated[float, Limits(at_least=0)]
    gamma: Annotated[float, Limits(above=0)]

    def insert(self, model: AdaptedModel) -> None:
        """Insert the base method, and replace its first matrices."""
        self.base_method.insert(model)
        found = model.inserted("down")
        if not found:
            raise ValueError(f"{type(self.base_method).__name__} inserts no down matrix")
        for name, linear in found.items():
            model.put(name, RootGaussianLinear(linear, "flipout", self.spread))
        start_at_posterior(model, self.prior["from"])

    def extra_update(
        self, model: AdaptedModel, step: int, batch_size: int, lr_share: float
    ) -> None:
        """A step of SGD on the weighted KL."""
        super().extra_update(model, step, batch_size, lr_share)
        layers = gaussians(model).values()
        parameters = [p for layer in layers for p in layer.parameters() if p.requires_grad]
        weight = self.kl_weight(step, float(model.examples), batch_size)
        slopes = torch.autograd.grad(weight * divergence(model, self.prior), parameters)
        with torch.no_grad():
            for parameter, slope in zip(parameters, slopes, strict=True):
                parameter.sub_(self.kl_lr * lr_share * slope)

    def kl_weight(self, step: int, examples: float, batch_size: int) -> float:
        """pi_i of optimizer step `step`, from 1; a cycle of them sums to nearly 1."""
        cycle = max(1, int(100 * examples ** (math.pi / self.gamma) / batch_size))
        place = (step - 1) % cycle + 1
        return float(2.0 ** (place - cycle - 1) / (1 - 2.0 ** -(cycle + 1)))

    def diagnostics(self, model: AdaptedModel) -> dict[str, float]:
        """The base method's, and the KL over the training examples."""
        kl = divergence(model, self.prior).item() / float(model.examples)
        return {**super().diagnostics(model), "kl": kl}
