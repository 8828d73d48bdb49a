"""Names, types and shapes of a checkpoint's tensors, from the headers of its files alone.

A safetensors file is 8 bytes that count the header (little-endian), the header (JSON: for each
tensor dtype, shape and its place in what follows), and the tensors.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftbench.core.errors import ConfigError
from peftbench.core.run import Json

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"

#: Bits of an element, by dtype; files of other types are quantised or of no use here.
BITS = {
    **{"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8},
    **{"U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8},
}

#: More bytes than any header has; safetensors itself refuses longer ones.
LONGEST = 100_000_000

_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Tensor:
    """What a header says of a tensor."""

    dtype: str
    shape: tuple[int, ...]


def read_headers(folder: Path) -> dict[str, Tensor]:
    """The tensors of the files that transformers loads: model.safetensors, or those of its index.

    Raises:
        ConfigError: if a file is missing, torn, a pointer of Git LFS or no safetensors file, or if
            shards are not what their index says.
    """
    if (folder / WEIGHTS).is_file():
        return read_header(folder / WEIGHTS)
    if (folder / INDEX).is_file():
        return _sharded(folder)
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if any(re.search(r"-\d+-of-\d+\.", name) for name in others):
        raise ConfigError(
            f"{folder} has shards of weights and no {INDEX}; copy that file from where the "
            "checkpoint was saved"
        )
    if others == ["adapter_model.safetensors"]:
        raise ConfigError(
            f"{folder} holds an adapter (adapter_model.safetensors) and no model; merge it into "
            "its base model (PeftModel.merge_and_unload, then save_pretrained), or give the folder "
            "of the base model"
        )
    pickled = [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.ckpt")]
    if pickled:
        raise ConfigError(
            f"{folder} has weights as pickle alone ({sorted(pickled)[0].name}), which can run code "
            "and is not read (`peftbench prefetch` converts pytorch_model.bin): a checkpoint is a "
            "transformers folder with config.json and safetensors weights; save it again with "
            "save_pretrained"
        )
    raise ConfigError(
        f"{folder} has no {WEIGHTS}{f' ({others[0]} is not read)' if others else ''}: a checkpoint "
        "is a transformers folder with config.json and safetensors weights"
    )


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of one file.

    Raises:
        ConfigError: if the file is torn or no safetensors file.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(8)
        if refused := not_content(path, head + file.read(32)):
            raise ConfigError(refused)
        length = int.from_bytes(head, "little")
        if size < 8 or not 2 <= length <= min(size - 8, LONGEST):
            raise ConfigError(
                f"{path} is torn or no safetensors file: its header would end at byte "
                f"{length + 8}, the file has {size}; {_AGAIN}"
            )
        file.seek(8)
        body = file.read(length)
    try:
        header: Any = json.loads(body)
        tensors = dict(_tensors(header))
        end = max((stop for _, stop in _spans(header)), default=0)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{path} is torn or no safetensors file: its header cannot be read ({error}); {_AGAIN}"
        ) from error
    if end + length + 8 != size:
        raise ConfigError(
            f"{path} is torn: its header promises {end + length + 8} bytes, the file has {size}; "
            f"{_AGAIN}"
        )
    return tensors


def not_content(path: Path, start: bytes) -> str | None:
    """Why a file is not what its name says: a pointer of Git LFS, or a web page."""
    if start.startswith(_POINTER):
        return (
            f"{path} is a pointer of Git LFS, not the file itself; run `git lfs pull` in its "
            "repository, or download the file again"
        )
    if start.lstrip()[:9].lower() in (b"<!doctype", b"<html>") or start.lstrip()[:5] == b"<html":
        return f"{path} is a web page, not the file itself; {_AGAIN}"
    return None


def read_json(path: Path) -> Json:
    """The object in a JSON file of a checkpoint.

    Raises:
        ConfigError: if it is torn, a pointer of Git LFS, or no object.
    """
    try:
        body = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if refused := not_content(path, body[:64]):
        raise ConfigError(refused)
    try:
        found = json.loads(body)
    except ValueError as error:
        raise ConfigError(f"{path} is torn or no JSON ({error}); {_AGAIN}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} holds no JSON object; {_AGAIN}")
    return found


_AGAIN = "copy or download it again"


def _sharded(folder: Path) -> dict[str, Tensor]:
    named = read_json(folder / INDEX).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(file, str) for file in named.values()):
        raise ConfigError(f"{folder / INDEX} has no weight_map; {_AGAIN}")
    files = sorted(set(named.values()))
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        there = sorted(path.name for path in folder.glob("*.safetensors"))
        raise ConfigError(
            f"{folder}: {INDEX} names {len(files)} files, of which {', '.join(missing[:3])} "
            f"{'is' if len(missing) == 1 else 'are'} missing (there: {', '.join(there) or 'none'})"
            "; copy or download the missing files, or save the checkpoint again"
        )
    found: dict[str, Tensor] = {}
    for file in files:
        inside = read_header(folder / file)
        said = {name for name, where in named.items() if where == file}
        if odd := sorted(said ^ set(inside)):
            raise ConfigError(
                f"{folder}: {INDEX} and {file} do not belong together: {odd[0]} is only in "
                f"{'the index' if odd[0] in said else 'the file'}; save the checkpoint again"
            )
        found |= inside
    return found


def _tensors(header: Json) -> Iterator[tuple[str, Tensor]]:
    for name, about in header.items():
        if name != "__metadata__":
            shape = tuple(int(size) for size in about["shape"])
            start, stop = about["data_offsets"]
            bits = BITS.get(about["dtype"])
            if bits is not None and math.prod(shape) * bits // 8 != stop - start:
                raise ValueError(f"{name} has {stop - start} bytes")
            yield name, Tensor(str(about["dtype"]), shape)


def _spans(header: Json) -> Iterator[tuple[int, int]]:
    for name, about in header.items():
        if name != "__metadata__":
            start, stop = about["data_offsets"]
            yield int(start), int(stop)
