"""Bayesian fine-tuning: Gaussian posteriors over matrices of a base method.

Chai, Liu, Zhou, Xie and Zeng: BH-PEFT, 2025, arXiv 2508.02711, and the authors' code. BLoB, which
has an optimiser of its own for the KL, is `blob.py`.
Wen, Vicol, Ba, Tran and Grosse: Flipout, ICLR 2018. Kingma, Salimans and Welling: local
reparameterisation, NIPS 2015.

Chosen matrices are drawn again for every batch, around a mean that trains together with the spread:

    W = m + exp(r) * e,  e ~ N(0, 1)        m, r: (out, in)
    loss = task loss + kl / count * sum KL(N(m, exp(2 r)) || N(prior mean, prior std^2))

`normalise: mean` counts Bayesian weights (the authors'), `data` training examples, which with
kl = 1 is the evidence lower bound. For regression the task loss is the squared error of
standardised labels (variance 1): the bound of Gaussian noise of variance 1/2 of theirs, which is
fixed and not learnt. Predictions average the probabilities of `samples` draws; their total variance
and the mutual information (equal to the mean KL from the average) come with them.

Means start at the base method's weights, so that a matrix that starts at 0 stays there. In
BH-PEFT's own base method, a prefix and adapters (`combined`), those of `down` are drawn from
U(-b, b), b = sqrt(6 / max(in, out)), as its authors do.

Departures from the papers: the paper's prior from an earlier posterior is wired here, the authors'
code never does it. A matrix loses its bias, as in the authors' code. Outside of training and of
prediction by samples the mean is used.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor

from peftbench.data.batching import Batch
from peftbench.methods.layers.gaussian import (
    GaussianLinear,
    GaussianWrapper,
    divergence,
    gaussians,
    start_at_posterior,
)
from peftbench.methods.settings import Limits
from peftbench.models.adapted_model import AdaptedModel


@dataclass(frozen=True, kw_only=True)
class BayesHybrid(GaussianWrapper):
    """A base method whose `matrices` have posteriors.

    Attributes:
        base_method: any method that inserts linears called `down` and `up`.
        noise: batch, flipout or local.
        spread: initial standard deviations are G^2, G uniform in [spread / sqrt 2, spread].
        prior: mean, std; or `from`, a file of trained weights whose posterior is the prior.
        kl: weight of the divergence.
        normalise: what the sum is divided by, mean or data.
    """

    matrices: Annotated[
        list[str], Limits(choices=("down", "up"), if_empty="choose down, up or both")
    ]
    noise: Annotated[str, Limits(choices=("batch", "flipout", "local"))]
    spread: Annotated[float, Limits(above=0)]
    prior: Annotated[dict[str, Any], Limits(inner={"std": Limits(above=0)})]
    kl: Annotated[float, Limits(at_least=0)]
    normalise: Annotated[str, Limits(choices=("mean", "data"))]

    def insert(self, model: AdaptedModel) -> None:
        """Insert the base method, and replace its matrices."""
        self.base_method.insert(model)
        found = model.inserted(*self.matrices)
        if not found:
            raise ValueError(
                f"{type(self.base_method).__name__} inserts no {' or '.join(self.matrices)} matrix"
            )
        drawn = ("down",) if self.base_method.uniform_posterior else ()
        for name, linear in found.items():
            uniform = name.rpartition(".")[2] in drawn
            model.put(name, GaussianLinear(linear, self.noise, self.spread, uniform))
        start_at_posterior(model, self.prior["from"])

    def compute_loss(self, model: AdaptedModel, batch: Batch) -> Tensor:
        """The base method's loss, on one draw, and the divergence from the prior."""
        return self.base_method.compute_loss(model, batch) + self.kl * self.divergence(model)

    def diagnostics(self, model: AdaptedModel) -> dict[str, float]:
        """The base method's, and the part of the loss that is the KL."""
        kl = self.kl * self.divergence(model).item()
        return {**super().diagnostics(model), "kl": kl}

    def divergence(self, model: AdaptedModel) -> Tensor:
        """The KL from posterior to prior over the count that `normalise` names; a scalar."""
        weights = sum(gaussian.weight.numel() for gaussian in gaussians(model).values())
        total = divergence(model, self.prior)
        return total / (weights if self.normalise == "mean" else model.examples)
