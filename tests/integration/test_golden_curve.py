"""A stored loss curve: what must not change results leaves it as it is.

`python tests/integration/test_golden_curve.py` writes it again, in a change
that says why under "Results changed".
"""

import json
import tempfile
from pathlib import Path

import pytest
import tiny
import torch
from paths import GOLDEN

from peftbench.config.sweep import plan
from peftbench.core.runtime import RuntimeConfig
from peftbench.training.trainer import execute

STORED = GOLDEN / "lora_curve.json"

WORDS = (
    "model=tiny",
    tiny.WIDE,
    "method=lora",
    "budget=steps",
    "budget.steps=40",
    "train.precision=fp32",
    "train.lr=3e-2",
    "train.num_evals=8",
)


def curve(folder: Path) -> list[dict[str, float | None]]:
    """Train on a CPU and return loss and scores along the way."""
    (run,) = plan(*tiny.own_task(folder), *WORDS).runs
    points = execute(run, RuntimeConfig(device="cpu", threads=1)).record.curve
    return [{name: point[name] for name in ("step", "loss", "accuracy", "f1")} for point in points]


def test_curve_is_the_stored_one(tmp_path):
    stored = json.loads(STORED.read_text())["curve"]
    found = curve(tmp_path)
    assert stored[-1]["loss"] < stored[0]["loss"] - 0.05, "a curve that falls says more"
    assert len(found) == len(stored)
    for point, expected in zip(found, stored, strict=True):
        assert point == pytest.approx(expected, abs=1e-4)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = {"torch": torch.__version__, "curve": curve(Path(folder))}
    STORED.write_text(json.dumps(found, indent=1) + "\n")
