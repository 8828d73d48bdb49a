"""The Bayesian methods against closed forms."""

from dataclasses import dataclass, replace
from typing import ClassVar

import full_size
import pytest
import safetensors.torch
import tiny
import torch
from short_runs import CPU, SHORT, one
from torch import nn
from torch.distributions import Normal, kl_divergence

from peftbench.config.sweep import plan
from peftbench.core.configs import MethodConfig
from peftbench.core.errors import ConfigError
from peftbench.methods.base import WrapperMethod, build_method, task_loss
from peftbench.methods.layers.gaussian import GaussianLinear, kl_to_normal
from peftbench.models.adapted_model import AdaptedModel
from peftbench.results.store import ResultsFolder
from peftbench.training.trainer import execute
from peftbench.training.warm_cache import WarmCache


def adapted_model(
    family: str, *words: str, method: str = "bayes_hybrid", seed: int = 0
) -> AdaptedModel:
    made = AdaptedModel(tiny.backbone(family), classes=2, seed=0, examples=100)
    torch.manual_seed(seed)
    build_method(tiny.one_run(f"method={method}", *words).method).insert(made)
    return made.eval()


def gaussians(made: AdaptedModel) -> dict[str, GaussianLinear]:
    return {n: m for n, m in made.module.named_modules() if isinstance(m, GaussianLinear)}


def test_divergence_is_that_of_torch():
    layer = GaussianLinear(nn.Linear(7, 5), "batch", 0.5)
    q = Normal(layer.weight, layer.log_std.exp())
    expected = kl_divergence(q, Normal(0.3, 0.2)).sum()
    torch.testing.assert_close(kl_to_normal(layer, 0.3, 0.2), expected)
    earlier = {"x.weight": torch.randn(5, 7), "x.log_std": torch.randn(5, 7)}
    layer.start_at(earlier, "x")
    assert kl_to_normal(layer, 0.0, 1.0).item() == 0
    with torch.no_grad():
        layer.weight.add_(0.1)
    q = Normal(layer.weight, layer.log_std.exp())
    p = Normal(earlier["x.weight"], earlier["x.log_std"].exp())
    torch.testing.assert_close(kl_to_normal(layer, 0.0, 1.0), kl_divergence(q, p).sum())


def test_starts_as_the_authors_do():
    """Means up to sqrt(6 / max), deviations from 0.05^2 / 2 to 0.05^2; mean KL 3.3 to 4.0."""
    layer = GaussianLinear(nn.Linear(768, 8), "batch", 0.05, uniform=True)
    std = layer.log_std.exp()
    assert 0.00125 <= std.min().item() < std.max().item() <= 0.0025
    assert layer.weight.abs().max().item() == pytest.approx((6 / 768) ** 0.5, rel=0.01)
    mean = kl_to_normal(layer, 0.0, 0.1).item() / layer.weight.numel()
    assert 3.3 < mean < 4.0


HOSTS = {
    "lora": ("method.base_method=lora",),
    "parallel": ("method.base_method=parallel",),
    "adapter": ("method.base_method=adapter",),
    "combined": (),
}


@pytest.mark.parametrize("host", HOSTS)
def test_means_start_at_the_base_methods_weights(host):
    """Whatever is replaced; but BH-PEFT's own `down` is drawn as its authors do."""
    words = (*HOSTS[host], "method.matrices=[down,up]")
    made = adapted_model("bert", *words)
    plain = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0, examples=100)
    torch.manual_seed(0)
    build_method(tiny.one_run("method=bayes_hybrid", *words).method).base_method.insert(plain)
    found, state = made.state(), plain.state()
    for name, layer in gaussians(made).items():
        start = state[f"{name}.weight"]
        if host == "combined" and name.endswith("down"):
            assert layer.weight.abs().max().item() == pytest.approx((6 / 32) ** 0.5, rel=0.05)
            assert start.abs().max().item() < 0.2  # as linear layers are
        else:
            assert torch.equal(layer.weight, start)
        assert torch.equal(found[f"{name}.weight"], layer.weight)
    if host in ("lora", "parallel"):  # what starts at the pretrained model stays there
        untouched = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0).eval()
        batch = tiny.batch(tiny.tokens(), "bert")
        assert torch.equal(made(batch), untouched(batch))


