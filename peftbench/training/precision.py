"""The precision that a run computes in: `auto` is resolved here, by the process that trains."""

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from peftbench.core.errors import ConfigError
from peftbench.system.hardware import bf16_on_cpu

#: What autocast computes matrix products in; fp32 has no autocast.
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(asked: str, device: torch.device) -> str:
    """What `train.precision` means on a device: auto is bf16 where that is native, else fp32.

    Native are GPUs since Ampere (bf16 is only emulated on older ones), and CPUs with avx512_bf16,
    amx_bf16 or Arm's bf16 instructions: on others a bf16 step takes many times an fp32 step.

    Raises:
        ConfigError: for fp16 on a CPU.
    """
    if asked == "fp16" and device.type == "cpu":
        raise ConfigError("train.precision=fp16 is for GPUs; on a CPU use auto, bf16 or fp32")
    if asked != "auto":
        return asked
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = bool(bf16_on_cpu())
    return "bf16" if native else "fp32"


def kept_precision(trained_in: str, device: torch.device) -> str:
    """The precision in which kept weights answer: that of their training; fp32 for fp16 on a CPU.

    Args:
        trained_in: as a record has it, resolved.
        device: where they are used.
    """
    if trained_in == "fp16" and device.type == "cpu":
        return "fp32"
    return resolve_precision(trained_in, device)


def precision_note(trained_in: str, answers_in: str) -> str | None:
    """What to say where `kept_precision` is another one than that of the training."""
    if answers_in == trained_in:
        return None
    return f"trained in {trained_in}, which is for GPUs; on this CPU it answers in {answers_in}"


def build_accelerator(device: torch.device, precision: str, tf32: bool = False) -> Accelerator:
    """An accelerator for one job; jobs of a warm worker differ in precision.

    Args:
        device: where.
        precision: resolved; fp16 brings dynamic loss scaling.
        tf32: whether a GPU may round the factors of fp32 products to 10 bits.
    """
    AcceleratorState._reset_state(True)
    torch.set_float32_matmul_precision("high" if tf32 and device.type == "cuda" else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    mixed = precision if precision in AUTOCAST else "no"
    return Accelerator(cpu=device.type == "cpu", mixed_precision=mixed)


def scaler_state(accelerator: Accelerator) -> dict[str, Tensor]:
    """The state of the loss scaling, for a checkpoint; empty without fp16."""
    if accelerator.scaler is None:
        return {}
    state = accelerator.scaler.state_dict()
    return {f"scaler.{name}": torch.tensor(value) for name, value in state.items()}


def restore_scaler(saved: dict[str, Tensor], accelerator: Accelerator) -> None:
    """Undo `scaler_state`."""
    if accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(
            {n.removeprefix("scaler."): t.item() for n, t in saved.items() if n[:7] == "scaler."}
        )
