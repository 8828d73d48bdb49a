"""SmolLM2-135M-Instruct out of its package: 4-bit weights, de-quantised."""

import numpy as np
import pytest
import tiny
import torch

from peftbench.data import batching, prompting
from peftbench.data.loading import LabelledTexts
from peftbench.data.tokenization import TokenizedSplit
from peftbench.data.tokenizer import load_tokenizer
from peftbench.methods import dry_run
from peftbench.methods.base import Method, build_method
from peftbench.models import decoding, pretrained
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.models.prepare_for_training import prepare_for_training
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
    model = AdaptedModel(backbone, 0, seed=0).eval()
    cpu = torch.device("cpu")
    accelerator = build_accelerator(cpu, "fp32", False)
    how = decoding.Decoding(3, prompting.end_of_text(tokenizer))
    view = Predictor(0, "causal", cpu, Method(), model, accelerator, how)
    written = view.predict(tokens, np.arange(3))["written"].astype(np.int64)
    for text, capital in zip(
        decoding.texts_of(written, tokenizer), ("Paris", "Rome", "Tokyo"), strict=True
    ):
        assert text.startswith(capital)


@pytest.mark.parametrize(("name", "lr"), [("full", 1e-4), ("lora", 1e-2), ("layernorm", 1e-2)])
def test_methods_train_and_write(run, backbone, name, lr):
    """A few steps on two questions of the sweep's kind, then texts with and without a cache."""
    own = tiny.one_run("model=smollm2_135m", "task=socialqa", f"method={name}")
    tokenizer = load_tokenizer(own.model)
    texts = [["Ann lost her keys.", "Bob won the race."], ["look for them", "proud"]]
    wanted = ["What will Ann do next?", "How does Bob feel?"]
    table = LabelledTexts(texts, np.zeros(2, np.int64), wanted)
    tokens = prompting.build_prompt(own, None).encode(table, tokenizer, 128)
    batch = batching.collate(tokens, np.arange(2), tokenizer.pad_token_id, "causal")
    model = AdaptedModel(backbone, 0, seed=0)
    method = build_method(own.method)
    method.insert(model)
    prepare_for_training(model, None, torch.from_numpy(np.unique(tokens.ids).astype(np.int64)))

    def loss() -> float:
        with torch.no_grad():
            return float(method.compute_loss(model.eval(), batch))

    before = loss()
    tiny.fit(model, method, batch, 3, lr=lr)
    assert loss() < 0.8 * before
    model.eval()
    asked = tokens.questions()
    with torch.inference_mode():
        together = batching.collate(asked, np.arange(2), tokenizer.pad_token_id, "causal")
        (first, _) = decoding.greedy(model, together, decoding.Decoding(4, end=-5)).tolist()
        ids = asked.ids[: asked.ends[0]].tolist()
        for token in first:
            whole = tokens_of([*ids, 0])
            scores = model(batching.collate(whole, np.arange(1), 0, "causal"))[0, 0]
            assert float(scores[token]) >= float(scores.max()) - 1e-3, "but for rounding"
            ids.append(token)


def tokens_of(ids: list[int]) -> TokenizedSplit:
    """One text of which the last token is wanted."""
    return TokenizedSplit(
        ids=np.array(ids, np.int32),
        types=np.zeros(0, np.uint8),
        ends=np.array([len(ids)], np.int64),
        label=np.zeros(1, np.int64),
        truncated=0,
        answer=np.array([len(ids) - 2], np.int32),
        wanted=np.ones(1, np.int32),
    )


WORDS = ("model=smollm2_135m", "task=xsum", "prompt=generate", "prompt.causal='{0} {answer}'")
