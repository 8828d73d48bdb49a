"""Training only the word embeddings that occur is training all of them."""

import numpy as np
import pytest
import tiny
import torch

from peftbench.data import batching
from peftbench.methods.base import build_method
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.prepare_for_training import prepare_for_training


def _trained(family: str, narrow: bool, words: torch.Tensor, examples: dict) -> AdaptedModel:
    torch.manual_seed(0)
    model = AdaptedModel(tiny.backbone(family), 2, seed=0)
    method = build_method(tiny.one_run("method=full").method)
    method.insert(model)
    dense = model.module.get_input_embeddings()
    prepare_for_training(model, autocast=None, token_ids=words)
    if not narrow:
        model.module.set_input_embeddings(dense)
    tiny.fit(model, method, examples, steps=4, weight_decay=0.0, lr=1e-3)
    return model


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_narrow_training_equals_dense_training(family):
    data = tiny.tokens()
    words = batching.occurring_ids(data, np.arange(len(data)), 0)
    assert 8 < len(words) < 100
    examples = tiny.batch(data, family)
    dense, narrow = (_trained(family, flag, words, examples) for flag in (False, True))
    assert narrow.counts() == dense.counts()
    expected, found = dense.state(), narrow.state()
    assert set(expected) == set(found)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=2e-5, msg=name)
    moved = dense.module.get_input_embeddings().weight
    start = tiny.backbone(family).module.get_input_embeddings().weight
    changed = (moved != start).any(dim=1).nonzero().flatten()
    assert set(changed.tolist()) <= set(words.tolist())
    assert len(changed) >= len(words) - 1  # padding has no gradient


def test_words_that_training_never_showed_are_pretrained_where_dropout_stays_on():
    """As if all words had been trained; `MCDropout` predicts in training mode."""
    seen, asked = tiny.tokens(examples=4), tiny.batch(tiny.tokens(seed=1), "bert")
    method = build_method(tiny.one_run("method=mc_dropout", "method.base_method=full").method)
    found, every = [], torch.arange(264)  # what `tiny.tokens` draws from
    for words in (batching.occurring_ids(seen, np.arange(4), 0), every):
        model = AdaptedModel(tiny.backbone("bert"), 2, seed=0)
        method.insert(model)
        prepare_for_training(model, autocast=None, token_ids=words)
        torch.manual_seed(0)
        with torch.inference_mode():
            found.append(method.predict(model.eval(), asked))
    assert torch.equal(found[0]["scores"], found[1]["scores"])
    assert found[0]["variance"].min() > 0


def test_words_that_training_never_showed_are_pretrained_in_evaluation():
    data = tiny.tokens(examples=4)
    words = batching.occurring_ids(data, np.arange(len(data)), 0)
    examples = tiny.batch(data, "bert")
    narrow = _trained("bert", True, words, examples)
    fresh = AdaptedModel(tiny.backbone("bert"), 2, seed=1)
    build_method(tiny.one_run("method=full").method).insert(fresh)
    fresh.restore(narrow.state())
    other = tiny.batch(tiny.tokens(seed=5), "bert")
    assert not set(other["input_ids"].flatten().tolist()) <= set(words.tolist())
    with torch.inference_mode():
        torch.testing.assert_close(narrow.eval()(other), fresh.eval()(other))
    narrow.restore({name: tensor * 0 for name, tensor in narrow.state().items()})
    # the unseen ones too, which are no parameters; the backbone's own stay
    assert not narrow.state()["bert.embeddings.word_embeddings.weight"].any()
    assert narrow.pretrained["bert.embeddings.word_embeddings.weight"].any()
