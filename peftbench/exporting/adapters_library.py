"""Adapters in the layout of the adapters library (Poth et al. 2023, arXiv 2311.11077).

`adapter_config.json` and `pytorch_adapter.bin` as version 1.3 writes them in `save_adapter`. What
trained beside the adapter, the head and maybe norms, stands in a file of its own under
transformers' names.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from peftbench.exporting import card
from peftbench.exporting.card import Base
from peftbench.exporting.kept_run import KeptRun

#: The folder inside an export.
NAME = "adapters"

#: What the adapter is called in the library.
ADAPTER = "peftbench"

_VERSION = "adapters.1.3.0"


def write_adapters(kept: KeptRun, folder: Path) -> None:
    """Write the adapter of a run as a folder that the library loads.

    Raises:
        ValueError: if the library has no such adapter.
    """
    config, tensors = kept.method.to_adapters(kept.model, ADAPTER)
    plain = kept.model.module.config
    whole = {
        "config": config,
        "hidden_size": plain.hidden_size,
        "model_class": type(kept.model.module).__name__,
        "model_name": kept.run.model.checkpoint,
        "model_type": plain.model_type,
        "name": ADAPTER,
        "version": _VERSION,
    }
    mark = f".adapters.{ADAPTER}."
    folder.mkdir()
    text = json.dumps(whole, indent=2, sort_keys=True)
    folder.joinpath("adapter_config.json").write_text(text + "\n", encoding="utf-8")
    torch.save({n: t for n, t in tensors.items() if mark in n}, folder / "pytorch_adapter.bin")
    save_file({n: t for n, t in tensors.items() if mark not in n}, folder / "others.safetensors")


def loading_lines(kept: KeptRun, base: Base, folder: str) -> list[str]:
    """Lines of Python that load it with the library as `model`."""
    return [
        "import adapters",
        "from safetensors.torch import load_file",
        *card.base_lines(kept, base, "model"),
        "adapters.init(model)",
        f"model.load_adapter({folder!r}, set_active=True)",
        f"model.load_state_dict(load_file({folder + '/others.safetensors'!r}), strict=False)",
    ]
