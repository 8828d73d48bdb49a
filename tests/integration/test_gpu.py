"""What only a GPU can show; skipped elsewhere."""

import numpy as np
import pytest
import tiny
import torch

from peftbench.config.sweep import plan
from peftbench.core.runtime import RuntimeConfig
from peftbench.training.trainer import execute
from peftbench.training.warm_cache import WarmCache

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]

WORDS = ("model=tiny", tiny.WIDE, "budget=steps", "budget.steps=30", "train.num_evals=2")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return tiny.own_task(tmp_path_factory.mktemp("task"))


@pytest.fixture(autouse=True)
def _kernels():
    yield
    torch.use_deterministic_algorithms(False)


def run(task, *words):
    (found,) = plan(*task, *WORDS, *words).runs
    return found


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_same_run_gives_the_same_bits(family, precision, task):
    """Deterministic kernels; what ran before and what is warm make no difference."""
    words = (f"model.family={family}", f"train.precision={precision}")
    setting, warm = RuntimeConfig(device="cuda", deterministic=True), WarmCache()
    first = execute(run(task, *words), setting, warm=warm).predictions["scores"]
    execute(run(task, "method=full", *words), setting, warm=warm)
    assert np.array_equal(
        first, execute(run(task, *words), setting, warm=warm).predictions["scores"]
    )
    assert np.array_equal(first, execute(run(task, *words), setting).predictions["scores"])


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_gpu_agrees_with_cpu_before_training(family, task):
    """The smallest rate there is: the same head and method on the same weights."""
    words = (f"model.family={family}", "train.precision=fp32", "train.lr=1e-12")
    gpu, cpu = (
        execute(run(task, *words), RuntimeConfig(device=device)).predictions["scores"]
        for device in ("cuda", "cpu")
    )
    assert np.allclose(gpu, cpu, atol=1e-3)  # TF32 may be allowed


def test_memory_and_device_are_recorded(task):
    record = execute(run(task), RuntimeConfig(device="cuda")).record
    for kind in ("cuda_peak_allocated_bytes", "cuda_peak_reserved_bytes"):
        assert record.memory[kind]["train"] > 0
        assert record.memory[kind]["evaluate"] > 0
    allocated, reserved = (record.memory[f"cuda_peak_{k}_bytes"] for k in ("allocated", "reserved"))
    assert reserved["train"] >= allocated["train"]
    assert record.environment["device"] == torch.cuda.get_device_name(0)
    assert record.environment["cuda"] == torch.version.cuda
    assert record.energy_joules is None or record.energy_joules > 0


def test_out_of_memory_halves_the_micro_batch(task, monkeypatch):
    """A method that is refused batches of more than four; the rest is the run's own way."""
    from peftbench.methods.lora import LoRA

    compute = LoRA.compute_loss

    def refuse(self, model, batch):
        if len(batch["labels"]) > 4:
            raise torch.OutOfMemoryError("as CUDA says it")
        return compute(self, model, batch)

    monkeypatch.setattr(LoRA, "compute_loss", refuse)
    record = execute(run(task), RuntimeConfig(device="cuda")).record
    assert record.work["micro_batch_size"] == 4
    assert record.work["steps"] == 30
