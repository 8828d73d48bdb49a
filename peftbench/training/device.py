"""Device, threads and kernels of torch."""

import os

import torch

from peftbench.core.errors import ConfigError
from peftbench.core.runtime import RuntimeConfig


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
