"""Every model's yaml, a user's own checkpoints, and whose weights are new."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from omegaconf import OmegaConf
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertModel

from peftbench.config import catalog
from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.core.run import Run
from peftbench.data.tokenizer import load_tokenizer
from peftbench.models import pretrained
from peftbench.models.adapted_model import ROLES, AdaptedModel
from peftbench.models.backbone import Backbone

YAML = {name: catalog.find("model", name, [catalog.packaged()]) for name in tiny.MODELS}


@pytest.mark.parametrize("name", YAML)
def test_yaml_of_a_model(name):
    node = OmegaConf.to_container(OmegaConf.load(YAML[name]))
    assert node["name"] == name
    assert node["family"] in (*tiny.FAMILIES, None)
    assert (node["family"] is None) == (name == "auto")
    assert node["about"]
    assert YAML[name].read_text().startswith("# ")
    converted = bool((node.get("wheels") or {}).get("conversion"))  # never loaded from the hub
    if node["checkpoint"] not in (None, "???") and not converted:
        assert len(node["revision"]) == 40, "a checkpoint of the hub is pinned"
    if name not in ("auto", "tiny"):
        assert tiny.one_run(f"model={name}").model.family_config.model_type


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_yaml_of_a_family(family):
    """Each role is there in each block, what it points to, and they are not one another."""
    backbone = tiny.backbone(family)
    assert tuple(backbone.family_config.roles) == ROLES
    model = AdaptedModel(backbone, classes=2, seed=0)
    width = model.module.config.hidden_size
    for block in range(len(model.blocks)):
        parts = {role: list(model.each(role))[block] for role in ROLES}
        assert len({id(part) for part in parts.values()}) == len(ROLES)
        for role in ("query", "key", "value"):
            assert parts[role].in_features == width
        assert parts["key"].out_features == parts["value"].out_features == model.key_dim
        for role in ("attn_out", "ffn_out"):
            assert parts[role].out_features == width
        assert parts["ffn_in"].in_features == width
        for role in ("attn_norm", "ffn_norm"):
            kinds = ["LayerNorm", *["Identity", "LlamaRMSNorm", "Qwen2RMSNorm"] * model.pre_norm]
            assert type(parts[role]).__name__ in kinds, role
    with pytest.raises(ValueError, match="has no role 'querry'; its roles are attention, query"):
        list(model.each("querry"))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_roles_are_run_through(family):
    """Hooks see each role once a block and pass, the norms and the three projections in order."""
    model = AdaptedModel(tiny.backbone(family), classes=2, seed=0).eval()
    met = []
    for role in ROLES:
        for part in model.each(role):
            part.register_forward_hook(lambda *_, role=role: met.append(role))
    model(tiny.batch(tiny.tokens(2), family))
    depth = model.module.config.num_hidden_layers
    counts = {role: met.count(role) for role in ROLES}
    if model.pre_norm:
        assert met.index("attn_norm") < met.index("query")
        assert met.index("ffn_norm") < met.index("ffn_in")
    else:
        assert met.index("attn_out") < met.index("attn_norm") < met.index("ffn_in")
        assert met.index("ffn_out") < met.index("ffn_norm")
    seen = {role for role in ROLES if counts[role] == depth}
    # DeBERTa-v3 projects its relative positions with the same query and key, so more often
    assert seen >= set(ROLES) - {"query", "key"}
    assert counts["query"] % depth == counts["key"] % depth == 0


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_head_has_as_many_outputs_as_classes(family, classes):
    model = AdaptedModel(tiny.backbone(family), classes, seed=0).eval()
    batch = tiny.batch(tiny.tokens(8, classes), family)
    assert model(batch).shape == (8, classes)
    assert model.counts()["trained"] == 0
    last = list(model.trained().values())[-1]
    if model.backbone.family_config.mask == "causal" and classes > 1:
        assert last.shape == (classes, model.dim), "their head has no bias"
        return
    assert last.shape == (classes,)
    assert not last.any(), "the bias starts at 0"


# a folder of the user's own


def save(module: torch.nn.Module, folder: Path) -> Path:
    module.save_pretrained(folder)
    family = module.config.model_type.replace("-", "_")
    load_tokenizer(tiny.one_run(f"model.family={family}").model).save_pretrained(folder)
    return folder


def skeleton(family: str) -> torch.nn.Module:
    return pretrained.skeleton(tiny.one_run(f"model.family={family}").model)


def auto(folder: Path, *words: str) -> Run:
    (run,) = plan("model=auto", f"model.checkpoint='{folder}'", *words).runs
    return run


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def is_stored(name: str, parameter: torch.Tensor, tensors: dict[str, torch.Tensor]) -> bool:
    """Whether a file holds this tensor, as it is or transposed, with the model's prefix or not."""
    names = [name.split(".", start)[-1] for start in range(name.count(".") + 1)]
    found = [tensors[each] for each in names if each in tensors]
    return any(torch.equal(t, parameter) or torch.equal(t.T, parameter) for t in found)


