"""What is measured beside a training: energy, if no other process has the GPU; its warm-up."""

from contextlib import nullcontext
from types import SimpleNamespace

import pynvml
import pytest
import torch

from peftbench.data.batching import BatchSource
from peftbench.training import measurement
from peftbench.training.measurement import Energy


@pytest.mark.parametrize(
    ("others", "joules"),
    [((0, 0, 0), 2.5), ((1, 0, 0), None), ((0, 1, 0), None), ((0, 0, 1), None)],
)
def test_energy_is_known_where_no_look_saw_another_process(others, joules, monkeypatch):
    counter, found = iter([1000.0, 2000.0, 3500.0]), iter(others)
    monkeypatch.setattr(measurement, "_nvml_handle", lambda device: "gpu")
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetComputeRunningProcesses", lambda handle: ["own"] * (1 + next(found))
    )
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", lambda handle: next(counter))
    energy = Energy(measurement.torch.device("cpu"))
    energy.look()
    assert energy.joules() == joules


@pytest.mark.parametrize(("rank", "rows"), [(0, [3, 1]), (1, [3, 1]), (2, [2, 1]), (3, [2, 1])])
def test_each_of_four_processes_warms_up_with_its_rows_of_a_batch(rank, rows, monkeypatch):
    """Of 10 and of one; a process without rows passes the first, as kernels are to be warm."""

    def passed(view, batch):
        assert batch["input_ids"].shape == (len(batch["labels"]), 8)
        seen.append(len(batch["labels"]))

    def batch(count):
        return {
            "input_ids": torch.zeros(count, 8, dtype=torch.int64),
            "labels": torch.zeros(count, dtype=torch.int64),
        }

    seen = []
    monkeypatch.setattr(measurement, "_pass", passed)
    monkeypatch.setattr(measurement, "kind_of", lambda view: "any")
    backbone = SimpleNamespace(warm=set(), flops={})
    view = SimpleNamespace(
        accelerator=SimpleNamespace(process_index=rank, num_processes=4),
        model=SimpleNamespace(backbone=backbone),
        device=torch.device("cpu"),
    )
    monkeypatch.setattr(measurement, "metered", lambda model, total: nullcontext([]))
    feed = BatchSource(2, iter, extremes=[batch(10)], shapes=[batch(10), batch(1)])
    measurement.warm_up(view, None, feed)
    assert seen == [*rows, rows[0]]  # of each shape, and one that counts products
