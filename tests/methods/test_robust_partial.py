"""Chosen blocks, smoothness penalties and the way back, by hand."""

import pytest
import tiny
import torch

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.methods import dry_run, regularizers
from peftbench.methods.base import build_method, task_loss
from peftbench.models.adapted_model import AdaptedModel

BATCH = tiny.batch(tiny.tokens(), "bert")


def method(*words: str):
    return build_method(tiny.one_run("method=robust_partial", "method.part=0.5", *words).method)


def prepared(*words: str, seed: int = 0) -> AdaptedModel:
    made = AdaptedModel(tiny.backbone("bert"), classes=2, seed=seed)
    torch.manual_seed(0)
    chosen = method(*words)
    chosen.insert(made)
    chosen.on_train_begin(made, iter(lambda: dict(BATCH), None))
    return made.eval()


def blocks(made: AdaptedModel) -> set[int | None]:
    return {made.block_of(n) for n in made.trained() if not made.in_head(n)}


@pytest.mark.parametrize("choose", ["rgn", "fisher"])
def test_chooses_the_block_with_the_greatest_score(choose):
    made = prepared(f"method.choose={choose}", "method.batches=2")
    full = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0).eval()
    build_method(tiny.one_run("method=full").method).insert(full)
    task_loss(full(BATCH), BATCH["labels"]).backward()
    scores = {}
    for number, block in enumerate(full.blocks):
        p = torch.cat([p.flatten() for p in block.parameters()])
        g = torch.cat([p.grad.flatten() for p in block.parameters()])
        p = p.detach()
        scores[number] = float(g.norm() / p.norm() if choose == "rgn" else g.square().mean())
    assert blocks(made) == {max(scores, key=scores.get), None}  # None: the pooler
    frozen = [n for n, p in made.module.named_parameters() if not p.requires_grad]
    assert all(made.backbone.owns(made.module.get_parameter(n)) for n in frozen)


def test_manual_blocks_and_a_state_of_other_blocks():
    first = prepared("method.choose=manual", "method.which=[0]")
    assert blocks(first) == {0, None}
    second = prepared("method.choose=manual", "method.which=[1]", seed=1)
    with torch.no_grad():
        for p in second.trained().values():
            p.add_(0.1)
    second.restore(first.state())
    assert blocks(second) == {0, None}
    assert torch.equal(second(BATCH), first(BATCH))


def test_lisa_draws_other_blocks_and_repeats_them():
    words = ("method.choose=lisa", "method.interval=2")
    made, again = prepared(*words), prepared(*words)
    seen = []
    for step in range(40):
        method(*words).on_step_end(made, step, 40)
        seen.append(blocks(made))
        assert {-1, None} < seen[-1]
        assert len(seen[-1]) == 3
    assert seen[0::2] == seen[1::2]
    assert {0} < set().union(*seen)
    assert any(a != b for a, b in zip(seen[0::2], seen[2::2], strict=False))
    method(*words).on_step_end(again, 33, 40)
    assert blocks(again) == seen[33]
    assert made.state().keys() == again.state().keys()


def test_lisa_trains_the_drawn_blocks_alone():
    words = ("method.choose=lisa", "method.interval=100", "method.penalty=none")
    made = prepared(*words)
    before = {n: p.detach().clone() for n, p in made.module.named_parameters()}
    tiny.fit(made, method(*words), BATCH, steps=3)
    changed = {
        made.block_of(n) for n, p in made.module.named_parameters() if not torch.equal(p, before[n])
    }
    assert len(changed) == 3
    assert {-1, None} < changed


def test_divergence_is_the_symmetric_kl_of_torch():
    from torch.distributions import Categorical, kl_divergence

    a, b = torch.randn(6, 3), torch.randn(6, 3)
    p, q = Categorical(logits=a), Categorical(logits=b)
    expected = (kl_divergence(p, q) + kl_divergence(q, p)).mean()
    torch.testing.assert_close(regularizers.divergence(a, b), expected)
    values = regularizers.divergence(a[:, :1], b[:, :1])
    torch.testing.assert_close(values, (a[:, 0] - b[:, 0]).square().mean())


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("name", ["r3f", "smart"])
def test_perturbations_are_as_large_as_asked(family, name):
    made = AdaptedModel(tiny.backbone(family), classes=2, seed=0).eval()
    batch = tiny.batch(tiny.tokens(), family)
    logits = made(batch)
    penalty = regularizers.PENALTIES[name]
    torch.manual_seed(0)
    assert penalty(made, batch, logits, 0.0).item() == pytest.approx(0, abs=1e-10)
    small = penalty(made, batch, logits, 1e-3).item()
    torch.manual_seed(0)
    penalty(made, batch, logits, 0.0)
    large = penalty(made, batch, logits, 1e-2).item()
    assert 0 < small < large
    assert large / small == pytest.approx(100, rel=0.9)  # quadratic in the size


def test_smart_finds_a_worse_direction_than_chance():
    made = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0).eval()
    logits = made(BATCH)
    torch.manual_seed(0)
    worst = regularizers.smart(made, BATCH, logits, 1e-2).item()
    chance = [regularizers.r3f(made, BATCH, logits, 1e-2).item() for _ in range(10)]
    assert worst > 3 * max(chance)


@pytest.mark.parametrize("base_method", ["full", "lora"])
def test_penalties_work_on_any_method(base_method):
    words = (f"method.base_method={base_method}", "method.choose=all", "method.penalty=rdrop")
    made = prepared(*words).train()
    torch.manual_seed(0)
    loss = method(*words, "method.strength=0.7").compute_loss(made, BATCH)
    torch.manual_seed(0)
    a, b = made(BATCH), made(BATCH)
    expected = task_loss(a, BATCH["labels"]) + 0.7 * regularizers.divergence(a, b) / 2
    torch.testing.assert_close(loss, expected)
    assert regularizers.divergence(a, b).item() > 0  # dropout differs


def test_wise_goes_the_whole_way_back():
    for part, same in ((1.0, True), (0.4, False)):
        words = ("method.choose=all", "method.penalty=none", f"method.wise={part}")
        made = prepared(*words)
        tiny.fit(made, method(*words), BATCH, steps=3)
        pretrained = made.pretrained
        inner = {n: t for n, t in made.state().items() if not made.in_head(n)}
        assert all(torch.equal(t, pretrained[n]) for n, t in inner.items()) == same
        heads = [n for n in made.state() if made.in_head(n)]
        fresh = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0).state()
        assert not any(torch.equal(made.state()[n], fresh[n]) for n in heads)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method.choose=manual"], "manual lists blocks"),
        (["method.which=[1]"], "manual lists blocks"),
        (["method.penalty=hard"], "penalty must be one of none, rdrop, r3f, smart"),
        (["method.wise=2"], "wise must be a number from 0 to 1"),
    ],
)
def test_bad_values_are_refused_before_anything_starts(words, message):
    with pytest.raises(ConfigError, match=message):
        dry_run.validate_run(plan("model=tiny", "method=robust_partial", *words).runs[0])


def test_blocks_that_are_not_there_are_refused():
    made = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0)
    words = ("method=robust_partial", "method.choose=manual", "method.which=[2]")
    with pytest.raises(ValueError, match="tiny has 2 blocks"):
        build_method(tiny.one_run(*words).method).insert(made)
