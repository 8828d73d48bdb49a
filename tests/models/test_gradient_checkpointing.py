"""Blocks that compute their activations again: what is kept, and what is counted."""

import pytest
import short_runs
import tiny
import torch

from peftbench.config.sweep import plan
from peftbench.methods.base import build_method
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.gradient_checkpointing import metered
from peftbench.models.prepare_for_training import prepare_for_training
from peftbench.runner import packs
from peftbench.training import trainer

TASK = ("task=synthetic_paraphrase",)


def ready(family, recompute, method="lora"):
    model = AdaptedModel(tiny.backbone(family), classes=2, seed=0)
    torch.manual_seed(0)
    build_method(tiny.one_run(f"method={method}").method).insert(model)
    prepare_for_training(model, None, torch.arange(264), recompute)
    return model


def passed(model, family):
    """A forward pass: its logits, and the bytes that autograd keeps outside of blocks."""
    kept = 0

    def keep(tensor):
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(tiny.batch(tiny.tokens(), family))
    return logits, kept


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_block_runs_twice_in_training_and_keeps_its_input(family):
    model = ready(family, True)
    runs = []
    for part in model.each("attn_norm"):
        part.register_forward_hook(lambda *_: runs.append(torch.is_grad_enabled()))
    depth = model.module.config.num_hidden_layers
    logits, kept = passed(model.train(), family)
    assert len(runs) == depth
    whole = passed(ready(family, False).train(), family)[1]
    assert kept < whole / 2
    logits.sum().backward()
    assert len(runs) == 2 * depth
    model.eval()
    model(tiny.batch(tiny.tokens(), family)).sum().backward()
    assert len(runs) == 3 * depth, "once where nothing trains"


def test_each_pass_has_its_own_prefix():
    """Two passes before one backward, with a prefix that is drawn at random for each."""
    found = []
    for recompute in (False, True):
        model = ready("bert", recompute, "prefix").train()
        source = model.module.prefix
        source.register_forward_hook(lambda _, given, made: made * torch.rand(()))
        torch.manual_seed(1)
        batch = tiny.batch(tiny.tokens(), "bert")
        first, second = model(batch), model(batch)
        (first[:, 0] * second[:, 1]).sum().backward()
        found.append({n: p.grad for n, p in model.trained().items()})
    kept, again = found
    assert all(torch.equal(again[name], gradient) for name, gradient in kept.items())


def test_what_is_computed_again_is_metered():
    model = ready("bert", True).train()
    count = 0
    for part in model.each("query"):

        def add(*_):
            nonlocal count
            count += 1

        part.register_forward_hook(add)
    with metered(model, lambda: count) as grown:
        passed(model, "bert")[0].sum().backward()
    assert grown == [1, 1]
    assert count == 4
    passed(model, "bert")[0].sum().backward()
    assert grown == [1, 1]


def test_a_run_has_the_same_record_and_key(tmp_path):
    task, words = tiny.own_task(tmp_path), ("method=adapter", "train.precision=bf16")
    plain = short_runs.one(task, *words)
    checkpointed = short_runs.one(task, *words, "train.gradient_checkpointing=true")
    assert checkpointed.key == plain.key
    assert "gradient_checkpointing" not in plain.train.to_json()
    assert checkpointed.train.to_json()["gradient_checkpointing"] is True
    first, second = (trainer.execute(run, short_runs.CPU).record for run in (plain, checkpointed))
    assert first.metrics == second.metrics
    assert short_runs.losses(first) == short_runs.losses(second)
    assert first.flops == second.flops > 0, "model FLOPs: what is repeated is not counted"


def test_such_runs_are_alone():
    words = (*TASK, "model=tiny", "seed=0,1", "train.gradient_checkpointing=true")
    assert [packs.together(run) for run in plan(*words).runs] == [None, None]
    both = plan(*TASK, "model=tiny", "train.gradient_checkpointing=true,false").runs
    assert len({run.key for run in both}) == 1
