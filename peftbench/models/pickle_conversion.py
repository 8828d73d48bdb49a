"""The process that converts pytorch_model.bin to safetensors, started by `system.pickled`.

usage: python -m peftbench.models.pickle_conversion FOLDER TARGET

Only tensors are taken from the pickles: torch.load with weights_only=True refuses all else before
it runs.
"""

import json
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from peftbench.core.errors import ConfigError
from peftbench.models.safetensors_headers import INDEX, not_content, read_json

#: The index of sharded pickles.
PICKLE_INDEX = "pytorch_model.bin.index.json"


def convert(folder: Path, target: Path) -> None:
    """Write the weights of a folder as safetensors, shard by shard, with their index.

    Raises:
        ConfigError: if a file is missing, torn, or holds other things than tensors.
    """
    shards = _shards(folder)
    where: dict[str, str] = {}
    size = 0
    for file, names in shards.items():
        tensors = _apart(load(folder / file))
        if names is not None and (odd := sorted(names ^ set(tensors))):
            raise ConfigError(f"{PICKLE_INDEX} and {file} do not belong together: {odd[0]}")
        to = f"{file.replace('pytorch_model', 'model').removesuffix('.bin')}.safetensors"
        save_file(tensors, target / to, metadata={"format": "pt"})
        where |= dict.fromkeys(tensors, to)
        size += sum(tensor.nbytes for tensor in tensors.values())
    if list(shards) != ["pytorch_model.bin"]:
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(where.items()))}
        (target / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")


def _shards(folder: Path) -> dict[str, set[str] | None]:
    """The files of the weights, with the names that the index says are in each."""
    if (folder / "pytorch_model.bin").is_file():
        return {"pytorch_model.bin": None}
    if not (folder / PICKLE_INDEX).is_file():
        raise ConfigError(f"it has shards of weights and no {PICKLE_INDEX}; copy that file too")
    named = read_json(folder / PICKLE_INDEX).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise ConfigError(f"{PICKLE_INDEX} has no weight_map; copy or download it again")
    files: dict[str, set[str] | None] = {}
    for file in sorted(map(str, set(named.values()))):
        if Path(file).name != file or not (folder / file).is_file():
            raise ConfigError(f"{PICKLE_INDEX} names {file}, which is missing; copy it too")
        files[file] = {name for name, inside in named.items() if inside == file}
    return files


def load(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of one pickle, which runs no code.

    Raises:
        ConfigError: if it is torn, or holds other things than named tensors.
    """
    with open(path, "rb") as file:
        if refused := not_content(path, file.read(64)):
            raise ConfigError(refused)
    try:
        found: Any = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{path.name} is no pickle of tensors alone ({_reason(error)}), and what else it holds "
            "could run code, so it is never loaded; get these weights as safetensors, or save them "
            "again with save_pretrained where you trust the file"
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise ConfigError(
            f"{path.name} is torn or no file of torch.save ({_reason(error)}); copy or download it "
            "again"
        ) from error
    odd = _odd(found)
    if odd is not None:
        raise ConfigError(f"{path.name} holds {odd} where named tensors are expected")
    return dict(found)


def _odd(found: Any) -> str | None:
    if not isinstance(found, dict):
        return f"a {type(found).__name__}"
    for name, tensor in found.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            return f"{name!r}, a {type(tensor).__name__},"
        if tensor.layout != torch.strided or tensor.is_quantized:
            return f"the sparse or quantised tensor {name!r}"
    return None


def _apart(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors that share no memory, as safetensors has them: a tied one is stored by each name."""
    seen: set[int] = set()
    found = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        own = tensor.detach().contiguous()
        shared = place in seen or own.untyped_storage().nbytes() != own.nbytes
        found[name] = own.clone() if shared else own
        seen.add(place)
    return found


def _reason(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason")


if __name__ == "__main__":
    try:
        convert(Path(sys.argv[1]), Path(sys.argv[2]))
    except ConfigError as error:
        sys.exit(str(error))
