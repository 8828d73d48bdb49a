"""Texts that a language model writes, token by token, and beginnings that are computed once."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from peftbench.data import batching
from peftbench.data.tokenization import TokenizedSplit
from peftbench.data.tokenizer import load_tokenizer
from peftbench.methods.base import Method, build_method
from peftbench.models import decoding, pretrained
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.training.precision import build_accelerator
from peftbench.training.predictor import Predictor

CAUSAL = ["gpt2", "llama", "qwen2"]
CPU = torch.device("cpu")


def writer(family: str) -> AdaptedModel:
    model = tiny.one_run(f"model.family={family}", tiny.WIDE).model
    backbone = Backbone(model, loaded=pretrained.skeleton(model, language=True), verbalizer_ids=[])
    return AdaptedModel(backbone, 0, seed=0).eval()


def texts(lengths: list[int], seed: int = 0, begun: int = 0) -> TokenizedSplit:
    """Random tokens, the first ones alike."""
    generator = np.random.default_rng(seed)
    first = generator.integers(4, 264, begun)
    ids = [np.r_[first, generator.integers(4, 264, length)] for length in lengths]
    sizes = [len(one) for one in ids]
    return TokenizedSplit(
        ids=np.concatenate(ids).astype(np.int32),
        types=np.zeros(0, np.uint8),
        ends=np.cumsum(sizes).astype(np.int64),
        label=np.arange(len(lengths)) % 2,
        truncated=0,
        answer=np.array(sizes, np.int32) - 1,
    )


def predictor(model: AdaptedModel, method: Method, **more: object) -> Predictor:
    accelerator = build_accelerator(CPU, "fp32", False)
    return Predictor(0, "causal", CPU, method, model, accelerator, **more)


@pytest.mark.parametrize("family", CAUSAL)
def test_equals_generate_of_transformers_token_for_token(family):
    model = writer(family)
    config = tiny.one_run(f"model.family={family}", tiny.WIDE).model
    oracle = pretrained.skeleton(config, language=True).eval()
    tokens = texts([5, 17, 9, 30])
    starts = tokens.ends - tokens.lengths
    ids = [
        torch.from_numpy(tokens.ids[a:b].astype(np.int64))
        for a, b in zip(starts, tokens.ends, strict=True)
    ]
    wanted = [
        oracle.generate(
            one[None], max_new_tokens=20, do_sample=False, pad_token_id=0, use_cache=True
        )[0, len(one) :].tolist()
        for one in ids
    ]
    end = wanted[1][7]  # a token that one of them writes ends a text
    batch = batching.collate(tokens, np.arange(4), 0, "causal")
    with torch.inference_mode():
        found = decoding.greedy(model, batch, decoding.Decoding(20, end)).tolist()
    for ours, theirs in zip(found, wanted, strict=True):
        until = theirs.index(end) + 1 if end in theirs else 20
        assert ours == theirs[:until] + [decoding.AFTER] * (20 - until)
    assert decoding.AFTER in found[1]
    assert len({tuple(one) for one in found}) == 4, "they differ, as random texts do"


def test_texts_end_at_a_stop_as_those_of_transformers_do():
    run = tiny.one_run("model.family=llama", tiny.WIDE)
    model, tokenizer = writer("llama"), load_tokenizer(run.model)
    oracle = pretrained.skeleton(run.model, language=True).eval()
    tokens, most = texts([5, 17, 9, 30]), 20
    starts = tokens.ends - tokens.lengths

    def generated(**more) -> list[list[int]]:
        found = []
        for a, b in zip(starts, tokens.ends, strict=True):
            one = torch.from_numpy(tokens.ids[a:b].astype(np.int64))[None]
            said = oracle.generate(
                one, max_new_tokens=most, do_sample=False, pad_token_id=0, eos_token_id=-5, **more
            )
            found.append(said[0, b - a :].tolist())
        return found

    whole = tokenizer.decode(generated()[1], skip_special_tokens=True)
    stop = next(
        part for n in range(6, 16) if (part := whole[n : n + 3]).isascii() and part.isprintable()
    )
    wanted = generated(stop_strings=[stop], tokenizer=tokenizer)
    task = replace(run.task, kind="generation", max_new_tokens=most, stop=stop)
    how = decoding.of_run(replace(run, task=task), tokenizer)
    batch = batching.collate(tokens, np.arange(4), 0, "causal")
    with torch.inference_mode():
        written = decoding.greedy(model, batch, replace(how, end=-5)).numpy()
    assert [[token for token in row if token != decoding.AFTER] for row in written] == wanted
    assert len(wanted[1]) < most
    assert decoding.texts_of(written, tokenizer, stop)[1] == whole.partition(stop)[0].strip()


def test_a_stop_in_front_ends_nothing():
    run = tiny.one_run("model.family=llama")
    tokenizer = load_tokenizer(run.model)
    task = replace(run.task, kind="generation", stop="\n\n")
    how = decoding.of_run(replace(run, task=task), tokenizer)
    for text, stopped in (("\n\nWho?", False), ("\n\nWho?\n\n", True), ("Who?\nMe\n", False)):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert how.stopped(ids) == stopped, text
    ids = np.array([[5, 6, decoding.AFTER]])
    plain = decoding.texts_of(ids, tokenizer)[0]
    assert decoding.texts_of(ids, tokenizer, plain[-1])[0] == plain.partition(plain[-1])[0].rstrip()


@pytest.mark.parametrize("family", CAUSAL)
def test_texts_that_have_ended_are_not_passed_on(family, monkeypatch):
    model = writer(family)
    head, hidden = model.module.get_output_embeddings(), model.hidden

    def ending(states):  # every fifth token ends a text
        token = head(states).argmax(-1)
        return torch.nn.functional.one_hot(torch.where(token % 5 == 0, 1, token), 512)

    monkeypatch.setattr(model.module, "get_output_embeddings", lambda: ending)
    tokens = texts([5, 17, 9, 30, 12, 7, 22, 3])
    alone = np.concatenate([written(model, tokens, [row], end=1) for row in range(8)])
    passed: list[int] = []
    monkeypatch.setattr(
        model, "hidden", lambda b, past: passed.append(len(b["input_ids"])) or hidden(b, past)
    )
    assert np.array_equal(written(model, tokens, range(8), end=1), alone)
    lengths = (alone != decoding.AFTER).sum(axis=1)
    assert len({*lengths}) > 2
    assert len(passed) == lengths.max()
    for step, rows in enumerate(passed):
        assert (
            (lengths > step).sum() <= rows <= max(8 if not step else 0, 2 * (lengths > step).sum())
        )


def written(model: AdaptedModel, tokens: TokenizedSplit, rows, end: int) -> np.ndarray:
    batch = batching.collate(tokens, np.array(rows), 0, "causal")
    with torch.inference_mode():
        return decoding.greedy(model, batch, decoding.Decoding(40, end)).numpy()


@pytest.mark.parametrize("family", CAUSAL)
def test_writing_after_a_shared_beginning_is_the_same(family):
    model = writer(family)
    tokens = replace(texts([6, 3, 11, 8], begun=40), wanted=np.zeros(0, np.int32))
    how = decoding.Decoding(12, end=-5)
    batch = batching.collate(tokens, np.arange(4), 0, "causal")
    with torch.inference_mode():
        whole = decoding.greedy(model, batch, how).numpy()
    ((rows, count),) = batching.shared_beginnings(tokens, np.arange(4))
    assert (rows.tolist(), count) == ([0, 1, 2, 3], 40)
    view = predictor(model, Method(), writes=how)
    split = replace(tokens, wanted=np.zeros(4, np.int32))
    assert np.array_equal(view.predict(split, np.arange(4))["written"], whole)


def test_beginnings_are_grouped():
    one, other = texts([3, 9], seed=1, begun=30), texts([20, 8, 5], seed=2, begun=18)
    ids = np.concatenate([one.ids, other.ids, one.ids[:20]])
    ends = np.r_[one.ends, one.ends[-1] + other.ends, len(ids)]
    tokens = replace(one, ids=ids, ends=ends, label=np.zeros(6, np.int64))
    found = batching.shared_beginnings(tokens, np.array([0, 1, 2, 3, 4]))
    assert [(rows.tolist(), count) for rows, count in found] == [([0, 1], 30), ([2, 3, 4], 18)]
    found = batching.shared_beginnings(tokens, np.array([5, 1, 3]))
    assert [(rows.tolist(), count) for rows, count in found] == [([5, 1], 19), ([3], 0)]


@pytest.mark.parametrize("name", tiny.METHODS)
@pytest.mark.parametrize("family", ["llama"])
def test_a_shared_beginning_changes_no_score_of_any_method(family, name):
    run = tiny.one_run(f"method={name}", f"model.family={family}", "model=tiny", tiny.WIDE)
    method = build_method(run.method)
    model = AdaptedModel(tiny.backbone(family), 2, seed=0)
    torch.manual_seed(0)
    try:
        method.insert(model)
    except ValueError:
        pytest.skip("not for this family")
    with torch.no_grad():
        for parameter in model.trained().values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.eval()
    tokens = texts([6, 3, 11, 8, 5], begun=40)
    view = predictor(model, method)
    seen: list[int] = []
    model.module.register_forward_pre_hook(
        lambda module, given, named: seen.append(named["input_ids"].shape[1]), with_kwargs=True
    )
    torch.manual_seed(1)
    shared = view.predict(tokens, np.arange(5))["scores"]
    assert (max(seen) <= 11) == method.token_wise, "what is left of the texts"
    torch.manual_seed(1)
    whole = next(view.outputs(tokens, np.arange(5), lambda b: _stacked(method, model, b)))
    np.testing.assert_allclose(shared, whole["scores"], rtol=0, atol=1e-4)


def _stacked(method: Method, model: AdaptedModel, batch: batching.Batch):
    return {name: tensor[None] for name, tensor in method.predict(model, batch).items()}
