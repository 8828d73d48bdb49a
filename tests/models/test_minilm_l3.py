"""A model out of an exported graph: whose matrix is whose."""

import sys

import numpy as np
import torch
from paths import ROOT

sys.path.append(str(ROOT / "scripts"))
from convert_minilm_l3 import NODES, WEIGHTS, state_dict


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