def test_signs_of_flipout_are_a_tokens_own():
    """With one weight sample, equal tokens of an example get noise of either sign."""
    layer = GaussianLinear(nn.Linear(1, 1, bias=False), "flipout", 0.8).train()
    with torch.no_grad():
        torch.manual_seed(0)
        noise = layer(torch.ones(1, 64, 1)) - layer.weight
    assert len(noise.abs().unique()) <= 4  # one size, up to rounding
    assert {-1.0, 1.0} == set(noise.sign().unique().tolist())


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_without_spread_it_is_the_hybrid(family):
    batch = tiny.batch(tiny.tokens(), family)
    sizes = ["members.prefix.length=30", "members.prefix.width=8"]
    sizes += ["members.adapter.width=8", "members.adapter.scale=4.0"]
    words = [f"method.{word}" for word in sizes]
    bayes = adapted_model(family, "method.spread=1e-12")
    plain = adapted_model(family, *words, method="combined")
    state, found = plain.state(), bayes.state()
    with torch.no_grad():
        for name, tensor in state.items():
            if name in found:
                tensor.copy_(found[name])
            else:
                assert name.endswith("down.bias")
                assert not tensor.any()
        assert torch.equal(bayes(batch), plain(batch))
        method = build_method(tiny.one_run("method=bayes_hybrid", "method.spread=1e-12").method)
        logs = plain(batch).log_softmax(-1)
        found = method.predict(bayes, batch)
        torch.testing.assert_close(found["scores"], logs, rtol=1e-4, atol=1e-5)
        assert float(found["variance"].max()) < 1e-9
        assert float(found["mutual_information"].max()) < 1e-6


def test_counts_of_the_authors_code():
    """431,616 on RoBERTa-base, 116,736 on MiniLM (methods.md 4.2)."""
    assert full_size.trained("roberta_base", "bayes_hybrid") == 230_400 + 201_216 == 431_616
    assert full_size.trained("minilm", "bayes_hybrid") == 116_736


@pytest.mark.parametrize("noise", ["batch", "flipout", "local"])
def test_noise_has_the_mean_and_variance_of_the_weights(noise):
    torch.manual_seed(0)
    layer = GaussianLinear(nn.Linear(6, 3), noise, 0.8).train()
    x = torch.randn(1, 1, 6).expand(4000, 1, 6) if noise != "batch" else torch.randn(1, 1, 6)
    with torch.no_grad():
        rounds = 4000 if noise == "batch" else 40
        y = torch.cat([layer(x)[:, 0] for _ in range(rounds)])
        mean = x[0] @ layer.weight.T
        std = ((x[0] ** 2) @ (2 * layer.log_std).exp().T).sqrt()
    torch.testing.assert_close(y.mean(0), mean[0], rtol=0, atol=0.08)
    torch.testing.assert_close(y.std(0), std[0], rtol=0.25 if noise == "flipout" else 0.06, atol=0)


def test_local_noise_of_small_inputs_is_there_in_fp16():
    """Its variance, 2e-9, is below the least number of fp16, which is 6e-8."""
    torch.manual_seed(0)
    layer = GaussianLinear(nn.Linear(8, 3), "local", 0.05).train()
    with torch.no_grad():
        layer.weight.zero_()
        expected = 0.01 * layer.std.square().sum(1).sqrt()
        with torch.autocast("cpu", torch.float16):
            y = layer(torch.full((1, 4000, 8), 0.01))
    torch.testing.assert_close(y[0].float().std(0), expected, rtol=0.06, atol=0)


@pytest.mark.parametrize(
    ("precision", "noise", "revision"),
    [("fp16", "local", 2), ("bf16", "local", 1), ("fp16", "flipout", 1), ("fp16", "batch", 1)],
)
def test_only_local_noise_in_fp16_has_a_new_key(precision, noise, revision):
    words = ("method=bayes_hybrid", f"method.noise={noise}", f"train.precision={precision}")
    assert tiny.one_run(*words, "task=mrpc").loss_revision == revision


def test_draws_give_each_group_one_sample():
    layer = GaussianLinear(nn.Linear(6, 3), "batch", 0.8).eval()
    layer.draws = 5
    x = torch.randn(2, 4, 6)
    with torch.no_grad():
        y = layer(x.repeat(5, 1, 1)).unflatten(0, (5, 2))
        for group in y:  # each is a linear map of x: solve for it and predict
            w = torch.linalg.lstsq(x.flatten(0, 1), group.flatten(0, 1)).solution
            torch.testing.assert_close(x @ w, group, rtol=1e-3, atol=1e-4)
        assert float(y.std(0).min()) > 1e-4


