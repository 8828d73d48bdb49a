"""Chosen blocks, smoothness penalties and the way back, by hand."""

from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import tiny
import torch
import torch.nn.functional as F
from checkpoints import checkpoint, words_of
from short_runs import CPU, one

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.data import batching, loading, tokenization
from peftbench.data.batching import NO_TOKEN
from peftbench.data.tokenizer import load_tokenizer
from peftbench.methods import dry_run, regularizers
from peftbench.methods.base import build_method, task_loss
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.models.prepare_for_training import prepare_for_training
from peftbench.training.trainer import execute

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


@pytest.mark.parametrize("choose", ["rgn", "fisher"])
def test_scores_of_micro_batches_are_those_of_the_batch(choose):
    scores = []
    for micro in (None, 3):
        made = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0)
        chosen = method(f"method.choose={choose}")
        chosen.insert(made)
        made.micro_batch_size = micro
        scores.append(chosen._scores(made, [BATCH, BATCH]))
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)


@pytest.mark.parametrize("choose", ["rgn", "fisher"])
def test_scores_of_a_run_in_fp16_are_those_of_fp32(choose):
    """Gradients of a loss that is not scaled are below the least number of fp16."""

    def small(model, batch):
        return 1e-6 * task_loss(model(batch), batch["labels"])

    made = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0)
    chosen = method(f"method.choose={choose}")
    chosen.insert(made)
    object.__setattr__(chosen.base_method, "compute_loss", small)
    plain = chosen._scores(made, [BATCH])
    with torch.autocast("cpu", torch.float16):
        assert chosen._scores(made, [BATCH]) == plain
    assert min(plain.values()) > 0


def test_only_blocks_chosen_in_fp16_have_new_keys():
    words = ("method=robust_partial", "method.choose=rgn,lisa", "train.precision=fp16,bf16")
    words += ("method.penalty=none",)
    concerned = {
        (run.method.hyperparameters["choose"], run.train.precision): run.loss_revision
        for run in plan(*words, "task=mrpc").runs
    }
    assert concerned == {
        **{("rgn", "fp16"): 2, ("rgn", "bf16"): 1},
        **{("lisa", "fp16"): 1, ("lisa", "bf16"): 1},
    }


def test_only_smart_in_fp16_and_penalties_on_texts_have_new_keys():
    words = ("method=robust_partial", "method.choose=all", "train.precision=fp16,bf16")
    words += ("method.penalty=smart,r3f,none",)
    texts = ("task=socialqa", "model=smollm2_135m")
    for task, expected in (
        (("task=mrpc",), {("smart", "fp16"): 2}),
        (
            texts,
            {("smart", "fp16"): 3, ("smart", "bf16"): 2, ("r3f", "fp16"): 2, ("r3f", "bf16"): 2},
        ),
    ):
        found = {
            (run.method.hyperparameters["penalty"], run.train.precision): run.loss_revision
            for run in plan(*words, *task).runs
        }
        assert {key: revision for key, revision in found.items() if revision > 1} == expected


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


def test_targets_have_no_gradient_and_the_same_value():
    """As mt-dnn's SymKlCriterion: KL with the other side detached, both ways."""
    a, b = (torch.randn(6, 3, requires_grad=True) for _ in range(2))
    p, q = a.log_softmax(-1), b.log_softmax(-1)
    expected = F.kl_div(p, q.exp().detach(), reduction="batchmean")
    expected = expected + F.kl_div(q, p.exp().detach(), reduction="batchmean")
    found = regularizers.divergence(a, b, targets=True)
    torch.testing.assert_close(found, expected)
    slopes, theirs = (torch.autograd.grad(one, (a, b)) for one in (found, expected))
    torch.testing.assert_close(slopes, theirs)
    whole = torch.autograd.grad(regularizers.divergence(a, b), (a, b))
    assert float((whole[0] - slopes[0]).abs().max()) > 1e-3


