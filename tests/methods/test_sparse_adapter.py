"""Pruning at the start: exact counts, scores by hand, and zeros that stay."""

import math

import pytest
import tiny
import torch

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.methods import dry_run
from peftbench.methods.base import build_method, task_loss
from peftbench.methods.layers import masked as pruning
from peftbench.models import masked_state
from peftbench.models.adapted_model import AdaptedModel

BATCH = tiny.batch(tiny.tokens(), "bert")


def prepared(*words: str, seed: int = 0) -> AdaptedModel:
    made = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0)
    torch.manual_seed(seed)
    method = build_method(tiny.one_run("method=sparse_adapter", *words).method)
    method.insert(made)
    method.on_train_begin(made, iter(lambda: dict(BATCH), None))
    return made.eval()


def masked(made: AdaptedModel) -> dict[str, pruning.MaskedLinear]:
    return {n: m for n, m in made.module.named_modules() if isinstance(m, pruning.MaskedLinear)}


@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("score", ["random", "magnitude", "er", "snip", "grasp"])
@pytest.mark.parametrize("keep", [0.6, 0.1, 1.0])
def test_keeps_exactly_the_asked_part(score, scope, keep):
    made = prepared(f"method.keep={keep}", f"method.score={score}", f"method.scope={scope}")
    parts = masked(made)
    sizes = {n: p.weight.numel() for n, p in parts.items()}
    kept = {n: int(p.mask.sum()) for n, p in parts.items()}
    if scope == "local" and score != "er":
        assert all(kept[n] == sizes[n] - math.ceil(round((1 - keep) * sizes[n], 6)) for n in parts)
    else:
        total = sum(sizes.values())
        assert sum(kept.values()) == total - math.ceil(round((1 - keep) * total, 6))
    assert all(not p.weight[~p.mask].any() for p in parts.values())
    dense = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0)
    build_method(tiny.one_run("method=adapter").method).insert(dense)
    gone = sum(sizes.values()) - sum(kept.values())
    assert made.counts()["trained"] == dense.counts()["trained"] - gone


def test_pruned_weights_stay_zero_under_decay_and_momentum():
    made = prepared("method.keep=0.3")
    method = build_method(tiny.one_run("method=sparse_adapter").method)
    before = {n: p.mask.clone() for n, p in masked(made).items()}
    tiny.fit(made, method, BATCH, steps=5, weight_decay=0.5)
    for name, part in masked(made).items():
        assert torch.equal(part.mask, before[name])
        assert not part.weight[~part.mask].any()
        assert (part.weight[part.mask] != 0).all()


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch's own
@pytest.mark.parametrize("score", ["snip", "grasp", "magnitude"])
def test_scores_are_those_of_the_papers(score):
    """Against torch.func on the same weights: the kept ones have the highest scores."""
    words = (f"method.score={score}", "method.keep=0.25", "method.batches=3")
    made = prepared(*words)
    fresh = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0)
    torch.manual_seed(0)
    build_method(tiny.one_run("method=sparse_adapter", *words).method).insert(fresh)
    fresh.eval()
    fresh.module.set_attn_implementation("eager")  # its second derivative is plain autograd's
    batch = BATCH | {"attention_mask": torch.zeros(()).where(BATCH["attention_mask"], -1e9)}
    weights = {n: p.weight.detach().clone() for n, p in masked(fresh).items()}

    def loss(given: dict) -> torch.Tensor:
        named = {f"module.{n}.weight": w for n, w in given.items()}
        logits = torch.func.functional_call(fresh, named, (batch,))
        return 3 * task_loss(logits, batch["labels"])

    gradient = torch.func.grad(loss)(weights)
    if score == "snip":
        expected = {n: (weights[n] * gradient[n]).abs() for n in weights}
    elif score == "grasp":
        _, product = torch.func.jvp(torch.func.grad(loss), (weights,), (gradient,))
        expected = {n: weights[n] * product[n] for n in weights}
    else:
        expected = {n: w.abs() for n, w in weights.items()}
    kept, gone = [], []
    for name, part in masked(made).items():
        kept.append(expected[name][part.mask])
        gone.append(expected[name][~part.mask])
    worst, best = torch.cat(kept).min().detach(), torch.cat(gone).max().detach()
    spread = torch.cat(kept).max().detach() - worst
    assert (worst - best).item() > -1e-4 * spread.item()


def test_erdos_renyi_densities_follow_the_shapes():
    scores = {"a": torch.rand(100, 10), "b": torch.rand(100, 100), "c": torch.rand(4, 4)}
    masks = pruning.erdos_renyi(scores, 0.1)
    kept = {n: int(m.sum()) for n, m in masks.items()}
    assert sum(kept.values()) == 11_016 - math.ceil(0.9 * 11_016)
    assert kept["c"] == 16  # its density would be 3.6
    densities = [kept["a"] / 1000, kept["b"] / 10_000]
    assert densities[0] / densities[1] == pytest.approx((110 / 1000) / (200 / 10_000), rel=0.01)


