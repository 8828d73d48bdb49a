"""The process that makes a checkpoint of a GGUF file, started by `system.wheels`.

usage: python -m peftbench.models.gguf_conversion FILE TARGET

Quantised weights become fp32 values of what they stand for; transformers maps names and tokenizer.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def convert(source: Path, target: Path) -> None:
    """Write weights, config and tokenizer of a file into a folder.

    transformers refuses to save a model that it read from GGUF, so its weights go into a new one.
    """
    folder, name = source.parent, source.name
    read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    config = type(read.config).from_dict(read.config.to_dict())
    config.dtype = torch.float32
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    made.load_state_dict(read.state_dict())
    made.save_pretrained(target)
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(target)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