def test_behind_the_end_of_a_text_nothing_is_compared():
    """The mean of each text's wanted tokens, as in the loss, then of the texts."""
    a, b = torch.randn(2, 4, 5, requires_grad=True), torch.randn(2, 4, 5)
    labels = torch.tensor([[1, NO_TOKEN, NO_TOKEN, NO_TOKEN], [1, 2, 3, 4]])
    for targets in (False, True):
        first = regularizers.divergence(a[0, :1], b[0, :1])
        second = regularizers.divergence(a[1], b[1])
        found = regularizers.divergence(a, b, labels, targets=targets)
        torch.testing.assert_close(found, (first + second) / 2)
        (slopes,) = torch.autograd.grad(found, a)
        assert not slopes[0, 1:].any()
        assert slopes[0, 0].any()


def test_the_direction_of_smart_in_fp16_is_that_of_fp32(monkeypatch):
    """Of a divergence as small as late in training its gradients are below fp16's least number."""
    made = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0).eval()
    build_method(tiny.one_run("method=full").method).insert(made)
    shifts = []
    shifted = regularizers._shifted

    def watched(model, batch, shift):
        shifts.append(shift)
        return shifted(model, batch, shift)

    monkeypatch.setattr(regularizers, "_shifted", watched)
    monkeypatch.setattr(regularizers, "divergence", lambda a, b, *_, **__: 1e-9 * (a - b).sum())
    for half in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.float16, enabled=half):
            regularizers.smart(made, BATCH, made(BATCH), 1.0)
    real = torch.arange(BATCH["input_ids"].shape[1]) < BATCH["lengths"][:, None]
    plain, half = shifts[1][real], shifts[3][real]
    assert half.abs().amax(-1) == pytest.approx(torch.ones(len(half)), abs=1e-3)
    assert float(F.cosine_similarity(plain, half, dim=-1).min()) > 0.99


def test_smart_compares_with_targets():
    made = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0).eval()
    build_method(tiny.one_run("method=full").method).insert(made)
    logits = made(BATCH).detach().requires_grad_()
    torch.manual_seed(0)
    (slope,) = torch.autograd.grad(regularizers.smart(made, BATCH, logits, 0.5), logits)
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regularizers, "divergence", lambda a, b, labels, targets=False: whole(a, b))
        (other,) = torch.autograd.grad(regularizers.smart(made, BATCH, logits, 0.5), logits)
    assert not torch.allclose(slope, other)


whole = regularizers.divergence


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


@pytest.mark.parametrize("base_method", ["full", "lora", "bayes_hybrid"])
def test_rdrop_takes_both_passes_loss_and_divergence(base_method):
    """(CE_1 + CE_2) / 2 and D / 2, whatever else the base method's loss holds."""
    words = (f"method.base_method={base_method}", "method.choose=all", "method.penalty=rdrop")
    made = prepared(*words).train()
    torch.manual_seed(0)
    loss = method(*words, "method.strength=0.7").compute_loss(made, BATCH)
    torch.manual_seed(0)
    a, b = made(BATCH), made(BATCH)
    losses = [task_loss(logits, BATCH["labels"]) for logits in (a, b)]
    assert losses[0] != losses[1]  # dropout differs
    expected = sum(losses) / 2 + 0.7 * regularizers.divergence(a, b) / 2
    inner = method(*words).base_method
    if hasattr(inner, "divergence"):
        expected = expected + inner.kl * inner.divergence(made)
    torch.testing.assert_close(loss, expected)


NO_DROPOUT = "model.shape={hidden_dropout_prob:0.0,attention_probs_dropout_prob:0.0}"


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (("full", NO_DROPOUT), True),
        (("full", "model.family=llama"), True),
        (("full", "model.family=modernbert"), True),
        (("lora", "model.family=llama", "method.base_method.dropout=0"), True),
        (("lora", "model.family=llama"), False),  # dropout of its own
        (("blob", "model.family=llama"), False),  # draws of its own
        (("full",), False),
    ],
    ids=lambda given: "-".join(given)[:24] if isinstance(given, tuple) else "",
)
def test_rdrop_without_dropout_is_refused_before_anything_starts(tmp_path, words, refused):
    base, *more = words
    given = ("method=robust_partial", "method.penalty=rdrop", f"method.base_method={base}", *more)
    run = one(tiny.own_task(tmp_path), *given)
    if not refused:
        dry_run.rehearse(run, None)
        return
    with pytest.raises(ConfigError, match="drops anything, so that both passes are one"):
        dry_run.rehearse(run, None)


