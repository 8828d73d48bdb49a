"""What is measured beside a training: energy, as long as no other process has the GPU."""

import pynvml
import pytest

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
