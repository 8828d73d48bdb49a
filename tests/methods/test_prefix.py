"""Prefixes against attention written out, in every family."""

import pytest
import tiny
import torch
from torch import Tensor

from peftbench.methods.base import build_method
from peftbench.models.adapted_model import AdaptedModel


def linear(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def adapted_model(family: str, *words: str, method: str = "prefix") -> AdaptedModel:
    made = AdaptedModel(tiny.backbone(family), classes=2, seed=0)
    torch.manual_seed(0)
    build_method(tiny.one_run(f"method={method}", *words).method).insert(made)
    return made.eval()


def test_the_start_is_wide_but_inside_unipelt():
    """UniPELT's code draws it as BERT's weights; He et al.'s keeps torch's N(0, 1)."""
    for method, std in (("prefix", 1.0), ("combined", 1.0), ("unipelt", 0.02)):
        found = adapted_model("bert", method=method).module.prefix.start
        assert found.std().item() == pytest.approx(std, rel=0.1)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_length_zero_is_the_plain_model(family):
    batch = tiny.batch(tiny.tokens(), family)
    with torch.inference_mode():
        plain = adapted_model(family, method="head")(batch)
        assert torch.equal(adapted_model(family, "method.length=0")(batch), plain)
        assert not torch.allclose(adapted_model(family)(batch), plain, atol=1e-4)


@pytest.mark.parametrize("width", [0, 8])
def test_equals_attention_written_out(width):
    made = adapted_model("bert", "method.length=3", f"method.width={width}")
    batch = tiny.batch(tiny.tokens(), "bert")
    with torch.inference_mode():
        prefix = made.module.prefix(8)
        assert prefix.shape == (2, 2, 3, 32)
        made(batch)  # leaves the prefixes where the attentions find them
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        x = made.module.bert(**inputs, output_hidden_states=True).hidden_states[0]
        block = made.blocks[0]
        weights = block.state_dict()
        expected = _attended(x, weights, batch["attention_mask"][:, 0, 0], *prefix[0])
        found = block.attention.self(x, batch["attention_mask"])[0]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def _attended(x: Tensor, weights: dict, real: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One head at a time; every token sees the whole prefix."""
    q, k, v = (linear(x, weights, f"attention.self.{n}") for n in _NAMES)
    k, v = (torch.cat([p.expand(len(x), -1, -1), y], 1) for p, y in ((keys, k), (values, v)))
    real = torch.cat([torch.ones(len(x), keys.shape[0], dtype=torch.bool), real], 1)
    found = []
    for a, b, c in zip(q.chunk(4, -1), k.chunk(4, -1), v.chunk(4, -1), strict=True):
        scores = (a @ b.transpose(1, 2) / a.shape[-1] ** 0.5).masked_fill(
            ~real[:, None], -torch.inf
        )
        found.append(scores.softmax(-1) @ c)
    return torch.cat(found, -1)


_NAMES = ("query", "key", "value")


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_keys_that_nobody_looks_at_change_nothing(family):
    """A prefix whose scores are far below the others' has no weight."""
    batch = tiny.batch(tiny.tokens(), family)
    made = adapted_model(family, "method.length=2", "method.width=0")
    plain = adapted_model(family, method="head")
    with torch.no_grad():
        for part in made.each("query"):  # q = a constant, so that keys can be its opposite
            part.weight = torch.nn.Parameter(torch.zeros_like(part.weight))
            part.bias = torch.nn.Parameter(torch.ones(part.out_features))
        for ours, theirs in zip(made.each("query"), plain.each("query"), strict=True):
            theirs.weight, theirs.bias = ours.weight, ours.bias
        shape = (2, len(made.blocks), 2, made.key_dim)
        start = torch.full(shape, -30.0)
        start[:, :, 1] = 5.0
        made.module.prefix.start.copy_(start.flatten(1))
        if family == "modernbert":  # rotations turn the queries: no key is opposite to all
            return
        torch.testing.assert_close(made(batch), plain(batch), rtol=1e-4, atol=1e-4)
        start[:, :, 0] = 0.0  # and one that is seen does change something
        made.module.prefix.start.copy_(start.flatten(1))
        assert not torch.allclose(made(batch), plain(batch), atol=1e-3)


def test_two_prefixes_are_refused():
    made = adapted_model("bert")
    with pytest.raises(ValueError, match="in front already"):
        build_method(tiny.one_run("method=prefix").method).insert(made)


def test_published_counts():
    """methods.md 4.2: E 30 x 768, first layer 768 x 8 (no bias there), second 8 x 12 * 2 * 768."""
    import full_size

    words = ("method.length=30", "method.width=8")
    count = full_size.trained("roberta_base", "prefix", *words)
    assert count == 30 * 768 + (768 * 8 + 8) + (8 + 1) * 12 * 2 * 768
