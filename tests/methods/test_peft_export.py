"""What peft loads from our folders gives our logits."""

import json

import pytest
import tiny
import torch
from peft import PeftModel, PrefixTuningConfig, get_peft_model
from safetensors.torch import save_file

from peftbench.methods import peft_export
from peftbench.methods.base import build_method
from peftbench.models import pretrained
from peftbench.models.adapted_model import AdaptedModel

pytestmark = pytest.mark.filterwarnings("ignore")  # the library's own, of many kinds


def written(folder, family: str, *words: str) -> AdaptedModel:
    """An encoder away from its start, exported to a folder."""
    model = AdaptedModel(tiny.backbone(family), classes=2, seed=3)
    method = build_method(tiny.one_run(*words).method)
    method.insert(model)
    with torch.no_grad():
        for p in model.trained().values():
            p.add_(0.1 * torch.randn(p.shape))
    config, tensors = peft_export.peft_form(method, model.eval())
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return model


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
    model = written(tmp_path, family, *words)
    base = pretrained.skeleton(tiny.one_run(f"model.family={family}", tiny.WIDE).model)
    loaded = PeftModel.from_pretrained(base, tmp_path).eval()
    batch = tiny.batch(tiny.tokens(), family)
    mask = batch["attention_mask"][:, 0, 0].long()
    with torch.inference_mode():
        theirs = loaded(input_ids=batch["input_ids"], attention_mask=mask).logits
        torch.testing.assert_close(model(batch), theirs, rtol=1e-4, atol=1e-5)


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
    model = written(tmp_path, family, *words)
    base = pretrained.skeleton(tiny.one_run(f"model.family={family}", tiny.WIDE).model)
    loaded = PeftModel.from_pretrained(base, tmp_path).eval()
    batch = tiny.batch(tiny.tokens(), family)
    mask = batch["attention_mask"][:, 0, 0].long()
    with torch.inference_mode():
        theirs = loaded(input_ids=batch["input_ids"], attention_mask=mask).logits
        torch.testing.assert_close(model(batch), theirs, rtol=1e-4, atol=1e-5)
        table = loaded.base_model.base_model.embeddings.position_embeddings
        places = table.modules_to_save["default"].weight
        assert not torch.equal(places, table.original_module.weight)
        places.copy_(places.roll(-5, 0))
        without = loaded(input_ids=batch["input_ids"], attention_mask=mask).logits
        assert not torch.allclose(without, theirs, atol=1e-2)