def test_wise_survives_early_stopping(tmp_path):
    """It goes back from the best state, and that is what is scored and kept."""
    words = ("method=robust_partial", "method.choose=all", "method.penalty=none", "method.wise=1")
    early = ("checkpoint_selection=best_on_holdout", "checkpoint_selection.patience=1")
    more = ("train.num_evals=8", "budget.steps=16", "train.lr=3e-2")
    run = one(tiny.own_task(tmp_path), *words, *early, *more)
    done = execute(run, replace(CPU, save_weights=True))
    assert len(done.record.curve) < 8 or done.record.selection != done.record.curve[-1]
    made = AdaptedModel(Backbone(run.model), run.task.classes, run.seeds()["head"])
    build_method(run.method).insert(made)
    made.restore(safetensors.torch.load(done.trained))
    inner = {n: t for n, t in made.state().items() if not made.in_head(n)}
    assert inner.keys() == {n for n in made.pretrained if not made.in_head(n)}
    assert all(torch.equal(t, made.pretrained[n]) for n, t in inner.items())
    again = AdaptedModel(Backbone(run.model), run.task.classes, run.seeds()["head"])
    head = {n: t for n, t in made.state().items() if made.in_head(n)}
    again.restore(again.state() | head)
    texts = loading.load_split(run.task, "validation", None)
    tokens = tokenization.encode(texts, load_tokenizer(run.model), run.train.max_length)
    with torch.inference_mode():
        logits = again.eval()(tiny.batch(tokens, "bert"))
    # training predicts in bf16
    np.testing.assert_allclose(done.predictions["scores"], logits, atol=0.02)


@pytest.mark.parametrize("evaluations", [1, 4])
def test_what_is_selected_by_is_the_score_of_what_is_kept(tmp_path, evaluations):
    """Also in a trial, by which a learning rate is chosen."""
    words = ("method=robust_partial", "method.choose=all", "method.penalty=none", "method.wise=1")
    held = ("checkpoint_selection=best_on_holdout", "checkpoint_selection.fraction=0.25")
    more = (f"train.num_evals={evaluations}", "budget.steps=8", "train.lr=3e-2", "size=48")
    run = one(tiny.own_task(tmp_path), *words, *held, *more, "train.precision=fp32")
    done = execute(run, replace(CPU, trial=True, save_weights=True))
    made = AdaptedModel(Backbone(run.model), run.task.classes, run.seeds()["head"])
    made.restore(made.state() | heads_of(made, safetensors.torch.load(done.trained)))
    texts = loading.load_split(run.task, "train", None)
    tokens = tokenization.encode(texts, load_tokenizer(run.model), run.train.max_length)
    _, rows = batching.split_rows(run, tokens, run.checkpoint_selection, run.seeds()["subset"])
    with torch.inference_mode():
        logits = made.eval()(tiny.batch(tokens, "bert"))
    right = logits[rows].argmax(-1).numpy() == tokens.label[rows]
    assert done.record.selection["accuracy"] == pytest.approx(right.mean())
    if evaluations == 1:
        shown = done.predictions["item"]
        assert sorted(shown) == sorted(rows)
        np.testing.assert_allclose(done.predictions["scores"], logits[shown], atol=1e-5)


def heads_of(made, state):
    return {name: tensor for name, tensor in state.items() if made.in_head(name)}


def test_norms_that_a_base_method_wraps_go_back_too():
    words = ("method.base_method=pfeiffer", "method.base_method.train_norms=true")
    words += ("method.choose=all", "method.penalty=none", "method.wise=1")
    made = prepared(*words)
    norms = {n: p for n, p in made.trained().items() if made.pretrained_of(n) is not None}
    assert any(name not in made.pretrained for name in norms)
    with torch.no_grad():
        for parameter in norms.values():
            parameter.add_(1)
    method(*words).on_train_end(made)
    for name, parameter in made.trained().items():
        if name in norms and not made.in_head(name):
            assert torch.equal(parameter, made.pretrained_of(name)), name


