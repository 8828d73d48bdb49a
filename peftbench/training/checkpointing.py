"""An unfinished training on disk, so that it goes on exactly where it was (bitwise on a CPU).

A checkpoint is sealed as a record is: one with a wrong bit would give another result, or none. What
is not as it was written is dropped, and the training starts again.
"""

import hashlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from peftbench.core.errors import RecordError
from peftbench.core.run import Json, canonical
from peftbench.models.adapted_model import AdaptedModel
from peftbench.results.store import ResultsFolder


def tensors(
    model: AdaptedModel, optimizer: torch.optim.Optimizer, best: dict[str, Tensor]
) -> dict[str, Tensor]:
    """All that a training is beside its progress, as named tensors on the CPU.

    Args:
        model: whose trained state is taken.
        optimizer: moments and step counts.
        best: the state of the best evaluation so far, where there is a selection.
    """
    found = {f"state.{name}": tensor for name, tensor in model.state().items()}
    found |= {f"best.{name}": tensor for name, tensor in best.items()}
    for number, parameter in enumerate(_parameters(optimizer)):
        for name, tensor in optimizer.state[parameter].items():
            found[f"optimizer.{number}.{name}"] = tensor
    found["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        found["random.cuda"] = torch.cuda.get_rng_state()
    return {name: tensor.detach().cpu().contiguous() for name, tensor in found.items()}


def restore(
    saved: dict[str, Tensor], model: AdaptedModel, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Undo `tensors`; return the best state."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {n.removeprefix(prefix): t for n, t in saved.items() if n.startswith(prefix)}

    model.restore(part("state."))
    for number, parameter in enumerate(_parameters(optimizer)):
        for name, tensor in part(f"optimizer.{number}.").items():
            optimizer.state[parameter][name] = tensor.to(parameter.device)
    torch.set_rng_state(saved["random.cpu"])
    if "random.cuda" in saved:
        torch.cuda.set_rng_state(saved["random.cuda"])
    return part("best.")


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]


def sealed(tensors: dict[str, Tensor], note: dict[str, str]) -> bytes:
    """A safetensors file of tensors on the CPU and a note, with the SHA-256 of both in it."""
    return serialise(tensors, metadata=note | {"sha256": _digest(tensors, note)})


def unsealed(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `sealed` gave.

    Raises:
        FileNotFoundError: if there is no such file.
        RecordError: if it is torn, was altered, or has no seal.
    """
    try:
        with safe_open(path, framework="pt") as file:
            note = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise RecordError(f"checkpoint {path.name} is torn") from error
    if note.pop("sha256", None) != _digest(tensors, note):
        raise RecordError(
            f"checkpoint {path.name} was altered: its content does not hash to what it says"
        )
    return tensors, note


def micro_batch_of(results: ResultsFolder, key: str, device: str) -> int | None:
    """The micro-batch of an unfinished training, read without its tensors.

    None for the whole batch, without a checkpoint, and for one of another kind of device.
    """
    if not (path := results.checkpoint(key)).exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            there = json.loads((file.metadata() or {})["made_with"])
    except (SafetensorError, ValueError, KeyError):  # `load` says so
        return None
    size = there.get("micro_batch_size") if there.get("device") == device else None
    return size if isinstance(size, int) and size > 0 else None


def _digest(tensors: dict[str, Tensor], note: dict[str, str]) -> str:
    whole = hashlib.sha256(canonical(note).encode())
    for name, tensor in sorted(tensors.items()):
        whole.update(canonical([name, str(tensor.dtype), list(tensor.shape)]).encode())
        whole.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()


@dataclass(frozen=True)
class Checkpoint:
    """The file of a training's checkpoint.

    Attributes:
        results: the folder; None where nothing is kept.
        key: of the training.
        made_with: what decides sums beside the key, such as the device and the micro-batch: a
            training goes on from nothing else.
    """

    results: ResultsFolder | None
    key: str
    made_with: Json

    def save(self, state: dict[str, Tensor], progress: Json) -> None:
        """Write it; nowhere to write is nothing to do."""
        if self.results is not None:
            made = canonical(self.made_with)
            note = {"run": self.key, "made_with": made, "progress": canonical(progress)}
            self.results.write(self.results.checkpoint(self.key), sealed(state, note))

    def load(self) -> tuple[dict[str, Tensor], Json] | None:
        """What `save` was given.

        None where none is; one that is not as it was written is dropped, with a warning.
        """
        if self.results is None or not (path := self.results.checkpoint(self.key)).exists():
            return None
        try:
            state, note = unsealed(path)
        except RecordError as error:
            warnings.warn(f"{error}; the run starts again", stacklevel=2)
            path.unlink(missing_ok=True)
            return None
        if note["run"] != self.key:
            return None
        there = json.loads(note.get("made_with", "{}"))  # an older peftbench compared less
        here = self.made_with
        differ = [name for name in here | there if there.get(name, ...) != here.get(name, ...)]
        if differ:
            here = {name: here.get(name) for name in differ}
            told = {name: there.get(name) for name in differ}
            warnings.warn(
                f"checkpoint {path.name} was written with {canonical(told)}, here is "
                f"{canonical(here)}; the run starts again",
                stacklevel=2,
            )
            return None
        return state, json.loads(note["progress"])
