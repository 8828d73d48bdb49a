"""A linear layer whose weights are independent Gaussians."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from safetensors.torch import load
from torch import Tensor, nn

from peftbench.data.batching import Batch
from peftbench.methods.base import WrapperMethod, averaged, not_in_fp16, repeated
from peftbench.methods.settings import Limits
from peftbench.models.adapted_model import AdaptedModel
from peftbench.system import io


@runtime_checkable
class SampledLinear(Protocol):
    """A linear that draws its weights, so that one input may have several outputs in a batch."""

    def draws_per_batch(self, batch: int) -> int:
        """How many weights it draws for a batch of so many examples."""


class GaussianLinear(nn.Module):
    """y = W x, W ~ N(weight, exp(log_std)^2), without a bias.

    In training one W is drawn for a forward pass (`batch`), with signs of each token's own
    (`flipout`), or each output its own noise (`local`). Otherwise W is its mean, unless `draws`
    says how many times over the batch is there, group after group: then each group gets a draw
    (and what all groups share, as DeBERTa's relative positions, the mean).

    Args:
        linear: whose place is taken; the means start at its weights.
        noise: batch, flipout or local.
        spread: standard deviations start at G^2, G uniform in [spread / sqrt 2, spread].
        uniform: draw the means from U(-b, b) instead, b = sqrt(6 / max(in, out)).
    """

    #: It draws in training.
    draws_weights = True

    #: The parameter of the standard deviations.
    spread_name: ClassVar[str] = "log_std"

    log_std: Tensor

    def __init__(self, linear: nn.Linear, noise: str, spread: float, uniform: bool = False):
        super().__init__()
        means = linear.weight.detach().to(torch.float32, copy=True)
        if uniform:
            bound = math.sqrt(6 / max(means.shape))
            means = torch.empty_like(means).uniform_(-bound, bound)
        self.weight = nn.Parameter(means)
        roots = torch.empty_like(means).uniform_(spread / math.sqrt(2), spread)
        spreads = nn.Parameter(self._spread_of(roots))
        spreads._no_weight_decay = True  # type: ignore[attr-defined] # 0 is no small spread
        self.register_parameter(self.spread_name, spreads)
        self.noise = noise
        self.draws = 0
        self.prior: tuple[Tensor, Tensor] | None = None  # mean, log std of an earlier posterior

    @property
    def std(self) -> Tensor:
        """Standard deviations (out, in)."""
        return self.log_std.exp()

    @staticmethod
    def _spread_of(roots: Tensor) -> Tensor:
        return 2 * roots.log()

    def start_at(self, earlier: dict[str, Tensor], name: str) -> None:
        """Make an earlier posterior the prior, and start from it.

        Raises:
            ValueError: if it has no such matrix, or one of another shape.
        """
        try:
            mean, spread = (earlier[f"{name}.{part}"] for part in ("weight", self.spread_name))
        except KeyError:
            raise ValueError(f"prior.from holds no posterior of {name}") from None
        if mean.shape != self.weight.shape:
            raise ValueError(
                f"prior.from: {name} is {tuple(mean.shape)} there, {tuple(self.weight.shape)} here"
            )
        with torch.no_grad():
            self.weight.copy_(mean)
            self.get_parameter(self.spread_name).copy_(spread)
        self.keep_as_prior()

    def keep_as_prior(self) -> None:
        """Make the posterior as it is now the prior."""
        self.prior = (self.weight.detach().clone(), self.log_std.detach().clone())

    def draws_per_batch(self, batch: int) -> int:
        """See `SampledLinear`."""
        if self.draws:
            return self.draws
        return batch if self.training and self.noise != "batch" else 1

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, in) to (batch, tokens, out); (tokens, in) to (tokens, out)."""
        if self.draws and len(x) % self.draws == 0:
            groups = x.unflatten(0, (self.draws, -1)).flatten(1, -2)
            noise = torch.randn(self.draws, *self.weight.shape, device=x.device)
            weights = self.weight + self.std * noise
            y = torch.bmm(groups, weights.transpose(1, 2).to(groups.dtype))
            return y.view(*x.shape[:-1], -1)
        if self.draws or not self.training:  # what is no example's (relative positions): the mean
            return F.linear(x, self.weight)
        if self.noise == "local":
            with not_in_fp16(x.device):  # variances are small
                variance = F.linear(x.float() ** 2, self.std**2)
            y = F.linear(x, self.weight)
            return y + (variance.clamp(min=1e-16).sqrt() * torch.randn_like(variance)).to(y.dtype)
        noise = self.std * torch.randn_like(self.weight)
        if self.noise == "batch":
            return F.linear(x, self.weight + noise)
        signs = [_signs(x, width) for width in self.weight.shape]
        return F.linear(x, self.weight) + F.linear(x * signs[1], noise) * signs[0]


class RootGaussianLinear(GaussianLinear):
    """A `GaussianLinear` whose trained spread is the root G of the deviations, as in BLoB."""

    spread_name = "root_std"

    root_std: Tensor

    @property
    def std(self) -> Tensor:
        """Standard deviations (out, in): G^2."""
        return self.root_std**2

    @property
    def log_std(self) -> Tensor:  # type: ignore[override]
        """Their logarithms, kept finite at G = 0 as in the authors' code."""
        return (self.root_std**2 + 1e-6).log()

    @staticmethod
    def _spread_of(roots: Tensor) -> Tensor:
        return roots


def _signs(x: Tensor, width: int) -> Tensor:
    """Random signs (…, width) for each token of x (…, in)."""
    return torch.randint(0, 2, (*x.shape[:-1], width), device=x.device).to(x.dtype) * 2 - 1


def gaussians(model: AdaptedModel) -> dict[str, GaussianLinear]:
    """The Gaussian linears of a model, by path."""
    return {n: m for n, m in model.module.named_modules() if isinstance(m, GaussianLinear)}


def start_at_posterior(model: AdaptedModel, source: dict[str, str] | None) -> None:
    """Make the posterior of an earlier run prior and start, where there is one.

    Raises:
        ValueError: if it has no such matrix, one of another shape, or is another file now.
    """
    if source is not None and not model.rehearsal:
        earlier = posterior(source)
        for name, gaussian in gaussians(model).items():
            gaussian.start_at(earlier, name)


def divergence(model: AdaptedModel, prior: dict[str, Any]) -> Tensor:
    """KL(posterior || prior), summed over all Gaussian weights; a scalar."""
    layers = gaussians(model).values()
    return torch.stack([kl_to_normal(g, prior["mean"], prior["std"]) for g in layers]).sum()


def predict_by_draws(model: AdaptedModel, batch: Batch, samples: int) -> dict[str, Tensor]:
    """The average over draws as `scores` (log probabilities for classes), and its spreads."""
    layers = gaussians(model).values()
    many = repeated(batch, samples)
    try:
        for gaussian in layers:
            gaussian.draws = samples
        return averaged(model(many).unflatten(0, (samples, -1)))
    finally:
        for gaussian in layers:
            gaussian.draws = 0


def posterior(source: dict[str, str]) -> dict[str, Tensor]:
    """The trained weights of an earlier run.

    Args:
        source: `path` of a safetensors file, and its `sha256`.

    Raises:
        ValueError: if the file is no longer what it was.
    """
    content = Path(source["path"]).read_bytes()
    if io.digest(content) != source["sha256"]:
        raise ValueError(f"prior.from: {source['path']} has changed since the run was planned")
    return load(content)


def kl_to_normal(gaussian: GaussianLinear, mean: float, std: float) -> Tensor:
    """KL(posterior || prior) summed over the weights, in closed form; a scalar in fp32.

    Args:
        mean, std: of the prior, where the layer has none of its own.
    """
    log_std = gaussian.log_std
    if gaussian.prior is None:
        apart = (torch.exp(2 * log_std) + (gaussian.weight - mean) ** 2) / (2 * std**2)
        return (math.log(std) - log_std + apart - 0.5).sum()
    means, log_stds = gaussian.prior
    wider = log_std - log_stds  # 0 at the start, so that the divergence is too
    apart = (torch.exp(2 * wider) + ((gaussian.weight - means) / log_stds.exp()) ** 2) / 2
    return (apart - wider - 0.5).sum()


def no_export(method: str) -> str:
    """Why a method with a posterior is not exported, and what could be."""
    return (
        f"{method} averages draws from a posterior, which no plain model holds; the means could be "
        "merged, but would give other probabilities than the record's: train its base method alone "
        "for a folder, or use `peftbench predict KEY`"
    )


@dataclass(frozen=True, kw_only=True)
class GaussianWrapper(WrapperMethod):
    """A base method of which matrices have posteriors.

    Attributes:
        base_method: the other method.
        samples: of a prediction; 0 predicts with the means.
    """

    samples: Annotated[int, Limits(at_least=0)]

    def posterior_to_prior(self, model: AdaptedModel) -> None:
        """Make the posterior the prior."""
        for gaussian in gaussians(model).values():
            gaussian.keep_as_prior()

    def export_forms(self) -> tuple[str, ...]:
        """None: it has a posterior."""
        raise ValueError(no_export(type(self).__name__))

    def predict(self, model: AdaptedModel, batch: Batch) -> dict[str, Tensor]:
        """The average over draws as `scores` (log probabilities for classes), and its spreads."""
        if self.samples == 0:
            return self.base_method.predict(model, batch)
        return predict_by_draws(model, batch, self.samples)
