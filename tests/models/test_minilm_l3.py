"""paraphrase-MiniLM-L3-v2 out of an exported graph: whose matrix is whose, and the same outputs."""

import numpy as np
import pytest
import tiny
import torch
from transformers import BertModel

from peftbench.data.tokenizer import load_tokenizer
from peftbench.methods import dry_run
from peftbench.models import pretrained
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.models.onnx_conversion import NODES, WEIGHTS, state_dict
from peftbench.system import wheels


def test_a_matrix_belongs_to_the_node_that_multiplies_by_it():
    wide, square = np.arange(6.0).reshape(2, 3), np.eye(2)
    bias = np.ones(3)
    layer = "encoder/layer.0/attention"
    stored = {"onnx::MatMul_7": wide, "onnx::MatMul_9": square, "other": square}
    stored[f"{WEIGHTS}encoder.layer.0.attention.self.query.bias"] = bias
    products = [
        (f"{NODES}{layer}/self/query/MatMul", "onnx::MatMul_7"),
        (f"{NODES}{layer}/output/dense/MatMul", "onnx::MatMul_9"),
        (f"{NODES}{layer}/self/MatMul", "a tensor of the pass"),
    ]
    found = state_dict(stored, products)
    assert set(found) == {
        "encoder.layer.0.attention.self.query.weight",
        "encoder.layer.0.attention.self.query.bias",
        "encoder.layer.0.attention.output.dense.weight",
    }
    query = found["encoder.layer.0.attention.self.query.weight"]
    assert query.tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]], "(out, in)"
    assert query.is_contiguous()
    assert query.dtype == torch.float64


@pytest.fixture(scope="module")
def run():
    # Not a mark: those are evaluated before the tests have a cache of their own.
    run = tiny.one_run("model=minilm_l3")
    if not wheels.available(run.model.wheels):
        pytest.skip("needs uv sync --group minilm_l3")
    return run


@pytest.mark.packages
def test_its_package_is_converted_and_checked(run):
    folder = pretrained.locate(run.model)
    assert pretrained.weights_hash(folder) == run.model.sha256
    backbone = Backbone(run.model)
    assert backbone.new_parts == ["bert.pooler.dense"], "the file has no pooler"
    assert AdaptedModel(backbone, classes=2, seed=0).counts()["total"] == 17_389_824 + 2 * 384 + 2
    assert "has no bert.pooler.dense" in dry_run.check_checkpoint(run)[0]


@pytest.mark.packages
def test_equals_the_exported_graph(run):
    from onnx.reference import ReferenceEvaluator

    (source,) = wheels.pieces_of(run.model.wheels)
    graph = ReferenceEvaluator(str(source))
    texts = ["A man is eating food.", "The stock market fell sharply."]
    inputs = load_tokenizer(run.model)(texts, padding=True, return_tensors="pt")
    given = {name: inputs[name].numpy() for name in graph.input_names if name in inputs}
    theirs = graph.run(None, given)
    names = dict(zip(graph.output_names, theirs, strict=True))
    hidden = next(value for value in names.values() if value.ndim == 3)
    model = BertModel.from_pretrained(pretrained.locate(run.model), add_pooling_layer=False)
    with torch.inference_mode():
        ours = model.eval()(**inputs).last_hidden_state.numpy()
    real = inputs["attention_mask"].bool().numpy()
    np.testing.assert_allclose(ours[real], hidden[real], rtol=0, atol=1e-4)
