"""LoRA is what the peft library computes: forward, gradients and steps from the same weights.

In fp32 without dropout; the two differ by the order of sums alone, so 1e-6 on logits and gradients
and 1e-5 after five steps, whose second moments divide by small numbers.
"""

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer

from peftbench.core.run import Run
from peftbench.methods.base import Method, build_method, task_loss
from peftbench.models import pretrained
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.prepare_for_training import prepare_for_training
from peftbench.training import session

# peft 0.21.2 asks transformers 5.23 a question by its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

RANK, ALPHA = 4, 12


@pytest.fixture(params=["bert", "roberta"])
def family(request):
    return request.param


@pytest.fixture
def ours(family):
    words = (f"method.rank={RANK}", f"method.alpha={ALPHA}", "method.dropout=0")
    model = AdaptedModel(tiny.backbone(family), classes=2, seed=0)
    torch.manual_seed(0)
    build_method(tiny.one_run("method=lora", *words).method).insert(model)
    prepare_for_training(model, autocast=None, token_ids=torch.arange(264))
    with torch.no_grad():
        for name, p in model.trained().items():
            if name.endswith(".up.weight"):  # 0 at the start, where A would get no gradient
                p.normal_(std=0.1)
    return model.eval()


@pytest.fixture
def theirs(family, ours):
    model = pretrained.skeleton(tiny.one_run(f"model.family={family}", tiny.WIDE).model)
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=0.0,
        target_modules=["query", "value"],
        modules_to_save=["classifier"],
    )
    peft = get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, p in pairs(ours, peft):
            p.copy_(ours.trained()[name])
    return peft


def pairs(ours, peft):
    """Our names of trained parameters, with the library's parameters."""
    found = {}
    for name, p in peft.named_parameters():
        if p.requires_grad:
            name = name.removeprefix("base_model.model.")
            name = name.replace(".lora_A.default.weight", ".down.weight")
            name = name.replace(".lora_B.default.weight", ".up.weight")
            found[name.replace(".modules_to_save.default", "")] = p
    assert found.keys() == ours.trained().keys()
    return found.items()


def logits_of(peft, batch):
    return peft(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def test_same_logits_and_gradients(family, ours, theirs):
    batch = tiny.batch(tiny.tokens(), family)
    torch.testing.assert_close(ours(batch), logits_of(theirs, batch), rtol=0, atol=1e-6)
    task_loss(ours(batch), batch["labels"]).backward()
    task_loss(logits_of(theirs, batch), batch["labels"]).backward()
    for name, p in pairs(ours, theirs):
        assert p.grad.any(), name
        torch.testing.assert_close(ours.trained()[name].grad, p.grad, rtol=1e-5, atol=1e-6)


def test_same_steps(family, ours, theirs):
    batch = tiny.batch(tiny.tokens(), family)
    before = [p.detach().clone() for p in ours.trained().values()]
    optimizers = [
        torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        for model in (ours, theirs)
    ]
    for _ in range(5):
        task_loss(ours(batch), batch["labels"]).backward()
        task_loss(logits_of(theirs, batch), batch["labels"]).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    after = ours.trained()
    assert not any(map(torch.equal, before, after.values()))
    for name, p in pairs(ours, theirs):
        torch.testing.assert_close(after[name], p, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours(batch), logits_of(theirs, batch), rtol=0, atol=1e-5)


def test_starts_as_the_library_starts():
    """A is drawn from the same distribution, a linear layer's own; B is 0."""
    model = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0)
    torch.manual_seed(0)
    build_method(tiny.one_run("method=lora", "method.rank=32").method).insert(model)
    for name, p in model.trained().items():
        if name.endswith(".up.weight"):
            assert not p.any()
        elif name.endswith(".down.weight"):
            bound = 32**-0.5
            assert p.abs().max().item() == pytest.approx(bound, rel=0.01)
            assert p.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def lora_plus(*words: str) -> tuple[AdaptedModel, Method]:
    method = build_method(tiny.one_run(*words, tiny.WIDE).method)
    model = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0)
    torch.manual_seed(0)
    method.insert(model)
    return model, method


def test_lora_plus_has_the_groups_of_the_library():
    """B, and nothing else, at 16 times the rate; without the embeddings that peft treats apart."""
    model, method = lora_plus("method=lora", "method.loraplus_lr_ratio=16")
    groups = session.parameter_groups(model.trained(), tiny.recipe(), method.lr_multipliers(model))
    factor = {id(p): group["factor"] for group in groups for p in group["params"]}
    ours = {name: factor[id(p)] for name, p in model.trained().items()}
    library = get_peft_model(
        pretrained.skeleton(tiny.one_run("model.family=bert").model),
        LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"]),
    )
    made = create_loraplus_optimizer(library, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16)
    rate = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
    theirs = {n: rate[id(p)] / 1e-3 for n, p in library.named_parameters() if p.requires_grad}
    for mine, other in ((".down.weight", "lora_A"), (".up.weight", "lora_B")):
        own = {f for n, f in ours.items() if n.endswith(mine)}
        assert own == {f for n, f in theirs.items() if other in n}
    assert {f for n, f in ours.items() if n.endswith(".up.weight")} == {16.0}
    assert {f for n, f in ours.items() if not n.endswith(".up.weight")} == {1.0}


def test_lora_plus_moves_b_faster():
    """Equation 5 of LoRA+: with Adam's first step, each B moves by 16 eta and each A by eta."""
    model, method = lora_plus("method=lora", "method.loraplus_lr_ratio=16", "method.dropout=0")
    with torch.no_grad():
        for name, p in model.trained().items():
            if name.endswith(".up.weight"):  # 0 at the start, where A would get no gradient
                p.normal_(std=0.1)
    before = {n: p.detach().clone() for n, p in model.trained().items()}
    batch = tiny.batch(tiny.tokens(), "bert")
    tiny.fit(model, method, batch, steps=1, lr=1e-4, max_grad_norm=None)
    for name, p in model.trained().items():
        moved = float((p - before[name]).detach().abs().max())
        if name.endswith((".down.weight", ".up.weight")):
            rate = 1.6e-3 if name.endswith(".up.weight") else 1e-4
            assert moved == pytest.approx(rate, rel=0.01), name


@pytest.mark.parametrize(
    "words",
    [
        ("method=sparse_adapter", "method.base_method=lora", "method.score=random"),
        ("method=bayes_hybrid", "method.base_method=lora", "method.matrices=[up]"),
    ],
    ids=["masked", "posterior"],
)
def test_lora_plus_reaches_b_inside_wrapper_methods(words):
    model, method = lora_plus(*words, "method.base_method.loraplus_lr_ratio=4")
    assert set(method.lr_multipliers(model).values()) == {4}
    fast = method.lr_multipliers(model)
    trained = model.trained()
    assert fast.keys() == {n for n in trained if ".up." in n}
    assert len({n.partition(".up.")[0] for n in fast}) == 4  # query and value of two blocks


def test_one_rate_is_no_part_of_the_key():
    plain = tiny.one_run("method=lora")
    given = tiny.one_run("method=lora", "method.loraplus_lr_ratio=16")
    assert "loraplus_lr_ratio" not in plain.method.to_json()
    assert plain.key == tiny.one_run("method=lora", "method.loraplus_lr_ratio=null").key
    assert plain.key != given.key
    assert Run.from_json(given.to_json()).key == given.key
