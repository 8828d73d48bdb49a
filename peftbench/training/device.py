"""Device, threads and kernels of torch."""

import os
from functools import cache

import torch

from peftbench.core.errors import ConfigError
from peftbench.core.runtime import RuntimeConfig


def device_of(setting: RuntimeConfig) -> torch.device:
    """Set threads and kernels, and name the device.

    Raises:
        ConfigError: for another word than auto, cpu and cuda, if a GPU is asked for and there is
            none, and for a GPU that refuses kernels.
    """
    asked = setting.device
    if asked not in ("auto", "cpu", "cuda"):
        raise ConfigError(
            f"device {asked!r}: choose auto, cpu or cuda; which GPU is CUDA_VISIBLE_DEVICES' to say"
        )
    if setting.threads is not None:
        torch.set_num_threads(setting.threads)
    torch.use_deterministic_algorithms(setting.deterministic)
    if setting.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    absent = _absence()
    if asked == "cpu" or (asked == "auto" and absent):
        return torch.device("cpu")
    if absent:
        raise ConfigError(f"--device cuda: {absent}; use --device cpu")
    # cuDNN builds a plan for every new shape of an attention: 85 % of a LoRA step on an H100
    torch.backends.cuda.enable_cudnn_sdp(False)
    _check_kernels()
    return torch.device("cuda", 0)


def _absence() -> str:
    """Why there is no GPU to use; empty where there is one."""
    if torch.version.hip:  # which calls its devices cuda
        return f"torch {torch.__version__} is built for ROCm, and only NVIDIA's GPUs are supported"
    return "" if torch.cuda.is_available() else "torch sees no GPU here"


@cache
def _check_kernels() -> None:
    """Multiply two matrices on the GPU, once in a process.

    Raises:
        ConfigError: where it refuses, as one does that this build of torch has no kernels for.
    """
    try:
        square = torch.ones(16, 16, device="cuda")
        float((square @ square).sum())  # waits for the kernels
    except RuntimeError as error:
        told = str(error).partition("\n")[0]
        raise ConfigError(
            f"it refuses kernels of torch {torch.__version__}: {told}; use another GPU (--device "
            "cuda:i) or --device cpu, or install a build of torch for this GPU and its driver"
        ) from error
