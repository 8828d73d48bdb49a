"""model.dtype=bf16: what is stored in 16 bits, what trains in 32, and that it computes the same."""

from functools import cache

import pytest
import short_runs
import tiny
import torch

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.methods import dry_run
from peftbench.methods.base import build_method
from peftbench.models import pretrained
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.models.prepare_for_training import prepare_for_training
from peftbench.training import trainer
from peftbench.training.memory_need import memory_need

BF16 = "model.dtype=bf16"


@cache
def stored(family):
    return Backbone(tiny.one_run(f"model.family={family}", tiny.WIDE, BF16).model)


def encoder_of(run, backbone):
    model = AdaptedModel(backbone, classes=2, seed=0)
    torch.manual_seed(0)
    method = build_method(run.method)
    method.insert(model)
    return model, method


def pairs():
    usual = tiny.one_run()
    methods = [(method,) for method in tiny.METHODS] + [("lora", "method.use_dora=true")]
    yield from ((method, usual.model.family) for method in methods)
    yield from (((usual.method.name,), family) for family in tiny.FAMILIES)


@pytest.mark.parametrize(
    ("method", "family"),
    dict.fromkeys(pairs()),
    ids=lambda given: given if isinstance(given, str) else given[-1],
)
def test_what_trains_is_fp32_and_the_logits_are_those_of_rounded_weights(method, family):
    words = (f"method={method[0]}", *method[1:], f"model.family={family}")
    run = tiny.one_run(*words, tiny.WIDE, BF16)
    try:
        dry_run.validate_run(run)
    except ConfigError:
        pytest.skip("refused on this family")
    low, wide = stored(family), Backbone(run.model)
    wide.module.float()
    matrices = {
        name: p.dtype
        for name, p in low.module.named_parameters()
        if p.ndim > 1 and not any(word in name for word in ("position", "wpe", "rel", "token_type"))
    }
    assert set(matrices.values()) == {torch.bfloat16}
    model, made = encoder_of(run, low)
    batch = tiny.batch(tiny.tokens(), family)
    made.on_train_begin(model, iter(lambda: dict(batch), None))
    assert {p.dtype for p in model.trained().values()} == {torch.float32}
    other, again = encoder_of(run, wide)
    again.on_train_begin(other, iter(lambda: dict(batch), None))
    with torch.inference_mode():
        found, wanted = model.eval()(batch), other.eval()(batch)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    before = {n: p.detach().clone() for n, p in low.module.named_parameters()}
    prepare_for_training(model, torch.bfloat16, batch["input_ids"].unique())
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = made.compute_loss(model, batch)
    loss.backward()
    torch.optim.SGD(model.trained().values(), lr=0.1).step()
    made.on_train_end(model)
    assert all(torch.equal(p, before[n]) for n, p in low.module.named_parameters())
    state = model.state()
    assert {t.dtype for n, t in state.items() if n in model.trained()} == {torch.float32}
    fresh, _ = encoder_of(run, low)
    fresh.restore(state)
    with torch.inference_mode():
        torch.testing.assert_close(fresh.eval()(batch), model.eval()(batch), rtol=1e-5, atol=1e-5)


def test_it_is_in_the_key_where_it_is_set():
    plain, null, low = (tiny.one_run(*words) for words in ((), ("model.dtype=null",), (BF16,)))
    assert plain.key == null.key != low.key
    assert "dtype" not in plain.model.to_json()
    assert low.model.to_json()["dtype"] == "bf16"
    with pytest.raises(ConfigError, match=r"model\.dtype must be one of bf16"):
        plan("model=tiny", "model.dtype=fp16")
    auto = ("train.precision=auto", "model=minilm")
    assert len({run.key for run in plan(*auto, "model.dtype=null,bf16").runs}) == 2


#: TinyLlama's (Zhang et al. 2024, arXiv 2401.02385): 1.1 B parameters.
LLAMA = (
    *("model=tiny", "model.family=llama", BF16, "method=lora"),
    *("train.gradient_checkpointing=true", "train.batch_size=4"),
)
SHAPE = {
    "hidden_size": 2048,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "intermediate_size": 5632,
    "vocab_size": 32000,
}


def shaped(**changes):
    values = ",".join(f"{name}:{value}" for name, value in (SHAPE | changes).items())
    return f"model.shape={{{values}}}"


def test_a_billion_parameters_are_planned_and_their_memory_is_known():
    run = tiny.one_run(*LLAMA, shaped())
    need = memory_need(run, pretrained.skeleton_config(run.model), low_precision=True)
    lora, norms, head = need.trained - 2 * 2048, (2 * 22 + 1) * 2048, 2 * 2048
    frozen = need.parameters - need.trained
    assert frozen == 1_100_048_384 - 32_000 * 2048, (
        "as published, without the language model's head"
    )
    copies = 2 * (lora + head)
    shared = 2 * (frozen - norms + head) + 4 * norms
    assert need.weights == shared + 4 * need.trained + copies
    assert need.smallest_gpu() == 8
    usual = [word for word in LLAMA if word not in (BF16, "train.gradient_checkpointing=true")]
    wide = tiny.one_run(*usual, shaped())
    more = memory_need(wide, pretrained.skeleton_config(wide.model), low_precision=True)
    assert more.weights > 2.9 * need.weights
    assert more.total > 3 * need.total


def test_two_blocks_of_that_shape_train_a_step(tmp_path):
    narrow = shaped(hidden_size=128, intermediate_size=352, num_hidden_layers=2, vocab_size=264)
    words = (*LLAMA, narrow, "budget.steps=1", "train.precision=bf16")
    run = short_runs.one(tiny.own_task(tmp_path), *words)
    record = trainer.execute(run, short_runs.CPU).record
    assert record.work["steps"] == 1
    assert record.curve[-1]["loss"] > 0
    backbone = Backbone(run.model)
    count = sum(p.numel() for p in backbone.module.parameters())
    small = 2 * 2 * 128 + 128
    assert sum(p.nbytes for p in backbone.module.parameters()) == 2 * (count - small) + 4 * small
