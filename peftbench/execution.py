"""A run to its record: the only place where every part meets."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import save
from transformers import PreTrainedTokenizerBase

from peftbench import (
    batches,
    checkpoints,
    measure,
    metrics,
    pruning,
    resume,
    sources,
    tasks,
    train,
)
from peftbench.backbone import Backbone
from peftbench.batches import View
from peftbench.encoder import Encoder
from peftbench.method import make
from peftbench.recipe import Budget, Recipe, Selection
from peftbench.run import ConfigError, Json, Record, Run
from peftbench.settle import settle
from peftbench.store import Results
from peftbench.warm import Warm

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Setting:
    """How and where runs are executed; nothing that may change a score.

    Attributes:
        device: "auto", "cpu" or "cuda"; which GPU is the environment's business.
        threads: of the CPU; None is torch's choice.
        data_root: a folder of data sets in the hub's layout; None is the hub.
        keep: "trained" to return the trained weights, else "".
        minutes: between checkpoints of a long training.
        deterministic: use deterministic kernels on a GPU, which may cost a third of the speed.
        curve_part: of the reporting split that evaluations during training look at, a fixed
            stratified part; the score at the end is of all of it.
    """

    device: str = "auto"
    threads: int | None = None
    data_root: str | None = None
    keep: str = ""
    minutes: float = 10.0
    deterministic: bool = False
    curve_part: float = 1.0


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
    results: Results | None = None,
    warm: Warm | None = None,
    report: Callable[[Json], None] = lambda news: None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train and score a run.

    Args:
        run: from `peftbench.plan`.
        setting: how and where.
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
    device = prepare_device(setting)
    micro = run.train["micro_batch"]
    while True:
        measure.release_memory(device)
        try:
            return _attempt(run, micro, setting, device, results, warm, report, stop)
        except torch.OutOfMemoryError:
            micro = micro or run.train["batch"]
            if micro == 1:
                raise
            micro = (micro + 1) // 2


def prepare_device(setting: Setting) -> torch.device:
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
    return torch.device("cuda", 0)


def check(run: Run) -> None:
    """Refuse a run whose method its model cannot take, on a tiny model of its family.

    Raises:
        ConfigError: saying what the model lacks or which value is out of range.
    """
    method = make(run.method)
    model = run.model
    shape = model["parts"]["tiny"] | {"vocab_size": 264}
    skeleton = checkpoints.skeleton(model | {"shape": shape})
    encoder = Encoder(Backbone(model, loaded=skeleton), run.task["classes"], seed=0)
    encoder.rehearsal = True
    try:
        method.insert(encoder)
    except ValueError as error:
        raise ConfigError(f"method={run.method['name']} on {model['name']}: {error}") from error


def _attempt(
    run: Run,
    micro: int | None,
    setting: Setting,
    device: torch.device,
    results: Results | None,
    warm: Warm,
    report: Callable[[Json], None],
    stop: Callable[[], bool],
) -> Outcome:
    phases = measure.Phases(device)
    seeds = run.seeds()
    recipe = replace(Recipe(**run.train), micro_batch=micro)
    selection = Selection(**run.select)
    method = make(run.method)
    half = recipe.precision == "bf16"
    AcceleratorState._reset_state(True)  # a warm worker's runs differ in precision
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if half else "no")
    with phases.phase("load"):
        backbone, tokenizer = warm.backbone(run.model, device)
    with phases.phase("tokenise"):
        tokens = {
            name: warm.tokenised(run, split, tokenizer, setting.data_root)
            for name, split in _splits(run).items()
        }
    rows, held = batches.split_rows(run, tokens["train"], selection, seeds["subset"])
    with phases.phase("load"), torch.random.fork_rng():
        labels = tokens["train"].label[rows]
        start = float(labels.mean()) if run.task["classes"] == 1 else 0.0
        encoder = Encoder(backbone, run.task["classes"], seeds["head"], start, len(rows))
        torch.manual_seed(seeds["method"])
        method.insert(encoder)
    view = View(
        tokenizer.pad_token_id, backbone.parts["mask"], device, method, encoder, accelerator
    )
    feed = batches.feed(tokens["train"], rows, recipe, seeds["order"], view)
    with phases.phase("warmup"), torch.random.fork_rng(), accelerator.autocast():
        torch.manual_seed(seeds["method"])
        method.prepare(encoder, view.moved(feed.stream(0)))
        parameters = encoder.counts()
        settle(encoder, half, batches.words(tokens["train"], rows, tokenizer.pad_token_id))
    names = run.task["metrics"]
    latest: Arrays = {}  # of the reporting split

    def outputs(name: str, items: np.ndarray) -> Arrays:
        torch.manual_seed(seeds["sampling"])
        return view.predict(tokens[name], items)

    def evaluate() -> Json:
        nonlocal latest
        if len(held):
            found = outputs("train", held)
        elif setting.curve_part < 1:
            label, classes = tokens["validation"].label, run.task["classes"]
            items = sources.stratified(label, classes, seed=0)
            items = items[: max(2, round(setting.curve_part * len(items)))]
            found = outputs("validation", np.sort(items))
        else:
            found = latest = outputs("validation", np.arange(len(tokens["validation"])))
        return metrics.score(names, found["scores"], found["label"])

    hooks = train.Hooks(
        evaluate=evaluate,
        better=lambda point: point[names[0]],
        report=report,
        stop=stop,
        save=lambda state, progress: resume.save(results, run, micro, state, progress),
        minutes=setting.minutes,
    )
    saved = resume.load(results, run, micro)
    energy = measure.Energy(device)
    progress, flops = train.fit(
        encoder,
        method,
        recipe,
        Budget(**run.budget),
        selection,
        feed,
        hooks,
        accelerator,
        phases,
        seeds["dropout"],
        saved,
    )
    joules = energy.joules() if saved is None else None
    with phases.phase("evaluate"), torch.random.fork_rng():
        if not latest:  # all of the reporting split has not been looked at yet
            latest = outputs("validation", np.arange(len(tokens["validation"])))
        scored = {"": latest}
        for name in run.task["extra"]:
            scored[f"/{name}"] = outputs(name, np.arange(len(tokens[name])))
    known = metrics.trivial(latest["label"], labels, run.task["classes"])
    record = Record(
        run=run,
        metrics={
            metric + suffix: value
            for suffix, found in scored.items()
            for metric, value in metrics.score(names, found["scores"], found["label"]).items()
        },
        trivial=metrics.score(names, known, latest["label"]),
        collapsed=metrics.collapsed(latest["scores"]),
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
            "overshoot_seconds": _overshoot(run, progress.seconds),
            "truncated": {name: split.truncated for name, split in tokens.items()},
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
        environment=measure.environment(device) | _provenance(run, setting, tokenizer),
    )
    predictions = {
        name + suffix: array for suffix, found in scored.items() for name, array in found.items()
    }
    kept = save(pruning.packed(encoder.state())) if setting.keep == "trained" else None
    return Outcome(record, predictions, kept)


def _splits(run: Run) -> dict[str, str]:
    """The splits that a run reads: train, validation, and those scored besides."""
    named: dict[str, str] = run.task["splits"] | run.task["extra"]
    return named


def _overshoot(run: Run, seconds: float) -> float | None:
    return seconds - run.budget["seconds"] if "seconds" in run.budget else None


def _provenance(run: Run, setting: Setting, tokenizer: PreTrainedTokenizerBase) -> Json:
    """What went in: data, weights and tokenizer, by hash."""
    folder = checkpoints.locate(run.model)
    return {
        "precision": run.train["precision"],
        "data": {
            split: sources.fingerprint(run.task, split, setting.data_root)[:16]
            for split in _splits(run).values()
        },
        "weights": None if folder is None else checkpoints.weights_hash(folder),
        "tokenizer": tasks.tokenizer_hash(tokenizer)[:16],
    }
