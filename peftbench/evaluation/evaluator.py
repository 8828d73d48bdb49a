"""An evaluation to what it finds: kept weights, sets of texts, one pass over them all."""

import math
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor

from peftbench.core.evaluation import Evaluated, Evaluation
from peftbench.core.figures import plain_figures
from peftbench.core.run import Json, Run, canonical
from peftbench.data import prompting
from peftbench.data.loading import LabelledTexts
from peftbench.data.tokenization import TokenizedSplit
from peftbench.evaluation import latency
from peftbench.methods.base import Method, build_method
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.models.prepare_for_training import prepare_for_training
from peftbench.results.store import Results
from peftbench.suites import base
from peftbench.suites.base import Arrays
from peftbench.suites.latency import Latency
from peftbench.training import measurement
from peftbench.training.loop import TrainingInterrupted
from peftbench.training.precision import AUTOCAST, build_accelerator, resolve_precision
from peftbench.training.predictor import Predictor, require_finite
from peftbench.training.runtime import RuntimeConfig, device_of
from peftbench.training.warm_cache import WarmCache

#: Examples between two reports of progress, roughly.
_PIECE = 512


def evaluate_suite(
    evaluation: Evaluation,
    results: Results,
    setting: RuntimeConfig | None = None,
    *,
    warm: WarmCache | None = None,
    report: Callable[[Json], None] = lambda news: None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Evaluated, Arrays]:
    """Ask the kept weights of a run what a suite wants to know.

    Args:
        evaluation: from `peftbench.plan`.
        results: where the run's record, predictions and weights are.
        setting: how and where.
        warm: what earlier jobs of this process left.
        report: told now and then how far it is.
        stop: asked whether to leave.

    Returns:
        What was found, and the predictions as `NAME/SET`.

    Raises:
        ConfigError: if the weights were not kept, or data cannot be loaded.
        RecordError: if a file is not what was saved.
        FloatingPointError: if predictions, or what a suite makes of them, are not finite.
        loop.TrainingInterrupted: after `stop`; nothing is kept.
    """
    setting, warm = setting or RuntimeConfig(), warm or WarmCache()
    run = evaluation.run
    device = device_of(setting)
    measurement.release_memory(device)
    phases = measurement.Phases(device)
    record = results.load(run.key)
    asked = base.build_suite(evaluation.suite)
    # as it trained, whatever auto is here
    precision = resolve_precision(record.environment["precision"], device)
    with phases.phase("load"):
        backbone, tokenizer = warm.backbone(run, device)
        state = load(results.weights(record))
    with phases.phase("tokenise"):
        sets = asked.sets(run, setting.data_root)

    def answer(method: Method, state: dict[str, Tensor] | None, tokens: TokenizedSplit) -> Arrays:
        view = viewed(run, method, state, backbone, tokenizer.pad_token_id, device, precision)
        return outputs(view, run, tokens, report, stop)

    found: dict[str, Arrays] = {}
    cut: dict[str, int] = {}
    more: Json = {}
    if isinstance(asked, Latency):
        with phases.phase("tokenise"):
            tokens = prompting.coder(run, tokenizer, setting.data_root)(sets["texts"])
            cut["texts"] = tokens.truncated
        method = build_method(run.method)

        def view(precision: str, merged: bool) -> Predictor:
            padding = tokenizer.pad_token_id
            return viewed(run, method, state, backbone, padding, device, precision, merged)

        with phases.phase("evaluate"), torch.random.fork_rng():
            torch.manual_seed(run.seeds()["sampling"])
            found, merging = latency.measure(asked, method, view, tokens, precision, report, stop)
        found["texts"] = {"label": sets["texts"].label}
        more = {"merging": merging.to_json()}
        sets = {}
    for shown in dict.fromkeys(map(asked.shown, sets)):  # one pass for each number in front
        with phases.phase("tokenise"):
            unique, places = distinct({n: t for n, t in sets.items() if asked.shown(n) == shown})
            tokens = prompting.coder(run, tokenizer, setting.data_root, shown)(unique)
            cut |= dict.fromkeys(places, tokens.truncated)
        with phases.phase("evaluate"):
            answers = {"": answer(build_method(run.method), state, tokens)}
            if asked.untrained:
                recipe = [run.train.max_length, precision]
                same = canonical([run.model, run.task, run.prompt, recipe, run.seeds()])
                name = f"{same} {canonical([evaluation.suite, shown])}"
                if name not in warm.untrained:
                    warm.untrained[name] = answer(Method(), None, tokens)
                answers["untrained/"] = warm.untrained[name]
        for start, arrays in answers.items():
            for name, rows in places.items():
                found[start + name] = {kind: array[rows] for kind, array in arrays.items()}
                found[start + name]["label"] = sets[name].label
    known = require_finite(results.predictions(record))
    told = finite_findings(asked.findings(record, known, found))
    told |= more | ({"truncated": cut} if run.prompt else {})
    headline = told.pop("headline")
    done = Evaluated(
        evaluation=evaluation,
        findings=told | {"moved": moved(trained(backbone, build_method(run.method), run, state))},
        headline=headline,
        seconds=phases.seconds,
        environment=measurement.environment(device) | {"precision": precision},
        trained_sha256=record.trained_sha256,
    )
    return done, {f"{n}/{name}": a for name, arrays in found.items() for n, a in arrays.items()}


