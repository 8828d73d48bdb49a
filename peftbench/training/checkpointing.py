"""An unfinished training on disk, so that it goes on exactly where it was (bitwise on a CPU)."""

import json
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from peftbench.core.run import Json, canonical
from peftbench.models.adapted_model import AdaptedModel
from peftbench.results.store import Results


def tensors(
    encoder: AdaptedModel, optimizer: torch.optim.Optimizer, best: dict[str, Tensor]
) -> dict[str, Tensor]:
    """All that a training is beside its progress, as named tensors on the CPU.

    Args:
        encoder: whose trained state is taken.
        optimizer: moments and step counts.
        best: the state of the best evaluation so far, where there is a selection.
    """
    found = {f"state.{name}": tensor for name, tensor in encoder.state().items()}
    found |= {f"best.{name}": tensor for name, tensor in best.items()}
    for number, parameter in enumerate(_parameters(optimizer)):
        for name, tensor in optimizer.state[parameter].items():
            found[f"optimizer.{number}.{name}"] = tensor
    found["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        found["random.cuda"] = torch.cuda.get_rng_state()
    return {name: tensor.detach().cpu().contiguous() for name, tensor in found.items()}


def restore(
    saved: dict[str, Tensor], encoder: AdaptedModel, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Undo `tensors`; return the best state."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {n.removeprefix(prefix): t for n, t in saved.items() if n.startswith(prefix)}

    encoder.restore(part("state."))
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


def save(
    results: Results | None, key: str, parted: Any, state: dict[str, Tensor], progress: Json
) -> None:
    """Write the checkpoint of a training; nowhere to write is nothing to do.

    Args:
        parted: the micro-batch, and the processes where there are several; what auto precision is.
    """
    if results is not None:
        note = {"run": key, "micro": canonical(parted), "progress": canonical(progress)}
        results.write(results.checkpoint(key), serialise(state, metadata=note))


def load(results: Results | None, key: str, parted: Any) -> tuple[dict[str, Tensor], Json] | None:
    """The checkpoint of a training with batches parted so; None where none is, or it is torn."""
    if results is None or not (path := results.checkpoint(key)).exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            note = file.metadata()
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError:
        warnings.warn(f"checkpoint {path.name} is torn; the run starts again", stacklevel=2)
        return None
    if note["run"] != key:
        return None
    if note["micro"] != canonical(parted):
        warnings.warn(
            f"checkpoint {path.name} was written with other micro-batches or another precision "
            f"({note['micro']}, here {canonical(parted)}); the run starts again",
            stacklevel=2,
        )
        return None
    return state, json.loads(note["progress"])