def test_words_of_an_earlier_round_go_back_too():
    words = ("method.choose=all", "method.penalty=none", "method.wise=1")
    made = prepared(*words)
    state = {name: tensor.clone() for name, tensor in made.state().items()}
    table = "bert.embeddings.word_embeddings.weight"
    state[table][10:20] += 1
    made.restore(state)
    prepare_for_training(made, None, torch.arange(0, 12))
    assert torch.equal(made.state()[table], state[table])
    method(*words).on_train_end(made)
    assert torch.equal(made.state()[table], made.pretrained[table])


def test_what_blocks_of_deberta_stand_on_is_below_them():
    made = AdaptedModel(tiny.backbone("deberta_v2"), classes=2, seed=0)
    below = [name for name in made.pretrained if made.block_of(name) == -1]
    assert {name.split(".")[2] for name in below if ".encoder." in name} == {
        "rel_embeddings",
        "LayerNorm",
    }
    words = ("model.family=deberta_v2", "method.choose=manual", "method.which=[1]")
    chosen = method(*words, "method.penalty=none")
    chosen.insert(made)
    chosen.on_train_begin(made, iter([]))
    assert blocks(made) - {None} == {1}
    outside = [n for n in made.trained() if made.block_of(n) is None and not made.in_head(n)]
    assert not [name for name in outside if "encoder" in name]


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
        (["method.base_method=lora", "method.wise=0.5"], "of which LoRA trains none"),
        (["method.base_method=adalora", "method.choose=lisa"], "AdaLoRA ranks by the gradients"),
    ],
)
def test_bad_values_are_refused_before_anything_starts(words, message):
    with pytest.raises(ConfigError, match=message):
        dry_run.validate_run(plan("model=tiny", "method=robust_partial", *words).runs[0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["random_mask"], "those of RandomMask in tiny start at 0; choose fisher or manual"),
        (["bitfit"], "those of BitFit in tiny start at 0; choose fisher or manual"),
        (["prefix"], "choose=rgn: Prefix trains nothing that is inside a block of tiny"),
        (["prefix", "method.choose=lisa"], "choose=lisa: Prefix trains nothing that is inside"),
        (["head", "method.choose=fisher"], "choose=fisher: Head trains nothing that is inside"),
    ],
)
def test_bases_without_a_choice_of_blocks_are_refused_before_anything_starts(
    tmp_path, words, message
):
    base, *more = words
    given = ("method=robust_partial", f"method.base_method={base}", "method.penalty=none", *more)
    with pytest.raises(ConfigError, match=message):
        dry_run.rehearse(one(tiny.own_task(tmp_path), *given), None)


@pytest.mark.parametrize(
    "words",
    [("bitfit", "method.choose=fisher"), ("prefix", "method.choose=all"), ("ia3",), ("lora",)],
    ids=lambda words: words[0],
)
def test_bases_with_one_are_rehearsed(tmp_path, words):
    base, *more = words
    given = ("method=robust_partial", f"method.base_method={base}", "method.penalty=none", *more)
    dry_run.rehearse(one(tiny.own_task(tmp_path), *given), None)


def test_biases_of_a_checkpoint_are_not_0(tmp_path):
    """A rehearsal has no weights of it; its random ones do not start at 0 either."""
    words = words_of(checkpoint(tmp_path / "model"))
    more = ("method=robust_partial", "method.base_method=bitfit", "method.penalty=none")
    (run,) = plan(*(word for word in words if not word.startswith("method=")), *more).runs
    dry_run.rehearse(run, None)


def test_blocks_that_are_not_there_are_refused():
    made = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0)
    words = ("method=robust_partial", "method.choose=manual", "method.which=[1]")
    method = replace(build_method(tiny.one_run(*words).method), which=[2])  # plan refuses it
    with pytest.raises(ValueError, match="tiny has 2 blocks"):
        method.insert(made)
