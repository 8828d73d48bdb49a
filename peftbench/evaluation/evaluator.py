"""An evaluation to what it finds: kept weights, sets of texts, one pass over them all."""

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from peftbench.core.arrays import Arrays
from peftbench.core.configs import GENERATE, WORDS, TaskConfig
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
from peftbench.results.store import ResultsFolder
from peftbench.suites import base
from peftbench.suites.base import Suite
from peftbench.suites.latency import Latency
from peftbench.training import measurement
from peftbench.training.device import device_of
from peftbench.training.precision import (
    AUTOCAST,
    build_accelerator,
    kept_precision,
    precision_note,
)
from peftbench.training.predictor import Predictor, require_finite
from peftbench.training.session import TrainingInterrupted
from peftbench.training.warm_cache import WarmCache

#: Examples whose outputs are on the device at once.
_PIECE = 512


def evaluate_suite(
    evaluation: Evaluation,
    results: ResultsFolder,
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
        TrainingInterrupted: after `stop`; nothing is kept.
    """
    setting, warm = setting or RuntimeConfig(), warm or WarmCache()
    run = evaluation.run
    device = device_of(setting)
    measurement.release_memory(device)
    phases = measurement.Phases(device)
    record = results.load(run.key)
    asked = base.build_suite(evaluation.suite)
    with phases.phase("load"):
        backbone, tokenizer = warm.backbone(run, device)
        state = load(results.weights(record))
    with phases.phase("tokenise"):
        sets = asked.sets(run, setting.data_root)
    # as it trained, whatever auto is here
    precision = kept_precision(record.environment["precision"], device)
    if note := precision_note(record.environment["precision"], precision):
        warnings.warn(note, stacklevel=2)
    kept = KeptModel(
        run, state, backbone.verbalizer_ids, tokenizer, warm, device, precision, report, stop
    )
    known = require_finite(results.predictions(record))
    if isinstance(asked, Latency):
        found = _timed(asked, kept, sets["texts"], setting.data_root, phases)
    else:
        found = _Found()
        for name in [name for name in sets if asked.recorded(name, run)]:
            del sets[name]  # nothing new would be found
            found.outputs[name] = {n: a for n, a in known.items() if "/" not in n and n != "item"}
            found.cut[name] = record.work["truncated"]["validation"]
        _predict(found, asked, kept, sets, setting.data_root, phases)
    backbone, _ = warm.backbone(run, device)
    told = finite_findings(asked.findings(record, known, found.outputs))
    told |= found.more | ({"truncated": found.cut} if run.prompt else {})
    headline = told.pop("headline")
    done = Evaluated(
        evaluation=evaluation,
        findings=told | {"moved": moved(trained(backbone, build_method(run.method), run, state))},
        headline=headline,
        seconds=phases.seconds,
        environment=measurement.environment(device) | {"precision": precision},
        trained_sha256=record.trained_sha256,
    )
    arrays = {
        f"{kind}/{name}": array
        for name, outputs_of in found.outputs.items()
        for kind, array in outputs_of.items()
        if kind != "text_sha256"  # 32 bytes a text that nothing compresses; findings have used them
    }
    return done, arrays


@dataclass(frozen=True)
class KeptModel:
    """The weights of a run, and what it takes to ask them.

    Attributes:
        verbalizer_ids: of the words that the run was trained with, where it has any.
        report, stop: as of `evaluate_suite`.
    """

    run: Run
    state: dict[str, Tensor]
    verbalizer_ids: list[int] | None
    tokenizer: PreTrainedTokenizerBase
    warm: WarmCache
    device: torch.device
    precision: str
    report: Callable[[Json], None] = lambda news: None
    stop: Callable[[], bool] = lambda: False

    def answer(
        self,
        asked_as: Run,
        tokens: TokenizedSplit,
        report: Callable[[Json], None] = lambda news: None,
        *,
        untrained: bool = False,
    ) -> Arrays:
        """Its outputs for texts, or those of the model that the training started from."""
        backbone, _ = self.warm.backbone(asked_as, self.device)
        method = Method() if untrained else build_method(self.run.method)
        state = None if untrained else self.state
        if state is not None and backbone.verbalizer_ids != self.verbalizer_ids:
            state = _for_other_words(state, backbone, self.verbalizer_ids or [])
        view = viewed(
            asked_as, method, state, backbone, self.tokenizer, self.device, self.precision
        )
        return outputs(view, asked_as, tokens, report, self.stop)


@dataclass
class _Found:
    """What a suite has its findings from.

    Attributes:
        outputs: by set, those of the model without training as `untrained/SET`.
        cut: how many texts of each set were too long.
        more: findings beside the suite's.
    """

    outputs: dict[str, Arrays] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    more: Json = field(default_factory=dict)


def _timed(
    asked: Latency,
    kept: KeptModel,
    texts: LabelledTexts,
    root: str | None,
    phases: measurement.Phases,
) -> _Found:
    """Seconds of passes in place of predictions."""
    run = kept.run
    with phases.phase("tokenise"):
        tokens = prompting.coder(run, kept.tokenizer, root)(texts)
    method = build_method(run.method)
    backbone, _ = kept.warm.backbone(run, kept.device)

    def view(precision: str, merged: bool) -> Predictor:
        return viewed(
            run, method, kept.state, backbone, kept.tokenizer, kept.device, precision, merged
        )

    with phases.phase("evaluate"), torch.random.fork_rng():
        torch.manual_seed(run.seeds()["sampling"])
        seconds, merging = latency.measure(
            asked, method, view, tokens, kept.precision, kept.report, kept.stop
        )
    return _Found(
        seconds | {"texts": {"label": texts.label}},
        {"texts": tokens.truncated},
        {"merging": merging.to_json()},
    )


def _predict(
    found: _Found,
    asked: Suite,
    kept: KeptModel,
    sets: dict[str, LabelledTexts],
    root: str | None,
    phases: measurement.Phases,
) -> None:
    """Predict on sets; those with the same prompt take one pass, each distinct text once."""
    passes: dict[tuple[Run, Any, str], list[str]] = {}  # for each prompt, and what is in front
    shown: dict[str, LabelledTexts | None] = {}
    for name in sets:
        one = shown[name] = asked.demonstrations(name, kept.run, root)
        front = canonical(one and [one.texts, one.targets or one.label.tolist()])
        key = (asked.asked_as(name, kept.run), asked.shown(name), front)
        passes.setdefault(key, []).append(name)
    texts = {key: distinct({name: sets[name] for name in names}) for key, names in passes.items()}
    every = sum(len(unique.label) for unique, _ in texts.values()) * (1 + asked.untrained)
    done = 0

    def report(news: Json) -> None:
        kept.report(news | {"fraction": (done + news["fraction"] * len(unique.label)) / every})

    for (asked_as, count, front), names in passes.items():
        with phases.phase("tokenise"):
            unique, places = texts[asked_as, count, front]
            encode = prompting.coder(asked_as, kept.tokenizer, root, count, shown[names[0]])
            tokens = encode(unique)
            found.cut |= {name: int(tokens.lost[rows].sum()) for name, rows in places.items()}
        with phases.phase("evaluate"):
            answers = {"": kept.answer(asked_as, tokens, report)}
            done += len(unique.label)
            if asked.untrained:
                answers["untrained/"] = _untrained(kept, asked_as, tokens, report)
                done += len(unique.label)
        for start, arrays in answers.items():
            for name, rows in places.items():
                found.outputs[start + name] = labelled(
                    {kind: array[rows] for kind, array in arrays.items()},
                    sets[name],
                    kept.tokenizer,
                    asked_as.task,
                )


def _untrained(
    kept: KeptModel, asked_as: Run, tokens: TokenizedSplit, report: Callable[[Json], None]
) -> Arrays:
    """Outputs of the model before training, once for all runs that start from the same one."""
    run = kept.run
    recipe = [run.train.max_length, kept.precision]
    # a head is drawn by its seed; demonstrations of the run's own are drawn by its subset's
    seeds = None if asked_as.prompt and asked_as.prompt.name in (WORDS, GENERATE) else run.seeds()
    same = [run.model, asked_as.task, asked_as.prompt, recipe, seeds, tokens.sha256]
    name = canonical(same)
    if name not in kept.warm.untrained:
        kept.warm.untrained[name] = kept.answer(asked_as, tokens, report, untrained=True)
    return kept.warm.untrained[name]


def _for_other_words(
    state: dict[str, Tensor], backbone: Backbone, known: list[int]
) -> dict[str, Tensor]:
    """Trained weights for other label words than the run's, or for these in another order.

    A word that the run trained keeps its row of the head; another has the row that it had before.
    Of a model that generates from its word embeddings (tied weights) the head is these, whatever
    rows of label words were trained beside them.

    Args:
        state: of the run.
        backbone: that scores the other words, or the whole vocabulary.
        known: tokens of the words that the run scored; none for the whole vocabulary.
    """
    module = backbone.module
    paths = {id(part): path for path, part in module.named_modules()}
    head = module.get_output_embeddings()
    table = f"{paths[id(module.get_input_embeddings())]}.weight"
    wanted, found = backbone.verbalizer_ids or [], dict(state)
    if not wanted and head.weight is module.get_input_embeddings().weight:
        for kind, _ in head.named_parameters():
            found.pop(f"{paths[id(head)]}.{kind}", None)
        return found
    place = {token: row for row, token in enumerate(known)} or {token: token for token in wanted}
    for kind, pretrained in head.named_parameters():
        name = f"{paths[id(head)]}.{kind}"
        trained = state.get(name)
        if trained is None and kind == "weight" and not known and module.config.tie_word_embeddings:
            trained = state.get(table)
        if trained is None:
            continue
        rows = pretrained.detach().to("cpu", trained.dtype, copy=True)
        for row, token in enumerate(wanted):
            if token in place:
                rows[row] = trained[place[token]]
        found[name] = rows
    return found


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


def moved(model: AdaptedModel) -> dict[str, float]:
    """How far the pretrained weights went, and how large the inserted ones are.

    Returns:
        `l2` and `mean_abs` of the change of all pretrained weights outside the head, `relative`,
        their change over their norm, and `inserted_l2`, the norm of the other trained ones.
    """
    outside = [p for name, p in model.pretrained.items() if not model.in_head(name)]
    squares = total = inserted = 0.0
    for name, p in model.trained().items():
        if model.in_head(name):
            continue
        start = model.pretrained_of(name)
        square, size = _sums(p, start)
        if start is None:
            inserted += square
        else:
            squares += square
            total += size
    return {
        "l2": math.sqrt(squares),
        "mean_abs": total / sum(p.numel() for p in outside),
        "relative": math.sqrt(squares / sum(_sums(p)[0] for p in outside)),
        "inserted_l2": math.sqrt(inserted),
    }


def _sums(tensor: Tensor, start: Tensor | None = None) -> tuple[float, float]:
    """Sums of the squares and of the absolute values of a tensor, or of what it is more than start.

    In fp64, of this tensor alone: all of a large model at once would not fit beside it.
    """
    values = tensor.detach().to(torch.float64, copy=True)  # of an fp64 model, too
    if start is not None:
        values -= start
    norm, size = (torch.linalg.vector_norm(values, order) for order in (2, 1))
    return float(norm) ** 2, float(size)


def trained(
    backbone: Backbone, method: Method, run: Run, state: dict[str, Tensor] | None
) -> AdaptedModel:
    """The model as it was after training, or before."""
    model = AdaptedModel(backbone, run.task.classes, run.seeds()["head"])
    if state is not None:
        with torch.random.fork_rng():
            method.insert(model)
        model.restore(state)
    return model


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
    """The same model for prediction alone, in a resolved precision, and how tokens get there.

    Raises:
        ValueError: if it is to be merged and cannot be.
    """
    model = trained(backbone, method, run, state)
    if merged:
        method.merge(model)
    model.requires_grad_(False)
    prepare_for_training(model, AUTOCAST.get(precision), torch.empty(0, dtype=torch.int64))
    accelerator = build_accelerator(device, precision, run.train.tf32)
    return Predictor(
        tokenizer.pad_token_id,
        backbone.family_config.mask,
        device,
        method,
        model,
        accelerator,
        decoding.of_run(run, tokenizer),
    )


def labelled(
    outputs: Arrays,
    table: LabelledTexts,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskConfig,
) -> Arrays:
    """Outputs with the labels of a set; texts that were written for a task, as their scores."""
    if table.targets is not None:
        outputs = decoding.scored(outputs, table.targets, tokenizer, task)
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
        TrainingInterrupted: after `stop`.
    """
    firsts, number = tokens.distinct()
    order = firsts[np.argsort(-tokens.lengths[firsts], kind="stable")]
    parts: list[Arrays] = []
    start = told = time.monotonic()
    done = 0

    def after(count: int) -> None:
        nonlocal told, done
        done, now = done + count, time.monotonic()
        if now - told > 1 or done == len(order):
            told = now
            report({"fraction": done / len(order), "speed": done / (now - start)})
        if stop():
            raise TrainingInterrupted("stopped; an evaluation starts again")

    with torch.random.fork_rng():
        torch.manual_seed(run.seeds()["sampling"])
        for first in range(0, len(order), _PIECE):
            parts.append(view.predict(tokens, order[first : first + _PIECE], after))
    names = [name for name in parts[0] if name != "label"]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in names}
    back = np.argsort(whole.pop("item"), kind="stable")[number]
    return {name: array[back] for name, array in whole.items()}
