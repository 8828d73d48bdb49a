"""Checkpoints that have pytorch_model.bin alone: converted to safetensors once, into the cache.

A pickle can run code. `peftbench prefetch` converts one in a process of its own, which takes
nothing from it but tensors (torch.load with weights_only=True); every other command takes the
converted copy, or refuses. The copy keeps the hashes of what it was made from in `SOURCE`.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peftbench.core.errors import ConfigError
from peftbench.core.run import canonical
from peftbench.core.text import command
from peftbench.system import conversion, hub_client, io, memo

#: The weights, and their index where they are shards.
PATTERN = "pytorch_model*.bin"

#: The file of a converted folder that says what it was made from.
SOURCE = "converted.json"

#: What a converted folder has beside the weights.
_BESIDE = ("*.json", "*.txt", "*.model", "vocab.*", "*.vocab", "*.tiktoken", "*.codes", "*.jinja")

_allowed = False


@contextmanager
def converting() -> Iterator[None]:
    """Let this process convert; only `peftbench prefetch` does."""
    global _allowed
    before, _allowed = _allowed, True
    try:
        yield
    finally:
        _allowed = before


def allowed() -> bool:
    """Whether this process converts."""
    return _allowed


def is_pickled(folder: Path) -> bool:
    """Whether a checkpoint has pickled weights and no others."""
    return not has_safetensors(folder) and any(folder.glob(PATTERN))


def has_safetensors(folder: Path) -> bool:
    """Whether a folder has weights of a model as safetensors; those of an adapter are none."""
    return any(path.name != "adapter_model.safetensors" for path in folder.glob("*.safetensors"))


def copy_of_folder(folder: Path) -> Path:
    """The converted copy of a user's own folder; it is known by what is in the folder.

    Raises:
        ConfigError: if there is none and this process does not convert, or cannot.
    """
    named = [[path.name, io.hash_files((path,))] for path in [*_weights(folder), *_beside(folder)]]
    name = f"{folder.name}-{io.digest(canonical(named).encode())[:12]}"
    return _copy(folder, _root() / name, [f"model.checkpoint={_quoted(folder)}"])


def copy_of_hub(name: str, revision: str | None, folder: Path) -> Path:
    """The converted copy of a model in the hub's cache; as `copy_of_folder`.

    Args:
        name: of the repository.
        revision: as the model names it.
        folder: of the cache, whose name is the commit.
    """
    return _copy(folder, place_of_hub(name, folder.name), _words(name, revision))


def place_of_hub(name: str, commit: str) -> Path:
    """Where the converted copy of a model of the hub is, if there is one."""
    return _root() / f"{name.replace('/', '--')}@{commit}"


def refuse_hub(name: str, revision: str | None) -> ConfigError:
    """The error for a model of the hub that must be converted first."""
    return _refusal(name, _words(name, revision))


def _words(name: str, revision: str | None) -> list[str]:
    commit = [] if revision is None else [f"model.revision={revision}"]
    return [f"model.checkpoint={name}", *commit]


def _quoted(folder: Path) -> str:
    """A folder as a word of Hydra's grammar."""
    return str(folder) if str(folder).replace("/", "").isalnum() else f"'{folder}'"


def _root() -> Path:
    return memo.cache_root() / "converted"


def _refusal(what: object, words: list[str]) -> ConfigError:
    return ConfigError(
        f"{what} has its weights as pytorch_model.bin alone, a pickle, which can run code and is "
        f"not loaded; convert it to safetensors once: {command('prefetch', 'model=auto', *words)}"
    )


def _copy(folder: Path, place: Path, words: list[str]) -> Path:
    if place.is_dir():
        return place
    if not _allowed:
        raise _refusal(folder, words)
    try:
        io.folder_once(place, lambda draft: _convert(folder, draft))
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be converted into {place.parent} ({error.strerror or error}); make "
            "room there, or set PEFTBENCH_CACHE to a folder that can be written"
        ) from error
    return place


def _convert(folder: Path, draft: Path) -> None:
    hub_client.say(f"converting {folder} to safetensors in {draft.parent}, once")
    conversion.convert("pickle", folder, draft)
    for path in _beside(folder):
        shutil.copyfile(path, draft / path.name)
    about = {path.name: io.hash_files((path,)) for path in _weights(folder)}
    (draft / SOURCE).write_bytes(io.sealed({"sha256_of": about}))


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob(PATTERN))


def _beside(folder: Path) -> list[Path]:
    """Configuration and tokenizer; the index of the pickles is no part of the copy."""
    found = {path for pattern in _BESIDE for path in folder.glob(pattern) if path.is_file()}
    return sorted(path for path in found if not path.name.startswith("pytorch_model"))