def test_large_sparse_has_as_many_weights():
    plain = prepared("method.keep=1.0", "method.base_method.width=8")
    large = prepared("method.widen=4", "method.keep=0.25", "method.base_method.width=8")
    counts = [sum(int(p.mask.sum()) for p in masked(m).values()) for m in (plain, large)]
    assert counts[0] == counts[1] == 4 * 2 * 8 * 32


@pytest.mark.parametrize("base_method", ["parallel", "lora", "combined", "pfeiffer", "prefix"])
def test_any_method_with_matrices_is_pruned(base_method):
    made = prepared(f"method.base_method={base_method}", "method.score=random", "method.keep=0.5")
    total = sum(p.weight.numel() for p in masked(made).values())
    assert sum(int(p.mask.sum()) for p in masked(made).values()) == total // 2


def test_learned_gates_close_under_the_penalty():
    words = ("method.score=learned", "method.keep=0.3", "method.penalty=20")
    made = prepared(*words)
    method = build_method(tiny.one_run("method=sparse_adapter", *words).method)
    gates = [m for m in made.module.modules() if isinstance(m, pruning.GatedLinear)]
    total = sum(g.weight.numel() for g in gates)

    def kept() -> float:
        return sum(g.expected().item() for g in gates) / total

    before = kept()
    assert before > 0.9
    tiny.fit(made, method, BATCH, steps=300, lr=5e-2, max_grad_norm=None)
    assert 0.2 < kept() < 0.45


def test_an_export_holds_the_kept_weights_alone():
    made = prepared("method.keep=0.1", "method.base_method.width=64")
    state = made.state()
    packed = masked_state.packed(state)

    def size(tensors: dict) -> int:
        return sum(t.numel() * t.element_size() for n, t in tensors.items() if ".bottleneck." in n)

    weights = sum(p.weight.numel() for p in masked(made).values())
    kept = sum(int(p.mask.sum()) for p in masked(made).values())
    assert size(state) - size(packed) == 4 * (weights - kept) + weights - weights // 8
    other = prepared("method.keep=0.1", "method.base_method.width=64", seed=1)
    assert not torch.equal(other(BATCH), made(BATCH))
    other.restore(packed)
    assert torch.equal(other(BATCH), made(BATCH))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method.keep=0"], "keep must be a number greater than 0"),
        (["method.keep=1.5"], "keep must be a number from 0 to 1"),
        (["method.base_method=bitfit"], "no matrices to prune"),
        (["method.score=best"], "score must be one of random"),
        (["method.base_method=prefix", "method.widen=2"], "Prefix has no width"),
        (["method.base_method=nothing"], "unknown method"),
    ],
)
def test_bad_values_are_refused_before_anything_starts(words, message):
    with pytest.raises(ConfigError, match=message):
        dry_run.validate_run(plan("model=tiny", "method=sparse_adapter", *words).runs[0])


@pytest.mark.parametrize("score", ["snip", "magnitude", "grasp"])
@pytest.mark.parametrize("base", ["lora", "parallel", "combined"])
def test_a_score_that_is_zero_for_a_matrix_is_refused_before_training(base, score):
    """LoRA's B is 0, so |w|, |w g| and w (H g) are 0 for B, and |w g| for A as g is 0.

    GraSP kept weights of A alone: without B nothing but the head trained.

    Of `combined`, magnitude pruned all of the adapters' second matrices, without a word.
    """
    words = ("model=tiny", "task=synthetic_paraphrase", "method=sparse_adapter")
    (run,) = plan(*words, f"method.base_method={base}", f"method.score={score}").runs
    with pytest.raises(ConfigError, match=f"score={score} is 0 for a matrix of .* starts at 0"):
        dry_run.validate_run(run)


def test_a_method_without_a_host_takes_none():
    with pytest.raises(ConfigError, match=r"method\.base_method"):
        plan("method=lora", "method.base_method=bitfit")


@pytest.mark.parametrize("score", ["snip", "grasp"])
def test_scores_of_micro_batches_are_those_of_the_batch(score):
    words = ("method=sparse_adapter", f"method.score={score}", "method.keep=0.5")
    kept, passes = [], []
    for micro in (None, 3):
        model = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0)
        torch.manual_seed(0)
        method = build_method(tiny.one_run(*words).method)
        method.insert(model)
        model.micro_batch_size = micro
        model.register_forward_pre_hook(lambda _, given: passes.append(len(given[0]["labels"])))
        torch.manual_seed(1)
        batch = tiny.batch(tiny.tokens(), "bert")
        method.on_train_begin(model, iter([batch, batch]))
        kept.append({n: t for n, t in model.state().items() if n.endswith("mask")})
    assert max(passes) == len(batch["labels"]) > 3
    assert 3 in passes
    agree = [(kept[0][name] == kept[1][name]).float().mean() for name in kept[0]]
    assert min(agree) > 0.99


def test_gates_around_dora_are_refused():
    words = ("method=sparse_adapter", "method.base_method=lora", "method.score=learned")
    method = build_method(tiny.one_run(*words, "method.base_method.use_dora=true").method)
    with pytest.raises(ValueError, match="use_dora=false"):
        method.insert(AdaptedModel(tiny.backbone("bert"), classes=2, seed=0))
