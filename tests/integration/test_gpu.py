"""What only a GPU can show; skipped elsewhere."""

import re
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from peftbench.config.sweep import plan
from peftbench.core.runtime import RuntimeConfig
from peftbench.training import run_stack, step_graphs
from peftbench.training.packing.pack import Pack
from peftbench.training.trainer import TrainingJob, execute, requests_of
from peftbench.training.warm_cache import WarmCache

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]

GPU = RuntimeConfig(device="cuda")
STILL = "model.shape={hidden_dropout_prob:0.0,attention_probs_dropout_prob:0.0}"
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
    assert np.allclose(gpu, cpu, atol=1e-4)  # without TF32, which is off


def packed(given, setting=GPU):
    """What a pack makes of runs, by key."""
    warm = WarmCache()
    waiting = ((r.key, requests_of(TrainingJob(r, setting, warm, alike=True))) for r in given)
    left = {one.key: one for one in Pack(torch.device("cuda", 0), len(given)).train(waiting)}
    assert [one.error for one in left.values()] == [None] * len(given)
    return left


@pytest.mark.parametrize("method", ["lora", "bitfit", "adapter", "full"])
def test_a_run_scores_the_same_in_a_pack_alone_and_without_graphs(method, task, monkeypatch):
    words = ("model=tiny", STILL, f"method={method}", "train.precision=fp32", "train.num_evals=2")
    dropless = ["method.dropout=0"] if method == "lora" else []
    budget = ("budget=steps", "budget.steps=9")
    given = plan(*task, *words, *budget, *dropless, "seed=0,1", "size=24,40").runs
    monkeypatch.setattr(run_stack, "PAYS", 1)
    left = packed(given)
    alone = {run.key: execute(run, GPU) for run in given}
    monkeypatch.delitem(step_graphs.CAPTURE, "cuda")
    eager = {run.key: execute(run, GPU) for run in given}
    for key, mine in left.items():
        assert len(mine.shared) == 3
        assert mine.notes == ""
        graphs = alone[key].record.environment["graphs"]
        assert all(re.fullmatch(r"[1-9]\d* shapes captured", one) for one in (mine.graphs, graphs))
        assert eager[key].record.environment["graphs"] == "no graphs on cuda"
        for other in (mine.end, alone[key]):
            scores = (side.predictions["scores"] for side in (other, eager[key]))
            assert np.allclose(*scores, atol=1e-3)


def test_a_deterministic_pack_gives_the_same_bits_twice(task):
    """With dropout."""
    given = plan(*task, *WORDS, "method=lora", "seed=0,1,2", "size=24,40").runs
    first, second = (packed(given, replace(GPU, deterministic=True)) for _ in range(2))
    for key, one in first.items():
        assert one.shared
        scores = (side.end.predictions["scores"] for side in (one, second[key]))
        assert np.array_equal(*scores)


def test_fp16_follows_fp32(task):
    """The loss is scaled, and steps of gradients that overflow are left out."""
    found = {}
    for name in ("fp16", "fp32"):
        record = execute(run(task, "method=bitfit", f"train.precision={name}"), GPU).record
        assert record.environment["precision"] == name
        found[name] = [point["loss"] for point in record.curve]
    assert found["fp16"] == pytest.approx(found["fp32"], rel=0.1)


def test_tf32_is_used_where_it_is_asked_for(task):
    for asked, found in (("true", "high"), ("false", "highest")):
        record = execute(run(task, "train.precision=fp32", f"train.tf32={asked}"), GPU).record
        assert record.environment["tf32"] is (asked == "true")
        assert torch.get_float32_matmul_precision() == found


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
    with pytest.warns(UserWarning, match=r"starts again with train\.micro_batch_size=4"):
        record = execute(run(task), GPU).record
    assert record.work["micro_batch_size"] == 4
    assert record.work["steps"] == 30
