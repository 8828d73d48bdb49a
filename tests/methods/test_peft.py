"""Our own IA3, norms, DoRA, rsLoRA and LoRA are the library's, through method=peft.

Both sides run inside the same encoder: the library's modules get our weights.
"""

import pytest
import tiny
import torch

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.methods import peft
from peftbench.methods.base import build_method, task_loss
from peftbench.models.adapted_model import AdaptedModel
from peftbench.training.session import parameter_groups

pytestmark = pytest.mark.filterwarnings("ignore")  # the library's own, of many kinds


def adapted_model(family: str, *words: str) -> AdaptedModel:
    made = AdaptedModel(tiny.backbone(family), classes=2, seed=0)
    torch.manual_seed(0)
    build_method(tiny.one_run(*words).method).insert(made)
    return made.eval()


def agree(ours: AdaptedModel, theirs: AdaptedModel, names: dict[str, str], family: str) -> None:
    """Same logits and gradients once the library's parameters have our values.

    Args:
        names: pieces of the library's names, and what they are called here.
    """
    pairs, mine = {}, ours.trained()
    for name in theirs.trained():
        own = name
        for piece, replacement in names.items():
            own = own.replace(piece, replacement)
        pairs[name] = own
    assert sorted(pairs.values()) == sorted(mine)
    with torch.no_grad():
        for name, own in pairs.items():
            if not ours.in_head(own):
                mine[own].add_(0.1 * torch.randn(mine[own].shape))
            theirs.trained()[name].copy_(mine[own].view_as(theirs.trained()[name]))
    batch = tiny.batch(tiny.tokens(), family)
    torch.testing.assert_close(ours(batch), theirs(batch), rtol=1e-4, atol=1e-5)
    for made in (ours, theirs):
        task_loss(made(batch), batch["labels"]).backward()
    for name, own in pairs.items():
        grad = theirs.trained()[name].grad.view_as(mine[own])
        assert mine[own].grad.any()
        torch.testing.assert_close(mine[own].grad, grad, rtol=1e-3, atol=1e-5)


LORA = {
    ".base_layer": ".linear",
    ".lora_A.default.weight": ".down.weight",
    ".lora_B.default.weight": ".up.weight",
    ".lora_magnitude_vector.default.weight": ".length",
}


@pytest.mark.parametrize("family", ["bert", "modernbert"])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ((), ()),
        (("method.rank_scaling=0.5",), ("method.config.use_rslora=true",)),
        (("method.use_dora=true",), ("method.config.use_dora=true",)),
    ],
    ids=["lora", "rslora", "dora"],
)
def test_lora(family, ours, theirs):
    sizes = ("method.rank=4", "method.alpha=6", "method.dropout=0")
    library = ("method.type=LORA", "method.config.r=4", "method.config.lora_alpha=6")
    made = adapted_model(family, "method=lora", *sizes, *ours)
    agree(made, adapted_model(family, "method=peft", *library, *theirs), LORA, family)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_ia3(family):
    made = adapted_model(family, "method=ia3")
    parts = made.backbone.family_config.roles
    feed = f"method.config.feedforward_modules=['{parts['ffn_out']}']"
    words = ("method=peft", "method.type=IA3", "method.target_modules=[key,value,ffn_out]")
    library = adapted_model(family, *words, feed)
    agree(made, library, {".ia3_l.default": ".scale"}, family)
    by_default = adapted_model(family, "method=peft", "method.type=IA3")  # the places of its paper
    agree(adapted_model(family, "method=ia3"), by_default, {".ia3_l.default": ".scale"}, family)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_norms(family):
    made = adapted_model(family, "method=layernorm")
    library = adapted_model(family, "method=peft", "method.type=LN_TUNING")
    agree(made, library, {".ln_tuning_layers.default": ""}, family)
    last = adapted_model(
        family, "method=peft", "method.type=LN_TUNING", "method.target_modules=[ffn_norm]"
    )
    half = {name for name in library.trained() if ".attention." not in name}
    assert last.trained().keys() == half < library.trained().keys()


def test_a_type_that_rewrites_the_weights_leaves_the_backbone_alone():
    before = tiny.backbone("bert").module.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    words = ("method=peft", "method.type=LORA", "method.config.init_lora_weights=pissa")
    made = adapted_model("bert", *words)
    after = tiny.backbone("bert").module.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    name = "bert.encoder.layer.0.attention.self.query.base_layer.weight"
    own = made.module.get_parameter(name)
    assert not torch.equal(own, before[name.replace("base_layer.", "")])
    assert name in made.state()  # changed, and so part of what is kept
    assert "bert.encoder.layer.0.attention.self.key.weight" not in made.state()


