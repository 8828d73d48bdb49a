"""The adapters against a plain restatement of a post-norm block and of the papers' equations."""

import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import Tensor

from peftbench.methods.base import build_method
from peftbench.models.adapted_model import AdaptedModel

HEADS = 4


def adapted_model(family: str, method: str, *words: str) -> AdaptedModel:
    made = AdaptedModel(tiny.backbone(family), classes=2, seed=0)
    torch.manual_seed(0)
    build_method(tiny.one_run(f"method={method}", *words).method).insert(made)
    return made.eval()


def linear(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-12).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return x / 2 * (1 + torch.erf(x / 2**0.5))


def bottleneck(x: Tensor, weights: dict[str, Tensor], name: str, activation) -> Tensor:
    return linear(activation(linear(x, weights, f"{name}.down")), weights, f"{name}.up")


def attended(x: Tensor, weights: dict[str, Tensor], real: Tensor) -> Tensor:
    """Scaled dot products, written out for one head at a time."""
    query, key, value = (
        linear(x, weights, f"attention.self.{name}").chunk(HEADS, -1)
        for name in ("query", "key", "value")
    )
    found = []
    for q, k, v in zip(query, key, value, strict=True):
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        scores = scores.masked_fill(~real[:, None, :], -torch.inf)
        found.append(scores.exp() / scores.exp().sum(-1, keepdim=True) @ v)
    return torch.cat(found, -1)


def houlsby(x: Tensor, weights: dict[str, Tensor], real: Tensor) -> Tensor:
    """Figure 2 of the paper: after each projection back to the width, before the residual."""
    for linears, place, normed in (
        (None, "attention.output.dense", "attention.output.LayerNorm"),
        ("intermediate.dense", "output.dense", "output.LayerNorm"),
    ):
        inner = gelu(linear(x, weights, linears)) if linears else attended(x, weights, real)
        h = linear(inner, weights, f"{place}.part")
        h = h + bottleneck(h, weights, f"{place}.bottleneck", gelu)
        x = norm(h + x, weights, normed)
    return x


def pfeiffer(x: Tensor, weights: dict[str, Tensor], real: Tensor) -> Tensor:
    """After the last norm, with the residual from before it, and the same norm once more."""
    h = linear(attended(x, weights, real), weights, "attention.output.dense")
    x = norm(h + x, weights, "attention.output.LayerNorm")
    inner = gelu(linear(x, weights, "intermediate.dense"))
    z = linear(inner, weights, "output.dense") + x
    h = norm(z, weights, "output.LayerNorm.part")
    h = bottleneck(h, weights, "output.LayerNorm.bottleneck", F.relu)
    return norm(z + h, weights, "output.LayerNorm.part")


@pytest.mark.parametrize(
    ("method", "block"), [("adapter", houlsby), ("pfeiffer", pfeiffer)], ids=["houlsby", "pfeiffer"]
)
def test_equals_the_equations(method, block):
    made = adapted_model("bert", method)
    batch = tiny.batch(tiny.tokens(), "bert")
    with torch.no_grad():
        for p in made.trained().values():  # away from the near identity of the start
            p.add_(torch.randn(p.shape) * 0.3)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        states = made.module.bert(**inputs, output_hidden_states=True).hidden_states
        x = states[0]
        for number, module in enumerate(made.blocks):
            x = block(x, module.state_dict(), batch["attention_mask"][:, 0, 0])
            torch.testing.assert_close(states[number + 1], x, rtol=1e-4, atol=1e-5)


def test_a_bottleneck_of_zeros_is_houlsby_without_adapters():
    made, bare = adapted_model("bert", "adapter"), adapted_model("bert", "head")
    batch = tiny.batch(tiny.tokens(), "bert")
    with torch.no_grad():
        assert not torch.equal(made(batch), bare(batch))
        for name, p in made.trained().items():
            if ".bottleneck.up" in name:
                p.zero_()
        torch.testing.assert_close(made(batch), bare(batch), rtol=0, atol=1e-6)


def test_bottlenecks_start_near_the_identity():
    weights = [
        p for n, p in adapted_model("bert", "adapter").trained().items() if ".bottleneck." in n
    ]
    drawn = torch.cat([p.detach().flatten() for p in weights if p.ndim == 2])
    assert float(drawn.std()) == pytest.approx(0.02, rel=0.05)
    assert not any(p.any() for p in weights if p.ndim == 1)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_trains_the_norms_of_the_blocks_and_no_others(family):
    made = adapted_model(family, "adapter")
    trained = {n for n in made.trained() if ".bottleneck." not in n and not made.in_head(n)}
    path = made.backbone.family_config.blocks
    assert trained
    norms = ("norm", ".ln_")  # GPT-2's are called ln_1 and ln_2
    assert all(n.startswith(f"{path}.") and any(k in n.lower() for k in norms) for n in trained)
    without = adapted_model(family, "adapter", "method.train_norms=false")
    assert {n for n in without.trained() if not without.in_head(n)} == {
        n for n in made.trained() if ".bottleneck." in n
    }


def test_stands_after_the_layer_in_a_pre_norm_block():
    """ModernBERT's norm comes before its layer: the adapter of the last norm follows ffn_out."""
    made = adapted_model("modernbert", "pfeiffer")
    for block in made.blocks:
        inserted = [name for name, _ in block.named_modules() if name.endswith("bottleneck")]
        assert inserted == ["mlp.Wo.bottleneck"]
