"""BLoB's two optimisers, against torch's own and against what its authors report."""

import math

import pytest
import tiny
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.methods import dry_run
from peftbench.methods.base import build_method, task_loss
from peftbench.methods.layers.gaussian import RootGaussianLinear, gaussians, kl_to_normal
from peftbench.models.adapted_model import AdaptedModel

BATCH = tiny.batch(tiny.tokens(), "bert")


def made(*words: str, examples: int = 40, seed: int = 0):
    method = build_method(tiny.one_run("method=blob", *words).method)
    model = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0, examples=examples)
    torch.manual_seed(seed)
    method.insert(model)
    return model, method


def test_starts_as_the_authors_do():
    """M as LoRA's A, within 1 / sqrt(in); G uniform in [eps / sqrt 2, eps]."""
    model, method = made()
    plain = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0)
    torch.manual_seed(0)
    method.base_method.insert(plain)
    for name, layer in gaussians(model).items():
        assert torch.equal(layer.weight, plain.state()[f"{name}.weight"])
        assert 0.9 / math.sqrt(32) < layer.weight.abs().max().item() <= 1 / math.sqrt(32)
        assert 0.05 / math.sqrt(2) <= layer.root_std.min() < layer.root_std.max() <= 0.05


def test_divergence_is_that_of_torch():
    layer = RootGaussianLinear(nn.Linear(7, 5), "flipout", 0.5)
    expected = kl_divergence(Normal(layer.weight, layer.root_std**2), Normal(0.0, 0.2)).sum()
    torch.testing.assert_close(kl_to_normal(layer, 0.0, 0.2), expected, rtol=1e-4, atol=1e-3)


def test_weights_of_a_cycle_double_and_sum_to_nearly_one():
    """pi_i = 2^i / (2^(m + 1) - 1), m = int(100 n^(pi / gamma) / batch size), over and over."""
    _, method = made()
    cycle = int(100 * 3668 ** (math.pi / 8) / 32)
    assert cycle == 78
    weights = [method.kl_weight(step, 3668, 32) for step in range(1, 2 * cycle + 1)]
    assert weights[:cycle] == weights[cycle:]
    assert weights[cycle - 1] == pytest.approx(2**78 / (2**79 - 1))
    assert weights[1] / weights[0] == pytest.approx(2)
    assert sum(weights[:cycle]) == pytest.approx((2**79 - 2) / (2**79 - 1))


def test_a_step_is_adamw_on_the_likelihood_and_sgd_on_the_divergence():
    """Against torch.optim's AdamW and SGD, as the authors' `fit` has them."""
    steps, batch_size, examples, rate = 6, 8, 8, 1e-2
    model, method = made(examples=examples)
    tiny.fit(model.train(), method, BATCH, steps, lr=rate)
    other, _ = made(examples=examples)
    other.train()
    trained = list(other.trained().values())
    adam = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    layers = gaussians(other).values()
    sgd = torch.optim.SGD([p for one in layers for p in (one.weight, one.root_std)], lr=0.002)
    cycle = int(100 * examples ** (math.pi / 8) / batch_size)
    torch.manual_seed(0)
    for step in range(1, steps + 1):
        adam.zero_grad()
        task_loss(other(BATCH), BATCH["labels"]).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        adam.step()
        sgd.zero_grad()
        kl = 0.0
        for one in layers:
            std = one.root_std**2
            apart = (std**2 + one.weight**2) / (2 * 0.2**2) - 0.5
            kl = kl + (math.log(0.2) - torch.log(std + 1e-6) + apart).sum()
        i = cycle if step % cycle == 0 else step % cycle
        (2**i / (2 ** (cycle + 1) - 1) * kl).backward()
        sgd.step()
    for name, tensor in other.state().items():
        torch.testing.assert_close(model.state()[name], tensor, rtol=1e-4, atol=1e-6)


def test_the_spread_grows_and_the_mean_stays():
    """The other way round from AdamW on the KL, which shrinks the means and leaves the spread."""
    model, method = made()
    before = {n: (g.weight.abs().mean(), g.std.mean()) for n, g in gaussians(model).items()}
    state = tiny.fit(model.train(), method, BATCH, 110, lr=5e-4, num_evals=4)
    for name, layer in gaussians(model).items():
        mean, std = before[name]
        assert layer.weight.abs().mean() > 0.8 * mean
        assert layer.std.mean() > 3 * std
    first, *_, last = state.curve
    assert last["kl"] < 0.8 * first["kl"]


def test_the_loss_is_the_likelihood_and_the_divergence_stands_beside_it():
    model, method = made()
    model.eval()
    loss = method.compute_loss(model, BATCH)
    torch.testing.assert_close(loss, task_loss(model(BATCH), BATCH["labels"]))
    total = sum(kl_to_normal(layer, 0.0, 0.2).item() for layer in gaussians(model).values())
    assert method.diagnostics(model)["kl"] == pytest.approx(total / 40)
    state = tiny.fit(model.train(), method, BATCH, 2)
    assert state.curve[0]["loss"] < 1 < state.curve[0]["kl"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method.base_method=bitfit"], "inserts no down matrix"),
        (["method.kl_lr=-1"], "kl_lr must be a number of at least 0"),
        (["method.gamma=0"], "gamma must be a number greater than 0"),
    ],
)
def test_bad_values_are_refused_before_anything_starts(words, message):
    with pytest.raises(ConfigError, match=message):
        dry_run.validate_run(plan("model=tiny", "method=blob", *words).runs[0])
