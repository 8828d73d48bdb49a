"""Causal families: nothing sees what comes after it, and padding changes nothing."""

import numpy as np
import pytest
import tiny
import torch

from peftbench.data import batching
from peftbench.data.loading import LabelledTexts
from peftbench.data.tokenization import encode
from peftbench.data.tokenizer import load_tokenizer
from peftbench.methods.base import build_method
from peftbench.models import pretrained
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.models.prepare_for_training import prepare_for_training

FAMILIES = [
    family
    for family in tiny.FAMILIES
    if tiny.one_run(f"model.family={family}").model.family_config.mask == "causal"
]


def adapted_model(family: str, *words: str, half: bool = False) -> AdaptedModel:
    """A settled encoder with a method."""
    made = AdaptedModel(tiny.backbone(family), classes=2, seed=0).eval()
    torch.manual_seed(0)
    build_method(tiny.one_run(*words, f"model.family={family}").method).insert(made)
    prepare_for_training(made, torch.bfloat16 if half else None, torch.arange(264))
    return made.eval()


def test_the_causal_families():
    assert FAMILIES == ["gpt2", "llama", "qwen2"]


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("method", ["head", "prefix", "combined"])
@pytest.mark.parametrize("family", FAMILIES)
def test_later_token_changes_no_earlier_position(family, method, half):
    made, batch = (
        adapted_model(family, f"method={method}", half=half),
        tiny.batch(tiny.tokens(), family),
    )
    seen = []
    hook = made.blocks[-1].register_forward_hook(lambda *given: seen.append(given[-1]))
    other = dict(batch)
    other["input_ids"] = batch["input_ids"].clone()
    other["input_ids"][:, 4] = 4 + (batch["input_ids"][:, 4] + 1) % 256
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        made(batch), made(other)
    hook.remove()
    before, after = seen
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:6], after[:, 4:6])
    assert (before[:, 5] != after[:, 5]).any(dim=-1).all(), "the next position sees it"


@pytest.mark.parametrize("method", ["head", "prefix"])
@pytest.mark.parametrize("family", FAMILIES)
def test_prefix_and_padding(family, method):
    """A padded batch gives what its examples give alone."""
    made, tokens = adapted_model(family, f"method={method}"), tiny.tokens()
    with torch.inference_mode():
        together = made(tiny.batch(tokens, family))
        alone = [made(batching.collate(tokens, np.array([i]), 0, "causal")) for i in range(8)]
    assert len(set(tokens.lengths)) > 3
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_computes_what_transformers_computes(family):
    """With its own mask, made from (batch, tokens), and its own kernel."""
    run = tiny.one_run(f"model.family={family}", tiny.WIDE)
    theirs = pretrained.skeleton(run.model).eval()
    ours = AdaptedModel(Backbone(run.model), classes=2, seed=0).eval()
    ours.restore({"score.weight": theirs.score.weight.detach()})
    batch = tiny.batch(tiny.tokens(), family)
    assert theirs.config._attn_implementation == "sdpa"
    real = torch.arange(batch["input_ids"].shape[1]) < batch["lengths"][:, None]
    with torch.inference_mode():
        logits = theirs(input_ids=batch["input_ids"], attention_mask=real.long()).logits
        torch.testing.assert_close(ours(batch), logits, rtol=0, atol=1e-5)


def test_attention_without_a_mask_is_refused():
    made = adapted_model("llama", "method=head")
    with pytest.raises(ValueError, match="needs its mask made ready"):
        made.module(input_ids=torch.tensor([[4, 5, 6]]), attention_mask=None)


def test_texts_without_a_separator_are_parted_and_empty_ones_have_a_token(monkeypatch):
    tokenizer = load_tokenizer(tiny.one_run("model.family=gpt2").model)
    backend = tokenizer.backend_tokenizer
    backend.post_processor = None
    tokenizer.sep_token = None
    tokenizer.eos_token = "[SEP]"
    pair = encode(LabelledTexts([["a"], ["b"]], np.zeros(1)), tokenizer, 8)
    assert tokenizer.decode(pair.ids) == "a\nb"
    empty = encode(LabelledTexts([["", "a"]], np.zeros(2)), tokenizer, 8)
    assert empty.ids.tolist() == [2, *tokenizer("a")["input_ids"]]
