"""An evaluation to what it finds: kept weights, sets of texts, one pass over them all."""

import math
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from peftbench.core.arrays import Arrays
from peftbench.core.evaluation import Evaluated, Evaluation
from peftbench.core.figures import plain_figures
from peftbench.core.run import Json, Run, canonical
from peftbench.core.runtime import RuntimeConfig
from peftbench.data import prompting
from peftbench.data.loading import LabelledTexts
from peftbench.data.tokenization import TokenizedSplit
from peftbench.evaluation import latency
from peftbench.methods.base import Method, build_method
from peftbench.models import decoding
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.models.prepare_for_training import prepare_for_training
from peftbench.results.store import Results
from peftbench.suites import base
from peftbench.suites.latency import Latency
from peftbench.training import measurement
from peftbench.training.device import device_of
from peftbench.training.loop import TrainingInterrupted
from peftbench.training.precision import AUTOCAST, build_accelerator, resolve_precision
from peftbench.training.predictor import Predictor, require_finite
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

    own_words = backbone.verbalizer_ids

    def answer(
        asked_as: Run, method: Method, state: dict[str, Tensor] | None, tokens: TokenizedSplit
    ) -> Arrays:
        there, _ = warm.backbone(asked_as, device)
        if state is not None and there.verbalizer_ids != own_words:
            state = _for_other_words(state, there, run.task.generation)
        view = viewed(asked_as, method, state, there, tokenizer, device, precision)
        return outputs(view, asked_as, tokens, report, stop)

    found: dict[str, Arrays] = {}
    cut: dict[str, int] = {}
    more: Json = {}
    if isinstance(asked, Latency):
        with phases.phase("tokenise"):
            tokens = prompting.coder(run, tokenizer, setting.data_root)(sets["texts"])
            cut["texts"] = tokens.truncated
        method = build_method(run.method)

        def view(precision: str, merged: bool) -> Predictor:
            return viewed(run, method, state, backbone, tokenizer, device, precision, merged)

        with phases.phase("evaluate"), torch.random.fork_rng():
            torch.manual_seed(run.seeds()["sampling"])
            found, merging = latency.measure(asked, method, view, tokens, precision, report, stop)
        found["texts"] = {"label": sets["texts"].label}
        more = {"merging": merging.to_json()}
        sets = {}
    known = require_finite(results.predictions(record))
    passes: dict[tuple[int | None, Run], list[str]] = {}  # for each number in front, and prompt
    for name in sets:
        if asked.recorded(name, run):  # nothing new would be found
            found[name] = {n: a for n, a in known.items() if "/" not in n and n != "item"}
            cut[name] = record.work["truncated"]["validation"]
            continue
        passes.setdefault((asked.shown(name), asked.asked_as(name, run)), []).append(name)
    for (shown, asked_as), names in passes.items():
        with phases.phase("tokenise"):
            unique, places = distinct({name: sets[name] for name in names})
            tokens = prompting.coder(asked_as, tokenizer, setting.data_root, shown)(unique)
            cut |= dict.fromkeys(places, tokens.truncated)
        with phases.phase("evaluate"):
            answers = {"": answer(asked_as, build_method(run.method), state, tokens)}
            if asked.untrained:
                recipe = [run.train.max_length, precision]
                same = [run.model, asked_as.task, asked_as.prompt, recipe, run.seeds()]
                name = f"{canonical(same)} {canonical([evaluation.suite, shown])}"
                if name not in warm.untrained:
                    warm.untrained[name] = answer(asked_as, Method(), None, tokens)
                answers["untrained/"] = warm.untrained[name]
        for start, arrays in answers.items():
            for name, rows in places.items():
                found[start + name] = labelled(
                    {kind: array[rows] for kind, array in arrays.items()}, sets[name], tokenizer
                )
    backbone, _ = warm.backbone(run, device)
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


def _for_other_words(
    state: dict[str, Tensor], backbone: Backbone, whole: bool
) -> dict[str, Tensor]:
    """Trained weights for other label words than the run's.

    Args:
        state: of the run.
        backbone: that scores the other words.
        whole: whether the run trained with the whole vocabulary, of which these rows are a part;
            else the head has the rows that it had before.
    """
    module = backbone.module
    paths = {id(part): path for path, part in module.named_modules()}
    head, table = (
        f"{paths[id(part)]}.weight"
        for part in (module.get_output_embeddings(), module.get_input_embeddings())
    )
    rest = {name: tensor for name, tensor in state.items() if name != head}
    trained = state.get(head)
    if trained is None and module.config.tie_word_embeddings:
        trained = state.get(table)
    if whole and trained is not None:
        rest[head] = trained[backbone.verbalizer_ids]
    return rest


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
    tokenizer: PreTrainedTokenizerBase,
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
    return Predictor(
        tokenizer.pad_token_id,
        backbone.family_config.mask,
        device,
        method,
        encoder,
        accelerator,
        decoding.of_run(run, tokenizer),
    )


def labelled(outputs: Arrays, table: LabelledTexts, tokenizer: PreTrainedTokenizerBase) -> Arrays:
    """Outputs with the labels of a set; texts that were written as their scores."""
    if table.targets is not None:
        outputs = decoding.scored(outputs, table.targets, tokenizer)
    return outputs | {"label": table.label}


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