def test_recovers_the_posterior_of_a_linear_model():
    """The ELBO's optimum has the exact means, and 1 / sqrt(diagonal of the precision) as spread.

    y = w x + N(0, 1), w ~ N(0, 1).
    """
    torch.manual_seed(0)
    x, true = torch.randn(200, 3), torch.tensor([[0.7, -1.2, 0.4]])
    y = x @ true.T + torch.randn(200, 1)
    precision = x.T @ x + torch.eye(3)
    mean = torch.linalg.solve(precision, x.T @ y)[:, 0]
    layer = GaussianLinear(nn.Linear(3, 1), "local", 0.5).train()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    for step in range(3000):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 3000)
        nll = 0.5 * (layer(x[:, None]) - y[:, None]).square().sum()
        optimizer.zero_grad()
        (nll + kl_to_normal(layer, 0.0, 1.0)).backward()
        optimizer.step()
    torch.testing.assert_close(layer.weight[0].detach(), mean, rtol=0, atol=0.02)
    std = precision.diagonal().rsqrt()
    torch.testing.assert_close(layer.log_std.exp()[0].detach(), std, rtol=0.1, atol=0)


@pytest.mark.parametrize(("normalise", "count"), [("mean", None), ("data", 100)])
def test_loss_is_the_task_and_the_weighted_divergence(normalise, count):
    words = (f"method.normalise={normalise}", "method.kl=0.5")
    made = adapted_model("bert", *words)
    method = build_method(tiny.one_run("method=bayes_hybrid", *words).method)
    batch = tiny.batch(tiny.tokens(), "bert")
    total = sum(kl_to_normal(g, 0.0, 0.1) for g in gaussians(made).values())
    weights = sum(g.weight.numel() for g in gaussians(made).values())
    expected = task_loss(made(batch), batch["labels"]) + 0.5 * total / (count or weights)
    torch.testing.assert_close(method.compute_loss(made, batch), expected)


def test_total_variance_and_information_are_those_of_the_samples():
    made = adapted_model("bert", "method.spread=3.0", "method.samples=7")
    method = build_method(tiny.one_run("method=bayes_hybrid", "method.samples=7").method)
    batch = tiny.batch(tiny.tokens(), "bert")
    many = {n: t.repeat(7, *[1] * (t.ndim - 1)) for n, t in batch.items()}
    with torch.inference_mode():
        torch.manual_seed(3)
        found = method.predict(made, batch)
        torch.manual_seed(3)
        for layer in gaussians(made).values():
            layer.draws = 7
        p = made(many).unflatten(0, (7, 8)).softmax(-1).double()
    torch.testing.assert_close(found["scores"].exp().double(), p.mean(0), rtol=1e-4, atol=1e-5)
    variance = p.var(0, correction=0).sum(-1)
    assert float(variance.min()) > 1e-8
    torch.testing.assert_close(found["variance"].double(), variance, rtol=1e-3, atol=1e-9)
    kl = (p * (p / p.mean(0)).log()).sum(-1).mean(0)
    torch.testing.assert_close(found["mutual_information"].double(), kl, rtol=5e-2, atol=1e-7)


@pytest.mark.parametrize("noise", ["batch", "flipout", "local"])
def test_posteriors_over_all_matrices_train(noise):
    words = ("method.matrices=[down,up]", f"method.noise={noise}", "method.base_method=lora")
    made = adapted_model("bert", *words).train()
    method = build_method(tiny.one_run("method=bayes_hybrid", *words).method)
    batch = tiny.batch(tiny.tokens(), "bert")
    assert len(gaussians(made)) == 2 * 2 * 2
    before = {n: p.detach().clone() for n, p in made.trained().items()}
    tiny.fit(made, method, batch, steps=3)
    assert all(not torch.equal(p, before[n]) for n, p in made.trained().items())