def test_every_offered_type_is_the_librarys():
    assert {"LORA", "VERA", "IA3", "OFT", "LOHA", "LN_TUNING"} <= set(peft.offered())
    assert not {"PREFIX_TUNING", "PROMPT_TUNING", "ADALORA"} & set(peft.offered())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method.type=LORRA"], "type=LORRA is no tuner of the installed peft"),
        (["method.type=PREFIX_TUNING"], "method=prefix"),
        (["method.type=ADALORA"], "moves ranks about"),
        (["method.config.rank=4"], "LORA takes no rank; it takes"),
        (["method.type=ADAPTION_PROMPT"], "is made for LLaMA"),
        (["method.type=ADAMSS", "method.config.use_asa=true"], "use_asa has no effect here"),
        (["method.type=ADAMSS", "method.config.mask_interval=50"], "mask_interval has no effect"),
        (["method.config.inference_mode=true"], "would leave nothing to train"),
        (["method.config.init_lora_weights=eva"], "init_lora_weights=eva needs a decomposition"),
        (["method.config.init_lora_weights=lora_ga"], "init_lora_weights=lora_ga needs gradients"),
        (["method.config.init_lora_weights=corda"], "init_lora_weights=corda needs covariances"),
        (["method.config.init_lora_weights=loftq"], "init_lora_weights=loftq starts from weights"),
        (["method.config.eva_config={rho: 2.0}"], "eva_config has no effect here"),
        (["method.config.use_qalora=true"], "use_qalora has no effect here: it acts on weights"),
        (["method.config.alora_invocation_tokens=[5]"], "is read by the library's own forward"),
        (["method.config.kasa_config={}"], "kasa_config adds terms to the loss"),
        (
            ["method.config.velora_config={init_type: batch_average_once}"],
            "keeps what the first pass gives, which here may be a warm-up",
        ),
        (["method.config.task_type=SEQ_CLS"], "LORA: config.task_type has no effect here"),
        (
            ["method.type=IA3", "method.config.target_modules=[key]"],
            "without config.feedforward_modules",
        ),
        (["method.type=POLY"], "POLY does not run on bert: task_ids should not be None"),
    ],
)
def test_what_the_library_cannot_do_is_refused_before_anything_starts(words, message):
    with pytest.raises(ConfigError, match=message):
        plan("model=tiny", "method=peft", *words)


@pytest.mark.parametrize("init", ["gaussian", "orthogonal", "olora", "pissa", "mica"])
def test_the_other_starts_of_lora_are_their_own(init):
    """None of them is LoRA's usual start under another name."""
    usual = adapted_model("bert", "method=peft")
    made = adapted_model("bert", "method=peft", f"method.config.init_lora_weights={init}")
    name = "bert.encoder.layer.0.attention.self.query.lora_{}.default.weight"
    for half in "AB":
        one, other = (e.module.get_parameter(name.format(half)) for e in (usual, made))
        if init == "gaussian" and half == "B":  # its B starts at 0 as well
            assert torch.equal(one, other)
        else:
            assert not torch.equal(one, other), half


def test_the_default_roles_of_a_type_are_its_papers():
    """Query and value, as the key of LoRA has it; IA3's of section 3.3."""
    (lora,) = plan("method=peft").runs
    (ia3,) = plan("method=peft", "method.type=IA3").runs
    (named,) = plan("method=peft", "method.type=IA3", "method.target_modules=[query]").runs
    roles = [run.method.hyperparameters["target_modules"] for run in (lora, ia3, named)]
    assert roles == [["query", "value"], ["key", "value", "ffn_out"], ["query"]]
    assert [run.method.revision for run in (lora, ia3, named)] == [1, 2, 1]


def test_sizes_are_judged_on_the_model_itself():
    """The check before a run sees a tiny model, on which 64 of 32 dimensions would not fit."""
    from peftbench.methods import dry_run

    words = ("method=peft", "method.type=MISS", "method.config.r=64")
    dry_run.validate_run(plan("model=minilm", *words).runs[0])
    with pytest.raises(ValueError, match="tiny has no place for peft's MISS"):
        adapted_model("bert", *words)


@pytest.mark.parametrize(("kind", "scale"), [("IA3", "ia3_l"), ("BOFT", "boft_s")])
def test_scales_have_no_decay(kind, scale):
    """In the library they have two dimensions, as matrices have."""
    made = adapted_model("bert", "method=peft", f"method.type={kind}")
    scales = {id(p) for n, p in made.trained().items() if f".{scale}." in n and p.ndim == 2}
    groups = parameter_groups(made.trained(), tiny.recipe(weight_decay=0.5), {})
    decays = {group["weight_decay"] for group in groups for p in group["params"] if id(p) in scales}
    assert decays == {0.0}


def test_only_runs_whose_scales_decayed_have_new_keys():
    decayed, none = "train.weight_decay=0.01", "train.weight_decay=0"
    found = {
        (kind, decay): tiny.one_run("method=peft", f"method.type={kind}", decay).loss_revision
        for kind in ("IA3", "BOFT", "LORA")
        for decay in (decayed, none)
    }
    assert {key for key, revision in found.items() if revision > min(found.values())} == {
        ("IA3", decayed),
        ("BOFT", decayed),
    }
