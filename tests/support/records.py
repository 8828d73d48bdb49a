"""Records made by hand, for tests of what is done with records."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from peftbench.config.sweep import plan
from peftbench.core.run import Json, Record, Run

TINY = (
    "model=tiny",
    "size=32",
    "train.max_length=16",
    "budget=steps",
    "budget.steps=4",
    "train.num_evals=1",
)

ENVIRONMENT: Json = {
    "python": "3.11.7",
    "libraries": {"peftbench": "0.1.0", "torch": "2.11.0"},
    "device": "Some CPU",
    "cores": 2,
    "threads": 1,
    "cuda": None,
    "deterministic": False,
    "commit": "0123456789abcdef",
    "dirty": False,
    "precision": "bf16",
}


def tiny(*words: str) -> list[str]:
    """The words after those of `TINY`, in place of the ones with the same key."""
    given = {word.partition("=")[0] for word in words}
    if not given & {"budget", "sweep"}:
        return [*(word for word in TINY if word.partition("=")[0] not in given), *words]
    rest = [word for word in TINY if not word.startswith("budget")]
    return [*(word for word in rest if word.partition("=")[0] not in given), *words]


@cache
def runs(*words: str) -> list[Run]:
    """The runs that words mean beside `TINY`."""
    return plan(*tiny(*words)).runs


def record(run: Run, score: float | None = 0.75, **changes: Any) -> Record:
    """A record of the run; every metric has the same score."""
    made = Record(
        run=run,
        metrics=dict.fromkeys(run.task.metrics, score),
        trivial=dict.fromkeys(run.task.metrics, 0.5),
        collapsed=False,
        selection=None,
        curve=[
            {"step": 4, "fraction": 1.0, "seconds": 2.0, "examples": 64, "loss": 0.5}
            | dict.fromkeys(run.task.metrics, score)
        ],
        parameters={"trained": 2048, "head": 66, "total": 40000},
        work={
            "steps": 4,
            "examples": 64,
            "epochs": 2.0,
            "tokens": 900,
            "padded_tokens": 1000,
            "train_size": run.train_size(3000),
            "held_out": 0,
            "micro_batch_size": 16,
            "overshoot_seconds": None,
            "truncated": {"train": 0, "validation": 0},
        },
        seconds={"load": 0.5, "tokenise": 0.25, "warmup": 0.25, "train": 2.0, "evaluate": 1.0},
        speed={"examples_per_second": 32.0, "tokens_per_second": 450.0},
        memory={"cpu_peak_rss_bytes": {"train": 100 * 2**20, "evaluate": 90 * 2**20}},
        energy_joules=None,
        flops=1.5e9,
        environment=ENVIRONMENT,
    )
    return replace(made, **changes)


def predictions(examples: int = 5) -> dict[str, np.ndarray]:
    """Predictions of a binary task."""
    scores = np.linspace(-1, 1, 2 * examples, dtype=np.float32).reshape(examples, 2)
    return {"item": np.arange(examples), "label": np.arange(examples) % 2, "scores": scores}