def test_an_earlier_posterior_is_the_prior(tmp_path):
    earlier = adapted_model("bert")
    path = tmp_path / "round0.safetensors"
    safetensors.torch.save_file(earlier.state(), path)
    run = tiny.one_run("method=bayes_hybrid", f"method.prior.from='{path}'")
    assert set(run.method.hyperparameters["prior"]["from"]) == {"path", "sha256"}
    moved = tmp_path / "elsewhere.safetensors"
    moved.write_bytes(path.read_bytes())
    assert tiny.one_run("method=bayes_hybrid", f"method.prior.from='{moved}'").key == run.key
    made = AdaptedModel(tiny.backbone("bert"), 2, seed=0)
    torch.manual_seed(1)
    method = build_method(run.method)
    method.insert(made)
    assert method.divergence(made).item() == pytest.approx(0, abs=1e-5)
    for name, layer in gaussians(made).items():
        assert torch.equal(layer.weight, earlier.module.get_submodule(name).weight)
    other = AdaptedModel(tiny.backbone("bert"), 2, seed=0)
    words = ("method.base_method.members.adapter.width=4", f"method.prior.from='{path}'")
    with pytest.raises(ValueError, match=r"is \(8, 32\) there, \(4, 32\) here"):
        build_method(tiny.one_run("method=bayes_hybrid", *words).method).insert(other)
    path.write_bytes(b"another file")
    with pytest.raises(ValueError, match="has changed since"):
        build_method(run.method).insert(AdaptedModel(tiny.backbone("bert"), 2, seed=0))


@dataclass(frozen=True, kw_only=True)
class Noted(WrapperMethod):
    """A Bayesian method whose layers are noted before its first step."""

    layers: ClassVar[list[dict[str, GaussianLinear]]] = []
    starts: ClassVar[list[dict[str, torch.Tensor]]] = []
    divergences: ClassVar[list[float]] = []

    def on_step_end(self, model: AdaptedModel, step: int, steps: int | None) -> None:
        """Note what a training starts from."""
        if step == 0:
            self.layers.append(gaussians(model))
            self.starts.append({n: t.clone() for n, t in model.state().items()})
            self.divergences.append(self.base_method.divergence(model).item())


def test_a_run_starts_at_the_posterior_of_another_by_its_key_and_is_pulled_to_it(tmp_path):
    task, warm = tiny.own_task(tmp_path), WarmCache()
    words = ("method=bayes_hybrid", "train.lr=1e-2")
    setting = replace(CPU, save_weights=True)
    first = execute(one(task, *words), setting, warm=warm)
    results = ResultsFolder(tmp_path / "runs")
    key = results.save(first.record, first.predictions, first.trained).run.key
    posterior = safetensors.torch.load(first.trained)

    def second(strength: float) -> float:
        """How far the means of another run went from the posterior's."""
        own = (*words, "seed=1", f"method.kl={strength}", "method.normalise=data")
        short = [w for w in SHORT if w.partition("=")[0] not in {x.partition("=")[0] for x in own}]
        (run,) = plan(
            *task, *short, *own, f"method.prior.from='{key}'", results=results.folder
        ).runs
        assert (
            run.method.hyperparameters["prior"]["from"]["sha256"]
            == results.load(key).trained_sha256
        )
        noted = MethodConfig(name="noted", target=f"{__name__}.Noted", base_method=run.method)
        state = safetensors.torch.load(execute(replace(run, method=noted), setting).trained)
        means = [name for name in state if name.removesuffix("weight") + "log_std" in state]
        return sum(float((state[name] - posterior[name]).square().sum()) for name in means) ** 0.5

    free = second(0.0)
    for name, layer in Noted.layers[0].items():
        start = {part: Noted.starts[0][f"{name}.{part}"] for part in ("weight", "log_std")}
        assert all(torch.equal(t, posterior[f"{name}.{part}"]) for part, t in start.items())
        prior = Normal(layer.prior[0], layer.prior[1].exp())
        q = Normal(start["weight"], start["log_std"].exp())
        assert kl_divergence(q, prior).sum().item() == 0
    assert Noted.divergences == [0]
    assert 0 < second(1e3) < free / 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method.prior.from=1234"], "is no word; quote it"),
        (["method.base_method=bitfit"], "inserts no down matrix"),
        (["method.noise=some"], "noise must be one of batch, flipout, local"),
        (["method.prior.std=0"], "prior.std must be a number greater than 0"),
        (["method.matrices=[down,left]"], "matrices must be one of down, up"),
        (["method.prior.from=abcd1234"], "names no kept weights"),
    ],
)
def test_bad_values_are_refused_before_anything_starts(words, message):
    from peftbench.methods import dry_run

    with pytest.raises(ConfigError, match=message):
        dry_run.validate_run(plan("model=tiny", "method=bayes_hybrid", *words).runs[0])
