"""How and where jobs are executed: device, threads, kernels."""

import os
from dataclasses import dataclass

import torch

from peftbench.core.errors import ConfigError


@dataclass(frozen=True)
class RuntimeConfig:
    """How and where runs are executed; nothing that may change a score.

    Attributes:
        device: "auto", "cpu" or "cuda"; which GPU is the environment's business.
        threads: of the CPU; None is torch's choice.
        data_root: a folder of data sets in the hub's layout; None is the hub.
        save_weights: return the trained weights, to be kept.
        minutes: between checkpoints of a long training.
        deterministic: use deterministic kernels on a GPU, which may cost a third of the speed.
        curve_part: of the reporting split that evaluations during training look at, a fixed
            stratified part; the score at the end is of all of it.
        processes: that execute one run together, this being one of them.
        pack: runs that a worker trains at a time; 1 is one after the other.
    """

    device: str = "auto"
    threads: int | None = None
    data_root: str | None = None
    save_weights: bool = False
    minutes: float = 10.0
    deterministic: bool = False
    curve_part: float = 1.0
    processes: int = 1
    pack: int = 1


def device_of(setting: RuntimeConfig) -> torch.device:
    """Set threads and kernels, and name the device.

    Raises:
        ConfigError: if a GPU is asked for and there is none.
    """
    if setting.threads is not None:
        torch.set_num_threads(setting.threads)
    if setting.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"--device {setting.device}: torch sees no GPU here; use --device cpu")
    torch.use_deterministic_algorithms(setting.deterministic)
    if setting.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if setting.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    # cuDNN builds a plan for every new shape of an attention: 85 % of a LoRA step on an H100
    torch.backends.cuda.enable_cudnn_sdp(False)
    return torch.device("cuda", 0)