def test_a_folder_is_known_by_its_weights_its_config_and_its_tokenizer(tmp_path):
    """Another tokenizer or config is another run, wherever the folder lies."""
    folder = save(skeleton("bert"), tmp_path / "here" / "own")
    before = auto(folder).key
    moved = folder.rename(tmp_path / "own")
    assert auto(moved).key == before
    (moved / "README.md").write_text("prose")
    assert auto(moved).key == before
    for name in ("tokenizer.json", "config.json"):
        path = moved / name
        kept = path.read_bytes()
        path.write_bytes(kept + b"\n")
        assert auto(moved).key != before
        path.write_bytes(kept)
    assert auto(moved).key == before


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_own_checkpoint_of_every_family(family, tmp_path):
    """A base model as it is published: what it has no weights for is new, and so it is the head."""
    base = AutoModel.from_config(skeleton(family).config)
    folder = save(base, tmp_path / "my model")
    run = auto(folder)
    assert (run.model.family, run.model.name) == (family, "my model")
    backbone, tensors = Backbone(run.model), stored(folder)
    model = AdaptedModel(backbone, classes=2, seed=0).eval()
    split = {f"{path}." for path in backbone.family_config.split}
    for name, p in model.module.named_parameters():
        if model.in_head(name):
            assert p.requires_grad
        elif not any(path in name for path in split):
            assert not p.requires_grad
            assert is_stored(name, p, tensors), f"{name} is new, and would stay as it was drawn"
    assert model(tiny.batch(tiny.tokens(), family)).isfinite().all()
    tokenizer = load_tokenizer(run.model)
    own = load_tokenizer(tiny.one_run(f"model.family={family}").model)
    assert tokenizer("a b")["input_ids"] == own("a b")["input_ids"]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_own_classifier_computes_what_it_computed(family, tmp_path):
    """All but the head comes from the file: with the file's head too the logits are the file's."""
    whole = skeleton(family).eval()
    model = AdaptedModel(Backbone(auto(save(whole, tmp_path / "mine")).model), 2, seed=0).eval()
    head = {n: p for n, p in whole.named_parameters() if model.in_head(n)}
    assert head.keys() == model.trained().keys()
    model.restore({name: p.detach() for name, p in head.items()})
    batch = tiny.batch(tiny.tokens(), family)
    places = torch.arange(batch["input_ids"].shape[1])
    mask = (places < batch["lengths"][:, None]).long()
    with torch.inference_mode():
        theirs = whole(input_ids=batch["input_ids"], attention_mask=mask).logits
        torch.testing.assert_close(model(batch), theirs, rtol=0, atol=1e-6)


def test_pooler_that_the_checkpoint_lacks_is_new_and_trains(tmp_path):
    base = BertModel(skeleton("bert").config, add_pooling_layer=False)
    run = auto(save(base, tmp_path / "mine"))
    backbone = Backbone(run.model)
    assert backbone.head == ["classifier", "bert.pooler.dense"]
    one, again, other = (AdaptedModel(backbone, classes=2, seed=seed) for seed in (0, 0, 1))
    name = "bert.pooler.dense.weight"
    assert name in one.trained()
    assert torch.equal(one.trained()[name], again.trained()[name])
    assert not torch.equal(one.trained()[name], other.trained()[name])


def test_pooler_that_the_checkpoint_has_stays(tmp_path):
    base = BertModel(skeleton("bert").config)
    backbone = Backbone(auto(save(base, tmp_path / "mine")).model)
    assert backbone.head == ["classifier"]
    assert torch.equal(backbone.module.bert.pooler.dense.weight, base.pooler.dense.weight)


def test_checkpoint_is_known_by_its_weights(tmp_path):
    folder = save(skeleton("bert"), tmp_path / "mine")
    before = auto(folder)
    shutil.copytree(folder, tmp_path / "elsewhere" / "mine")
    assert auto(tmp_path / "elsewhere" / "mine").key == before.key
    tensors = stored(folder)
    tensors["classifier.bias"] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert auto(folder).key != before.key
    with pytest.raises(ConfigError, match=r"the weights of mine in mine hash to .*, not to"):
        Backbone(before.model)


def test_folder_with_pickled_weights_alone_is_refused(tmp_path):
    folder = save(skeleton("bert"), tmp_path / "mine")
    torch.save(stored(folder), folder / "model.ckpt")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"config.json and safetensors weights"):
        auto(folder)


def test_folder_that_is_none_and_family_that_is_not_known(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere: a local checkpoint is a transformers folder"):
        auto(tmp_path / "nowhere")
    folder = save(skeleton("bert"), tmp_path / "mine")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "bart"}))
    with pytest.raises(ConfigError, match=r"type 'bart'; families with a role map are albert, "):
        auto(folder)
    with pytest.raises(ConfigError, match=r"model.family=brt: did you mean .*bert"):
        plan("model=tiny", "model.family=brt")
    with pytest.raises(
        ConfigError, match=r"model=auto: missing checkpoint; give model.checkpoint=VALUE"
    ):
        plan("model=auto")


# the model that a package brings


def test_minilm_comes_from_its_package():
    run = tiny.one_run("model=minilm")
    folder = pretrained.locate(run.model)
    assert folder is not None
    assert pretrained.weights_hash(folder) == run.model.sha256
    backbone = Backbone(run.model)
    model = AdaptedModel(backbone, classes=2, seed=0)
    assert backbone.head == ["classifier"]
    assert model.counts() == {"trained": 0, "head": 770, "total": 22_713_986}
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        name = "embeddings.word_embeddings.weight"
        assert torch.equal(backbone.module.bert.get_parameter(name), file.get_tensor(name))
    tokenizer = load_tokenizer(run.model)
    assert tokenizer("Hello, world!")["input_ids"] == [101, 7592, 1010, 2088, 999, 102]


def test_minilm_of_other_weights_is_refused():
    run = tiny.one_run("model=minilm")
    with pytest.raises(ConfigError, match=r"hash to 53aa51172d14, not to 000000000000: install"):
        Backbone(replace(run.model, sha256="0" * 64))
