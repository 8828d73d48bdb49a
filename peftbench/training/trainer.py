"""A run to its record: the only place where every part meets."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from safetensors.torch import save
from transformers import PreTrainedTokenizerBase

from peftbench.core.run import Json, Record, Run
from peftbench.core.training_config import Budget, Recipe, Selection
from peftbench.data import augmentation, batching, loading, prompting, tokenization
from peftbench.methods.base import make
from peftbench.metrics import (
    evaluate_metrics,  # noqa: F401 - takes seconds to import, which no run's seconds may hold
    task_metrics,
)
from peftbench.models import checkpoints, masked_state
from peftbench.models.adapted_model import Encoder
from peftbench.models.optimize import settle
from peftbench.results.store import Results
from peftbench.training import checkpointing, cost_model, loop, measurement, requests
from peftbench.training.distributed import Peers
from peftbench.training.predictor import Predictor, build_batch_source
from peftbench.training.requests import Arrays, Asking, Outputs
from peftbench.training.runtime import Setting, accelerator_of, device_of
from peftbench.training.stage import Stage
from peftbench.training.warm_cache import Warm


@dataclass(frozen=True)
class Outcome:
    """What a run gave: its record, predictions of the reporting split, weights if kept."""

    record: Record
    predictions: dict[str, np.ndarray]
    trained: bytes | None


def execute(
    run: Run,
    setting: Setting | None = None,
    *,
    stage: Stage | None = None,
    results: Results | None = None,
    warm: Warm | None = None,
    report: Callable[[Json], None] = lambda news: None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train and score a run.

    Args:
        run: from `peftbench.plan`.
        setting: how and where.
        stage: what to train on and from instead, where the run is one of several trainings.
        results: where checkpoints of a long training go, and are found again; not the record.
        warm: what earlier runs of this process left.
        report: told now and then how far training is.
        stop: asked whether to write a checkpoint and leave.

    Raises:
        ConfigError: if data, weights or device are not to be had.
        FloatingPointError: if the loss is no longer finite.
        train.Interrupted: after `stop`.
    """
    setting, warm = setting or Setting(), warm or Warm()
    steps = None
    if run.budget.get("calibrated"):
        measured = cost_model.known(
            run,
            device_of(setting),
            results,
            lambda short: execute(short, setting, warm=warm, stop=stop).record,
        )
        steps = measured.steps(run)
    training = train_and_score(
        run,
        setting,
        stage=stage,
        results=results,
        warm=warm,
        report=report,
        stop=stop,
        steps=steps,
    )
    return requests.alone(training)


def train_and_score(
    run: Run,
    setting: Setting,
    *,
    stage: Stage | None = None,
    results: Results | None = None,
    warm: Warm | None = None,
    report: Callable[[Json], None] = lambda news: None,
    stop: Callable[[], bool] = lambda: False,
    steps: int | None = None,
    alike: bool = False,
) -> Asking[Outcome]:
    """What `execute` does, asking for each pass through the encoder.

    Args:
        steps: in place of the run's budget, where that is calibrated.
        alike: let word embeddings that train be those of all training texts, not of the run's own,
            so that runs of other sizes and seeds can be stacked; weight decay reaches the rest.
    """
    warm = warm or Warm()
    device = device_of(setting)
    micro = run.train["micro_batch"]
    while True:
        measurement.release_memory(device)
        try:
            return (
                yield from _attempt(
                    run, stage, micro, steps, alike, setting, device, results, warm, report, stop
                )
            )
        except torch.OutOfMemoryError:
            micro = micro or run.train["batch"]
            if micro == 1 or setting.processes > 1:  # the others would not know
                raise
            micro = (micro + 1) // 2


