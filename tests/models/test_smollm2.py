"""SmolLM2-135M-Instruct out of its package: 4-bit weights, de-quantised."""

import numpy as np
import pytest
import tiny
import torch

from peftbench.data import prompting
from peftbench.data.loading import LabelledTexts
from peftbench.data.tokenizer import load_tokenizer
from peftbench.methods import dry_run
from peftbench.methods.base import Method
from peftbench.models import decoding, pretrained
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.system import wheels
from peftbench.training.precision import build_accelerator
from peftbench.training.predictor import Predictor

pytestmark = [
    pytest.mark.packages,
    pytest.mark.slow,  # 538 MB are written into the cache of the tests
]


@pytest.fixture(scope="module")
def run():
    # Not a mark: those are evaluated before the tests have a cache of their own.
    run = tiny.one_run("model=smollm2_135m", "task=socialqa", "prompt=generate")
    if not wheels.available(run.model.wheels):
        pytest.skip("needs uv sync --group smollm2")
    return run


@pytest.fixture(scope="module")
def backbone(run):
    return Backbone(run.model, verbalizer_ids=[])


def test_comes_from_its_package(run, backbone):
    folder = pretrained.locate(run.model)
    assert pretrained.weights_hash(folder) == run.model.sha256
    assert AdaptedModel(backbone, 0, seed=0).counts()["total"] == 134_515_008
    assert not dry_run.check_checkpoint(run), "nothing is odd about it"
    assert "smollm2_135m (4-bit weights, de-quantised)" in run.title
    assert "4-bit weights, de-quantised" in str(run.to_json()["model"]["about"])


def test_writes_what_it_knows(run, backbone):
    """By the whole path: a prompt, one pass for what the texts share, tokens, texts."""
    tokenizer = load_tokenizer(run.model)
    front = "Here is a list of questions and short answers about the capitals of countries."
    texts = [f"{front} The capital of {name} is" for name in ("France", "Italy", "Japan")]
    prompt = prompting.build_prompt(tiny.one_run(*WORDS), None)
    table = LabelledTexts([texts], np.zeros(3, np.int64))
    tokens = prompt.encode(table, tokenizer, 128)
    encoder = AdaptedModel(backbone, 0, seed=0).eval()
    cpu = torch.device("cpu")
    accelerator = build_accelerator(cpu, "fp32", False)
    how = decoding.Decoding(3, prompting.end_of_text(tokenizer))
    view = Predictor(0, "causal", cpu, Method(), encoder, accelerator, how)
    written = view.predict(tokens, np.arange(3))["written"].astype(np.int64)
    for text, capital in zip(
        decoding.texts_of(written, tokenizer), ("Paris", "Rome", "Tokyo"), strict=True
    ):
        assert text.startswith(capital)


WORDS = ("model=smollm2_135m", "task=xsum", "prompt=generate", "prompt.causal='{0} {answer}'")
