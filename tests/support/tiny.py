"""Runs, backbones and data small enough for tests, from the same yaml that real runs use."""

import csv
from functools import cache
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from peftbench.config import catalog
from peftbench.config.sweep import plan
from peftbench.core.configs import Budget, CheckpointSelection, TrainingConfig
from peftbench.core.run import Json, Run
from peftbench.data import batching
from peftbench.data.batching import Batch
from peftbench.data.tokenization import TokenizedSplit
from peftbench.methods.base import Method
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.training import loop, session
from peftbench.training.measurement import Phases
from peftbench.training.predictor import Predictor
from peftbench.training.state import TrainerState

METHODS = sorted(catalog.options("method", (catalog.packaged(),)))
MODELS = sorted(catalog.options("model", (catalog.packaged(),)))
FAMILIES = sorted(path.stem for path in (catalog.packaged() / "model_family").glob("*.yaml"))


#: Weights wide enough that what is at the bottom of a random model is felt at its top.
WIDE = "model.shape={initializer_range:0.1}"


@cache
def one_run(*words: str) -> Run:
    """The one run that words mean, on a tiny model unless they name one."""
    named = any(word.startswith("model=") for word in words)
    (run,) = plan(*words, *([] if named else ["model=tiny"])).runs
    return run


@cache
def backbone(family: str) -> Backbone:
    """The tiny backbone of a family. Its tensors are shared: nothing may write to them."""
    with torch.inference_mode(False):  # whoever asks first, others will train beside it
        return Backbone(one_run(f"model.family={family}", WIDE).model)


def tokens(
    examples: int = 8, classes: int = 2, seed: int = 0, pairs: bool = False
) -> TokenizedSplit:
    """Examples of 6 to 12 tokens whose first one is their own, so that any head can tell them."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(6, 13, examples)
    ids = [generator.integers(4, 264, length) for length in lengths]
    for number, row in enumerate(ids):
        row[0] = 4 + number % 260
    labels = np.arange(examples) % max(2, classes)
    types = [np.arange(length) >= length // 2 for length in lengths if pairs]
    return TokenizedSplit(
        ids=np.concatenate(ids).astype(np.int32),
        types=np.concatenate([np.zeros(0), *types]).astype(np.uint8),
        ends=np.cumsum(lengths).astype(np.int64),
        label=labels.astype(np.float32 if classes == 1 else np.int64),
        truncated=0,
    )


def own_task(folder: Path, train: int = 48, held: int = 24) -> tuple[str, ...]:
    """Words for a task out of two small files, written here: is the first letter a vowel?"""
    generator = np.random.default_rng(0)
    for name, count in (("train", train), ("validation", held)):
        with open(folder / f"{name}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["sentence", "label"])
            for number in range(count):
                first = "aeioubcdfg"[number % 10]
                rest = "".join(generator.choice(list("hjklmn "), generator.integers(4, 12)))
                writer.writerow([first + rest, "vowel" if first in "aeiou" else "other"])
    paths = f"task.path='{folder}/train.csv'", f"task.validation_path='{folder}/validation.csv'"
    return ("task=file", "task.name=own", *paths)


def batch(examples: TokenizedSplit, family: str) -> Batch:
    """All examples as one batch for a tiny model of the family."""
    mask = one_run(f"model.family={family}").model.family_config.mask
    return batching.collate(examples, np.arange(len(examples)), 0, mask)


def recipe(**changes: object) -> TrainingConfig:
    """A recipe for a handful of steps: constant rate, fp32, one batch of eight."""
    given = {
        "batch_size": 8,
        "micro_batch_size": None,
        "lr": 1e-2,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0.0,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "precision": "fp32",
        "max_length": 128,
        "num_evals": 1,
    }
    return TrainingConfig(**given | changes)  # type: ignore[arg-type]


def training(
    model: AdaptedModel, method: Method, examples: Batch, steps: int, **changes: object
) -> session.Training:
    """A training on one batch, again and again; nothing is written."""
    AcceleratorState._reset_state(True)
    batches = batching.BatchSource(
        epoch=1, stream=lambda step: iter(lambda: dict(examples), None), extremes=[examples]
    )
    callbacks = session.TrainerCallbacks(
        report=lambda news: None,
        stop=lambda: False,
        save=lambda tensors, progress: None,
        minutes=10.0,
    )
    cpu, accelerator = torch.device("cpu"), Accelerator(cpu=True, mixed_precision="no")
    mask = model.backbone.family_config.mask
    return session.Training(
        Predictor(0, mask, cpu, method, model, accelerator),
        recipe(**changes),
        session.StoppingRule(Budget(steps=steps), CheckpointSelection(), "accuracy"),
        batches,
        callbacks,
        Phases(cpu),
        seed=0,
    )


def fit(
    model: AdaptedModel, method: Method, examples: Batch, steps: int, **changes: object
) -> TrainerState:
    """Train on one batch, again and again, with the loop of real runs."""
    made = training(model, method, examples, steps, **changes)
    loop.run_alone(loop.fit(made, _no_scores))
    return made.state


def _no_scores() -> loop.Requests[Json]:
    """Of an evaluation that asks for nothing."""
    yield from ()
    return {}
