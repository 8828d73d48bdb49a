"""What peft loads from our folders gives our logits."""

import json
from dataclasses import replace

import checkpoints as made
import pytest
import tiny
import torch
from peft import PeftModel, PrefixTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError, RecordError
from peftbench.methods import peft_export
from peftbench.methods.base import build_method
from peftbench.models import pretrained
from peftbench.models.adapted_model import AdaptedModel
from peftbench.results.store import Results
from peftbench.training.runtime import RuntimeConfig
from peftbench.training.trainer import execute

pytestmark = pytest.mark.filterwarnings("ignore")  # the library's own, of many kinds


def written(folder, family: str, *words: str) -> AdaptedModel:
    """An encoder away from its start, exported to a folder."""
    encoder = AdaptedModel(tiny.backbone(family), classes=2, seed=3)
    method = build_method(tiny.one_run(*words).method)
    method.insert(encoder)
    with torch.no_grad():
        for p in encoder.trained().values():
            p.add_(0.1 * torch.randn(p.shape))
    config, tensors = peft_export.peft_form(method, encoder.eval())
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return encoder


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "distilbert", "albert", "mpnet"])
@pytest.mark.parametrize(
    "words",
    [
        ("method=lora",),
        ("method=lora", "method.rank_scaling=0.5", "method.target_modules=[key,ffn_in]"),
        ("method=lora", "method.use_dora=true"),
        ("method=ia3",),
    ],
    ids=["lora", "rslora", "dora", "ia3"],
)
def test_the_library_loads_it_to_the_same_logits(tmp_path, family, words):
    encoder = written(tmp_path, family, *words)
    base = pretrained.skeleton(tiny.one_run(f"model.family={family}", tiny.WIDE).model)
    loaded = PeftModel.from_pretrained(base, tmp_path).eval()
    batch = tiny.batch(tiny.tokens(), family)
    mask = batch["attention_mask"][:, 0, 0].long()
    with torch.inference_mode():
        theirs = loaded(input_ids=batch["input_ids"], attention_mask=mask).logits
        torch.testing.assert_close(encoder(batch), theirs, rtol=1e-4, atol=1e-5)


def test_what_the_library_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match="in one linear outside of peftbench"):
        written(tmp_path, "modernbert", "method=lora")
    with pytest.raises(ValueError, match="Adapter has no form in the peft library"):
        written(tmp_path, "bert", "method=adapter")
    with pytest.raises(ValueError, match="has no table of positions"):
        written(tmp_path, "deberta_v2", "method=prefix")


@pytest.mark.parametrize("family", ["distilbert", "albert", "mpnet"])
def test_a_prefix_is_refused_where_the_library_cannot_put_it(tmp_path, family):
    """It says so only when the model is called; see `PeftModelForSequenceClassification`."""
    with pytest.raises(ValueError, match="takes no keys and values from outside"):
        written(tmp_path, family, "method=prefix", "method.length=5")
    base = pretrained.skeleton(tiny.one_run(f"model.family={family}", tiny.WIDE).model)
    config = PrefixTuningConfig(
        task_type="SEQ_CLS",
        num_virtual_tokens=5,
        num_layers=2,
        token_dim=32,
        num_attention_heads=4,
    )
    batch = tiny.batch(tiny.tokens(), family)
    mask = batch["attention_mask"][:, 0, 0].long()
    with pytest.raises(ValueError, match="does not support past key values"):
        get_peft_model(base, config)(input_ids=batch["input_ids"], attention_mask=mask)


@pytest.mark.parametrize("family", ["bert", "roberta", "electra"])
@pytest.mark.parametrize("width", [0, 8])
def test_a_prefix_takes_its_positions_along(tmp_path, family, width):
    """The library counts the prefix as positions; the table that we send makes up for it."""
    words = ("method=prefix", "method.length=5", f"method.width={width}")
    encoder = written(tmp_path, family, *words)
    base = pretrained.skeleton(tiny.one_run(f"model.family={family}", tiny.WIDE).model)
    loaded = PeftModel.from_pretrained(base, tmp_path).eval()
    batch = tiny.batch(tiny.tokens(), family)
    mask = batch["attention_mask"][:, 0, 0].long()
    with torch.inference_mode():
        theirs = loaded(input_ids=batch["input_ids"], attention_mask=mask).logits
        torch.testing.assert_close(encoder(batch), theirs, rtol=1e-4, atol=1e-5)
        places = loaded.base_model.base_model.embeddings.position_embeddings.weight
        places.copy_(places.roll(-5, 0))
        without = loaded(input_ids=batch["input_ids"], attention_mask=mask).logits
        assert not torch.allclose(without, theirs, atol=1e-2)


def test_a_kept_run_becomes_a_folder_once(tmp_path):
    words = (*tiny.own_task(tmp_path), "model=tiny", "budget=steps", "budget.steps=3")
    results = Results(tmp_path / "results")
    found = {}
    for method in ("lora", "prefix", "head"):
        (run,) = plan(*words, "train.num_evals=1", f"method={method}").runs
        outcome = execute(run, RuntimeConfig(device="cpu", save_weights=method != "head"))
        saved = results.save(outcome.record, outcome.predictions, outcome.trained)
        found[method] = saved
    peft_export.export_peft_adapter(found["lora"], results, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 8, 16)
    tensors = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert sum(t.numel() for t in tensors.values()) == sum(
        found["lora"].parameters[name] for name in ("trained", "head")
    )
    for method, folder, message in (
        ("lora", "adapter", "is there already"),
        ("head", "other", "were kept"),
    ):
        with pytest.raises(ConfigError, match=message):
            peft_export.export_peft_adapter(found[method], results, tmp_path / folder)
        assert not (tmp_path / "other").exists()
    kept = results.trained(found["lora"].run.key)
    results.write(kept, kept.read_bytes()[:-1] + b"x")
    with pytest.raises(RecordError, match="not the file"):
        peft_export.export_peft_adapter(found["lora"], results, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["model", "bert-base-uncased"])
def test_an_export_names_its_base_where_it_is(name, tmp_path, monkeypatch):
    """A bare name of a folder would be that of a model on the hub."""
    made.checkpoint(tmp_path / "here" / name)
    monkeypatch.chdir(tmp_path / "here")
    words = ("model=auto", f"model.checkpoint=./{name}", "task=synthetic_paraphrase", "method=lora")
    (run,) = plan(*words).runs
    assert run.model.checkpoint == name
    folder = str(tmp_path / "here" / name)
    assert peft_export.base_model(run.model) == {
        "base_model_name_or_path": folder,
        "revision": None,
    }
    on_hub = replace(run.model, path=None, checkpoint=f"people/{name}", revision="a" * 40)
    assert peft_export.base_model(on_hub) == {
        "base_model_name_or_path": f"people/{name}",
        "revision": "a" * 40,
    }