def finite_findings(findings: Json) -> Json:
    """The findings of a suite as plain data; figures that are not finite are None, and named.

    `undefined` in what is returned has their names, where there are any.

    Raises:
        FloatingPointError: if one of the headline is not finite: it is the suite's score.
        TypeError: for a figure that a record cannot hold.
    """
    plain, undefined = plain_figures(findings)
    for name in undefined:
        if name.startswith("headline"):
            raise FloatingPointError(f"{name} of the suite is not finite")
        warnings.warn(f"{name} of the suite is not finite; it is recorded as null", stacklevel=2)
    return dict(plain) | ({"undefined": undefined} if undefined else {})


def moved(encoder: AdaptedModel) -> dict[str, float]:
    """How far the pretrained weights went, and how large the inserted ones are.

    Returns:
        `l2` and `mean_abs` of the change of all pretrained weights outside the head, `relative`,
        their change over their norm, and `inserted_l2`, the norm of the other trained ones.
    """
    pretrained = {n: p.double() for n, p in encoder.pretrained.items() if not encoder.in_head(n)}
    trained = {n: p.detach().double() for n, p in encoder.trained().items()}
    change = {name: p - pretrained[name] for name, p in trained.items() if name in pretrained}
    squares = sum(float((t * t).sum()) for t in change.values())
    norm = sum(float((p * p).sum()) for p in pretrained.values())
    count = sum(p.numel() for p in pretrained.values())
    inserted = [
        p for name, p in trained.items() if name not in pretrained and not encoder.in_head(name)
    ]
    return {
        "l2": math.sqrt(squares),
        "mean_abs": sum(float(t.abs().sum()) for t in change.values()) / count,
        "relative": math.sqrt(squares / norm),
        "inserted_l2": math.sqrt(sum(float((t * t).sum()) for t in inserted)),
    }


def trained(
    backbone: Backbone, method: Method, run: Run, state: dict[str, Tensor] | None
) -> AdaptedModel:
    """The encoder as it was after training, or before."""
    encoder = AdaptedModel(backbone, run.task.classes, run.seeds()["head"])
    if state is not None:
        with torch.random.fork_rng():
            method.insert(encoder)
        encoder.restore(state)
    return encoder


def viewed(
    run: Run,
    method: Method,
    state: dict[str, Tensor] | None,
    backbone: Backbone,
    padding: int,
    device: torch.device,
    precision: str,
    merged: bool = False,
) -> Predictor:
    """The same encoder for prediction alone, in a resolved precision, and how tokens get there.

    Raises:
        ValueError: if it is to be merged and cannot be.
    """
    encoder = trained(backbone, method, run, state)
    if merged:
        method.merge(encoder)
    encoder.requires_grad_(False)
    prepare_for_training(encoder, AUTOCAST.get(precision), torch.empty(0, dtype=torch.int64))
    accelerator = build_accelerator(device, precision, run.train.tf32)
    return Predictor(padding, backbone.family_config.mask, device, method, encoder, accelerator)


def distinct(sets: dict[str, LabelledTexts]) -> tuple[LabelledTexts, dict[str, np.ndarray]]:
    """All distinct texts of the sets, and where in them those of each set are.

    Noise leaves many texts as they are: each is predicted on once.
    """
    numbers: dict[tuple[str, ...], int] = {}
    places = {
        name: np.array(
            [numbers.setdefault(row, len(numbers)) for row in zip(*t.texts, strict=True)]
        )
        for name, t in sets.items()
    }
    columns = [list(column) for column in zip(*numbers, strict=True)]
    return LabelledTexts(columns, np.zeros(len(numbers), dtype=np.int64)), places


def outputs(
    view: Predictor,
    run: Run,
    tokens: TokenizedSplit,
    report: Callable[[Json], None],
    stop: Callable[[], bool] = lambda: False,
) -> Arrays:
    """Outputs for all examples; the longest come first, so that too little memory shows at once.

    Texts that differ may be one example to the model (casing, to an uncased one): it answers once.

    Raises:
        loop.TrainingInterrupted: after `stop`.
    """
    firsts, number = tokens.distinct()
    order = firsts[np.argsort(-tokens.lengths[firsts], kind="stable")]
    parts: list[Arrays] = []
    start = time.monotonic()
    with torch.random.fork_rng():
        torch.manual_seed(run.seeds()["sampling"])
        for first in range(0, len(order), _PIECE):
            parts.append(view.predict(tokens, order[first : first + _PIECE]))
            done = min(len(order), first + _PIECE)
            report({"fraction": done / len(order), "speed": done / (time.monotonic() - start)})
            if stop():
                raise TrainingInterrupted("stopped; an evaluation starts again")
    names = [name for name in parts[0] if name != "label"]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in names}
    back = np.argsort(whole.pop("item"), kind="stable")[number]
    return {name: array[back] for name, array in whole.items()}
