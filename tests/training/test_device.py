"""The device that a job gets: by word, by build of torch, and by whether the GPU computes."""

import pytest
import torch

from peftbench.core.errors import ConfigError
from peftbench.core.runtime import RuntimeConfig
from peftbench.training import device
from peftbench.training.device import device_of

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU")


@pytest.mark.parametrize("word", ["mps", "xpu", "cuda:1", "gpu", ""])
def test_other_words_are_refused(word):
    with pytest.raises(ConfigError, match=f"device '{word}': choose auto, cpu or cuda"):
        device_of(RuntimeConfig(word))


@no_gpu
def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused():
    assert device_of(RuntimeConfig("auto")) == torch.device("cpu")
    with pytest.raises(ConfigError, match="torch sees no GPU here; use --device cpu"):
        device_of(RuntimeConfig("cuda"))


def test_gpus_of_rocm_are_not_used_though_torch_calls_them_cuda(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.4")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of(RuntimeConfig("auto")) == torch.device("cpu")
    with pytest.raises(ConfigError, match="is built for ROCm, and only NVIDIA's GPUs"):
        device_of(RuntimeConfig("cuda"))


@no_gpu
@pytest.mark.skipif(torch.version.cuda is None, reason="this build of torch has no CUDA")
@pytest.mark.parametrize("word", ["auto", "cuda"])
def test_a_gpu_that_refuses_kernels_is_named_with_what_to_do(word, monkeypatch):
    """Torch itself refuses the product here, as it has no driver to launch it with."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", lambda enabled: None)
    device._check_kernels.cache_clear()
    with pytest.raises(ConfigError) as refused:
        device_of(RuntimeConfig(word))
    told = str(refused.value)
    assert told.startswith(f"it refuses kernels of torch {torch.__version__}: ")
    assert told.endswith("or install a build of torch for this GPU and its driver")
    assert "\n" not in told