def _attempt(
    run: Run,
    stage: Stage | None,
    micro: int | None,
    steps: int | None,
    alike: bool,
    setting: Setting,
    device: torch.device,
    results: Results | None,
    warm: Warm,
    report: Callable[[Json], None],
    stop: Callable[[], bool],
) -> Asking[Outcome]:
    phases = measurement.Phases(device)
    recipe = replace(Recipe(**run.train), micro_batch=micro)
    budget, selection = Budget(**run.budget), Selection(**run.select)
    budget = budget if steps is None else Budget(steps=steps)
    method = make(run.method)
    half = recipe.precision == "bf16"
    accelerator = accelerator_of(device, half)
    peers = Peers(accelerator)
    parted = micro if peers.count == 1 else [micro, peers.count]
    with phases.phase("load"):
        backbone, tokenizer = warm.backbone(run, device)
    with phases.phase("tokenise"):
        tokens = {
            name: warm.tokenised(run, split, tokenizer, setting.data_root)
            for name, split in _splits(run).items()
        }
    key, seeds = run.key, run.seeds()
    if stage is None:
        rows, held = batching.split_rows(run, tokens["train"], selection, seeds["subset"])
    else:
        key, rows, held = stage.key, stage.rows, np.empty(0, dtype=np.int64)
        seeds |= {role: seeds[role] + stage.number for role in ("order", "dropout")}
    with phases.phase("tokenise"):
        encode = prompting.coder(run, tokenizer, setting.data_root)
        shown = augmentation.shown(run, tokens["train"], rows, setting.data_root, encode)
    with phases.phase("load"), torch.random.fork_rng():
        labels = tokens["train"].label[rows]
        start = float(labels.mean()) if run.task["classes"] == 1 else 0.0
        encoder = Encoder(backbone, run.task["classes"], seeds["head"], start, len(rows))
        torch.manual_seed(seeds["method"])
        method.insert(encoder)
    view = Predictor(
        tokenizer.pad_token_id, backbone.parts["mask"], device, method, encoder, accelerator
    )
    feed = build_batch_source(shown, recipe, seeds["order"], view)
    peers.same(encoder)
    with phases.phase("warmup"), torch.random.fork_rng(), accelerator.autocast():
        torch.manual_seed(seeds["method"])
        method.prepare(encoder, view.moved(feed.stream(0)))
        if stage is not None:
            stage.begin(encoder, method)
        parameters = encoder.counts()
        every = np.arange(len(shown.tokens)) if alike else shown.every
        settle(encoder, half, batching.words(shown.tokens, every, tokenizer.pad_token_id))
    names = run.task["metrics"]
    latest: Arrays = {}  # of the reporting split

    def outputs(name: str, items: np.ndarray) -> Asking[Arrays]:
        torch.manual_seed(seeds["sampling"])
        found = yield Outputs(view, tokens[name], items)
        assert isinstance(found, dict)
        return found

    def evaluate() -> Asking[Json]:
        nonlocal latest
        if len(held):
            found = yield from outputs("train", held)
        elif setting.curve_part < 1:
            count = max(2, round(setting.curve_part * len(tokens["validation"])))
            items = batching.subset(tokens["validation"], run.task["classes"], count, seed=0)
            found = yield from outputs("validation", np.sort(items))
        else:
            everything = np.arange(len(tokens["validation"]))
            found = latest = yield from outputs("validation", everything)
        return task_metrics.score(names, found["scores"], found["label"])

    hooks = loop.Hooks(
        evaluate=evaluate,
        better=lambda point: point[names[0]],
        report=report,
        stop=stop,
        save=lambda state, progress: checkpointing.save(results, key, parted, state, progress),
        minutes=setting.minutes,
    )
    saved = checkpointing.load(results, key, parted)
    energy = measurement.Energy(device)
    progress, flops = yield from loop.fit(
        view, recipe, budget, selection, feed, hooks, phases, seeds["dropout"], saved
    )
    joules = energy.joules() if saved is None else None
    with phases.phase("evaluate"), torch.random.fork_rng():
        if not latest:  # all of the reporting split has not been looked at yet
            latest = yield from outputs("validation", np.arange(len(tokens["validation"])))
        scored = {"": latest}
        for name in run.task["extra"]:
            scored[f"/{name}"] = yield from outputs(name, np.arange(len(tokens[name])))
    known = task_metrics.trivial(latest["label"], labels, run.task["classes"])
    record = Record(
        run=run,
        metrics={
            metric + suffix: value
            for suffix, found in scored.items()
            for metric, value in task_metrics.score(names, found["scores"], found["label"]).items()
        },
        trivial=task_metrics.score(names, known, latest["label"]),
        collapsed=task_metrics.collapsed(latest["scores"]),
        selection=None if progress.best is None else progress.curve[progress.best],
        curve=progress.curve,
        parameters=parameters,
        work={
            "steps": progress.step,
            "examples": progress.examples,
            "epochs": progress.examples / len(rows),
            "tokens": progress.tokens,
            "padded_tokens": progress.padded,
            "train_size": len(rows) + len(held),
            "held_out": len(held),
            "micro_batch": micro or recipe.batch,
            "overshoot_seconds": budget.overshoot(progress.seconds),
            "truncated": {n: t.truncated for n, t in tokens.items()} | shown.truncated,
            "resumed": saved is not None,
        },
        seconds=phases.seconds | {"train": progress.seconds},
        speed={
            "examples_per_second": progress.examples / progress.seconds,
            "tokens_per_second": progress.tokens / progress.seconds,
        },
        memory=phases.memory,
        energy_joules=joules,
        flops=flops,
        environment=measurement.environment(device, peers.count)
        | _provenance(run, setting, tokenizer),
    )
    predictions = {
        name + suffix: array for suffix, found in scored.items() for name, array in found.items()
    }
    kept = save(masked_state.packed(encoder.state())) if setting.keep == "trained" else None
    return Outcome(record, predictions, kept)


def _splits(run: Run) -> dict[str, str]:
    """The splits that a run reads: train, validation, and those scored besides."""
    named: dict[str, str] = run.task["splits"] | run.task["extra"]
    return named


def _provenance(run: Run, setting: Setting, tokenizer: PreTrainedTokenizerBase) -> Json:
    """What went in: data, weights and tokenizer, by hash."""
    folder = checkpoints.locate(run.model)
    return {
        "precision": run.train["precision"],
        "data": {
            split: loading.fingerprint(run.task, split, setting.data_root)[:16]
            for split in _splits(run).values()
        },
        "weights": None if folder is None else checkpoints.weights_hash(folder),
        "tokenizer": tokenization.tokenizer_hash(tokenizer)[:16],
    }
