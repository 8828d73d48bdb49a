"""Train one run and build its record."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from safetensors.torch import save
from transformers import PreTrainedTokenizerBase

from peftbench.core.arrays import Arrays
from peftbench.core.configs import Budget, TrainingConfig
from peftbench.core.run import Json, Record, Run
from peftbench.core.runtime import RuntimeConfig
from peftbench.data import augmentation, batching, loading, prompting, tokenization
from peftbench.data.augmentation import AugmentedSplit
from peftbench.data.tokenization import TokenizedSplit
from peftbench.methods.base import Method, build_method
from peftbench.metrics import task_metrics, text_scores
from peftbench.models import decoding, masked_state, pretrained
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.models.prepare_for_training import prepare_for_training
from peftbench.models.sparse_embedding import SparseEmbedding
from peftbench.results.store import ResultsFolder
from peftbench.system import io
from peftbench.training import checkpointing, cost_model, loop, measurement
from peftbench.training.continual_stage import ContinualStage
from peftbench.training.device import device_of
from peftbench.training.distributed import ProcessGroup
from peftbench.training.measurement import ALLOCATED, Energy, Phases
from peftbench.training.precision import AUTOCAST, build_accelerator, resolve_precision
from peftbench.training.predictor import PredictionOutOfMemory, Predictor, build_batch_source
from peftbench.training.run_stack import captured_alone
from peftbench.training.session import StoppingRule, TrainerCallbacks, Training
from peftbench.training.step_graphs import StepGraphs
from peftbench.training.warm_cache import WarmCache

#: The split that is reported.
REPORTED = "validation"

#: Tokens of the held-out examples of a task that wants texts, see `TaskData`.
HELD = "held_out"

#: Of a regression's training labels, in the work of its record.
LABEL_UNIT = ("label_mean", "label_std")


@dataclass(frozen=True)
class TrainingOutput:
    """What a run gave: its record, predictions of the reporting split, weights if kept."""

    record: Record
    predictions: dict[str, np.ndarray]
    trained: bytes | None


@dataclass(frozen=True)
class TrainingJob:
    """A training to be made, and what surrounds it.

    Attributes:
        run: what is trained.
        setting: how and where.
        warm: what earlier runs of this process left.
        stage: what to train on and from instead, where the run is one of several trainings.
        results: where checkpoints of a long training go, and are found again; not the record.
        report: gets how far the training is, now and then.
        stop: whether to write a checkpoint and leave.
        steps: in place of the run's budget, where that is calibrated.
        alike: whether it shares passes with other runs. Word embeddings that train are then those
            of all training texts, not of the run's own, so that runs of other sizes and seeds can
            be stacked; weight decay reaches the rest. Memory and energy are not measured.
    """

    run: Run
    setting: RuntimeConfig = field(default_factory=RuntimeConfig)
    warm: WarmCache = field(default_factory=WarmCache)
    stage: ContinualStage | None = None
    results: ResultsFolder | None = None
    report: Callable[[Json], None] = lambda news: None
    stop: Callable[[], bool] = lambda: False
    steps: int | None = None
    alike: bool = False

    @property
    def key(self) -> str:
        """Names the checkpoint."""
        return self.run.key if self.stage is None else self.stage.key

    @property
    def splits(self) -> dict[str, str]:
        """The splits that it reads: train, and unless it is a trial all that are reported."""
        named: dict[str, str] = self.run.task.splits | self.run.task.extra
        return {"train": named["train"]} if self.setting.trial else named

    @property
    def extra(self) -> list[str]:
        """The splits that are reported besides."""
        return [] if self.setting.trial else list(self.run.task.extra)

    @property
    def budget(self) -> Budget:
        """What the training may spend."""
        return self.run.budget if self.steps is None else Budget(steps=self.steps)

    def seeds(self) -> dict[str, int]:
        """The seed of each role; order and dropout differ from stage to stage."""
        seeds = self.run.seeds()
        if self.stage is not None:
            seeds |= {role: seeds[role] + self.stage.number for role in ("order", "dropout")}
        return seeds


def execute(
    run: Run,
    setting: RuntimeConfig | None = None,
    *,
    stage: ContinualStage | None = None,
    results: ResultsFolder | None = None,
    warm: WarmCache | None = None,
    report: Callable[[Json], None] = lambda news: None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainingOutput:
    """Train and score a run.

    Args:
        run: from `peftbench.plan`.
        setting: how and where.
        stage, results, warm, report, stop: see `TrainingJob`.

    Raises:
        ConfigError: if data, weights or device are not available.
        FloatingPointError: if the loss is no longer finite.
        TrainingInterrupted: after `stop`.
    """
    setting, warm = setting or RuntimeConfig(), warm or WarmCache()
    job = TrainingJob(run, setting, warm, stage, results, report, stop)
    if run.budget.calibrated:
        measured = cost_model.known(
            run,
            device_of(setting),
            results,
            lambda short: execute(short, setting, warm=warm, stop=stop).record,
            setting.trial,
            stop,
        )
        job = replace(job, steps=measured.steps(run))
    return loop.run_alone(requests_of(job))


def requests_of(job: TrainingJob) -> loop.Requests[TrainingOutput]:
    """All that a job wants computed; where memory is short, again with smaller micro-batches.

    Raises:
        ConfigError, FloatingPointError, TrainingInterrupted: see `execute`.
        torch.OutOfMemoryError: where one example is too much, and in predictions.
    """
    micro = _first_micro_batch(job)
    while True:
        try:
            return (yield from _attempt(job, micro))
        except torch.OutOfMemoryError as error:
            if isinstance(error, PredictionOutOfMemory):
                raise
            smaller = _smaller_micro_batch(job, micro)
            if smaller is None:
                raise
            loop.release(error)
        micro = smaller
        measurement.release_memory(device_of(job.setting))  # what the error held is free by now


def _attempt(job: TrainingJob, micro: int | None) -> loop.Requests[TrainingOutput]:
    prepared = prepare(job, micro)
    yield from loop.fit(prepared.training, prepared.evaluate)
    with prepared.reporting():
        predictions = {}
        for name, rows in prepared.unreported().items():
            predictions[name] = yield from prepared.predict(name, rows)
    return prepared.outcome(predictions)


def _first_micro_batch(job: TrainingJob) -> int | None:
    """The run's micro-batch, or what memory left of it in the training that it continues."""
    asked = job.run.train.micro_batch_size
    if job.results is None or job.setting.processes > 1:
        return asked
    kept = checkpointing.micro_batch_of(job.results, job.key, device_of(job.setting).type)
    return kept if kept is not None and kept < (asked or job.run.train.batch_size) else asked


def _smaller_micro_batch(job: TrainingJob, micro: int | None) -> int | None:
    """Half the micro-batch, after one for which there was no memory; None if it cannot be less."""
    micro = micro or job.run.train.batch_size
    if micro == 1 or job.setting.processes > 1:  # the others would not know
        return None
    smaller = (micro + 1) // 2
    warnings.warn(
        f"no memory for {micro} examples in a pass; the run starts again with "
        f"train.micro_batch_size={smaller}",
        stacklevel=2,
    )
    return smaller


@dataclass(frozen=True)
class TaskData:
    """The data of a run, resolved.

    Attributes:
        tokens: by split: train, validation, and those scored besides; where texts are to be
            written, `HELD` are the held-out examples without them, which would take their room.
        rows: numbers of the training examples.
        held: numbers of the training examples held out for selection.
        shown: what the training shows of the first; labels of a regression as z-scores.
        unit: mean and standard deviation of the training labels of a regression.
        targets: by split the texts that are wanted, where the task is to write some.
    """

    tokens: dict[str, TokenizedSplit]
    rows: np.ndarray
    held: np.ndarray
    shown: AugmentedSplit
    unit: tuple[float, float] | None = None
    targets: dict[str, list[str]] | None = None

    @property
    def labels(self) -> np.ndarray:
        """Labels of the training examples."""
        return self.tokens["train"].label[self.rows]


def load_task_data(
    job: TrainingJob, tokenizer: PreTrainedTokenizerBase, seed: int, phases: Phases
) -> TaskData:
    """Tokenize the splits of a run and choose its training examples.

    Args:
        job: of the run.
        tokenizer: of its model.
        seed: of the subset.
        phases: the clock.

    Raises:
        ConfigError: if the data cannot be loaded.
    """
    run, root = job.run, job.setting.data_root
    with phases.phase("tokenise"):
        tokens = {
            name: job.warm.tokenised(
                run, split, tokenizer, root, asked=run.task.generation and name != "train"
            )
            for name, split in job.splits.items()
        }
    if job.stage is None:
        rows, held = batching.split_rows(run, tokens["train"], run.checkpoint_selection, seed)
    else:
        rows, held = job.stage.rows, np.empty(0, dtype=np.int64)
    with phases.phase("tokenise"):
        encode = prompting.coder(run, tokenizer, root)
        shown = augmentation.augment_split(run, tokens["train"], rows, root, encode)
    if run.task.generation:
        tables = {n: loading.load_split(run.task, s, root) for n, s in job.splits.items()}
        if len(held):
            tables[HELD] = tables["train"].take(held)
            with phases.phase("tokenise"):
                tokens[HELD] = encode(tables[HELD].asked())
        targets = {name: table.targets or [] for name, table in tables.items()}
        return TaskData(tokens, rows, held, shown, targets=targets)
    if not run.task.regression:
        return TaskData(tokens, rows, held, shown)
    mean, std = batching.label_unit(tokens["train"].label[rows])
    scores = ((shown.tokens.label.astype(np.float64) - mean) / std).astype(np.float32)
    shown = replace(shown, tokens=replace(shown.tokens, label=scores))
    return TaskData(tokens, rows, held, shown, (mean, std))


def build_model(
    run: Run, backbone: Backbone, data: TaskData, seeds: dict[str, int]
) -> tuple[AdaptedModel, Method]:
    """The run's model with its method inserted, and the method."""
    method = build_method(run.method)
    model = AdaptedModel(backbone, run.task.classes, seeds["head"], len(data.rows))
    if data.unit is not None:
        model.standardise(*data.unit)
    torch.manual_seed(seeds["method"])
    method.insert(model)
    return model, method


@dataclass
class PreparedTraining:
    """A training that is ready to start, and what its record is made of.

    Attributes:
        job: what is trained.
        data: of the run.
        training: not started, or restored from a checkpoint.
        parameters: counts, as in a record.
        resumed: whether it continues from a checkpoint.
        energy: of the GPU, counted from now on.
        tokenizer: of the model.
        joules: of the GPU until the last evaluation of the curve, once that is over.
        graphs: how its steps are launched, where it trains alone on a GPU.
        reported: outputs on the whole reporting split, as of the latest evaluation of all of it; of
            a trial, which is evaluated once, those on what it holds out.
    """

    job: TrainingJob
    data: TaskData
    training: Training
    parameters: dict[str, int]
    resumed: bool
    energy: Energy
    tokenizer: PreTrainedTokenizerBase
    reported: Arrays | None = None
    joules: float | None = None
    graphs: StepGraphs | None = None

    def curve_rows(self) -> tuple[str, np.ndarray]:
        """The split and the examples on which the curve is measured."""
        if HELD in self.data.tokens:
            return HELD, np.arange(len(self.data.held))
        if len(self.data.held):
            return "train", self.data.held
        whole = self.data.tokens[REPORTED]
        part = self.job.setting.curve_part
        if part == 1:
            return REPORTED, np.arange(len(whole))
        count = max(2, round(part * len(whole)))
        return REPORTED, np.sort(batching.subset(whole, self.job.run.task.classes, count, seed=0))

    def predict(self, split: str, rows: np.ndarray | None = None) -> loop.Requests[Arrays]:
        """Outputs on examples of a split, all of them by default."""
        tokens = self.data.tokens[split]
        torch.manual_seed(self.job.seeds()["sampling"])  # methods that sample draw the same again
        rows = np.arange(len(tokens)) if rows is None else rows
        with self.training.predictor.model.in_unit():  # of the labels
            outputs = yield loop.PredictRequest(self.training, tokens, rows)
        assert isinstance(outputs, dict)
        if self.data.targets is None:
            return outputs
        wanted = [self.data.targets[split][row] for row in rows]
        return decoding.scored(outputs, wanted, self.tokenizer, self.job.run.task)

    def evaluate(self) -> loop.Requests[Json]:
        """The scores of a point on the curve."""
        split, rows = self.curve_rows()
        return self._score(split, rows, (yield from self.predict(split, rows)))

    def _score(self, split: str, rows: np.ndarray, outputs: Arrays) -> Json:
        """The scores of outputs; those that the record is made of are kept."""
        self.energy.look()
        whole = split == REPORTED and len(rows) == len(self.data.tokens[REPORTED])
        if whole or self.job.setting.trial:
            self.reported = outputs
        return task_metrics.score(self.job.run.task.metrics, outputs["scores"], outputs["label"])

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """The clock of the predictions that are reported; that of training has stopped.

        From here on the head gives the unit of the labels.
        """
        self.training.predictor.model.to_unit()
        if not self.resumed:  # else the energy before the checkpoint is unknown
            self.joules = self.energy.joules()
        with self.training.phases.phase("evaluate"), torch.random.fork_rng():
            yield

    def unreported(self) -> dict[str, np.ndarray]:
        """Examples, by split, that the record needs and that nothing predicted on since training.

        Those of a trial are the ones of its curve: a resumed one may have passed that point before.
        """
        rows = {n: np.arange(len(self.data.tokens[n])) for n in self.job.extra}
        return rows if self.reported is not None else dict([self._reported_rows()]) | rows

    def evaluated(self) -> int:
        """Examples that are predicted on, those of each point of the curve once for each."""
        points = len(self.training.state.curve) * len(self.curve_rows()[1])
        return points + sum(len(rows) for rows in self.unreported().values())

    def _reported_rows(self) -> tuple[str, np.ndarray]:
        if self.job.setting.trial:
            return self.curve_rows()
        return REPORTED, np.arange(len(self.data.tokens[REPORTED]))

    def outcome(self, predictions: dict[str, Arrays]) -> TrainingOutput:
        """The record, from predictions on the `unreported` splits."""
        split, _ = self._reported_rows()
        first = self.reported if self.reported is not None else predictions[split]
        found = {"": first} | {f"/{n}": predictions[n] for n in self.job.extra}
        record = build_record(self, found)
        arrays = {
            name + suffix: array for suffix, one in found.items() for name, array in one.items()
        }
        state = self.training.predictor.model.state
        kept = self.job.setting.save_weights
        return TrainingOutput(record, arrays, save(masked_state.packed(state())) if kept else None)


def prepare(job: TrainingJob, micro: int | None) -> PreparedTraining:
    """Load data and model, insert the method, and make all ready to train.

    Args:
        job: what is trained.
        micro: examples for each forward pass; None is the whole batch.

    Raises:
        ConfigError: if data, weights or device are not available.
        torch.OutOfMemoryError: if the micro-batch is too large.
    """
    run, setting, seeds = job.run, job.setting, job.seeds()
    device = device_of(setting)
    if not job.alike:  # those that it shares passes with hold theirs
        measurement.release_memory(device)
    phases = Phases(device, shared=job.alike)
    precision = resolve_precision(run.train.precision, device)
    config = replace(run.train, micro_batch_size=micro, precision=precision)
    accelerator = build_accelerator(device, precision, config.tf32)
    with phases.phase("load"):
        backbone, tokenizer = job.warm.backbone(run, device)
    data = load_task_data(job, tokenizer, seeds["subset"], phases)
    with phases.phase("load"), torch.random.fork_rng():
        model, method = build_model(run, backbone, data, seeds)
    predictor = Predictor(
        tokenizer.pad_token_id,
        backbone.family_config.mask,
        device,
        method,
        model,
        accelerator,
        decoding.of_run(run, tokenizer),
    )
    batches = build_batch_source(data.shown, config, seeds["order"], predictor)
    ProcessGroup(accelerator).same(model)
    with phases.phase("warmup"), torch.random.fork_rng(), accelerator.autocast():
        torch.manual_seed(seeds["method"])
        parameters = _begin(job, predictor, data, batches, config)
    ProcessGroup(accelerator).same(model)  # what each process scored by itself, such as masks
    checkpoint = checkpointing.Checkpoint(job.results, job.key, _made_with(job, predictor, config))
    saved = checkpoint.load()
    training = Training(
        predictor,
        config,
        StoppingRule(job.budget, run.checkpoint_selection, run.task.metric),
        batches,
        TrainerCallbacks(job.report, job.stop, checkpoint.save, setting.minutes),
        phases,
        seeds["dropout"],
        saved,
    )
    prepared = PreparedTraining(
        job, data, training, parameters, saved is not None, Energy(None), tokenizer
    )
    if predictor.static_shapes:
        _warm_shapes(prepared, batches)
    if not job.alike and ProcessGroup(accelerator).count == 1:  # else other GPUs use some too
        prepared.energy = Energy(device)  # that of the passes before is not the training's
    return prepared


def _begin(
    job: TrainingJob,
    predictor: Predictor,
    data: TaskData,
    batches: batching.BatchSource,
    config: TrainingConfig,
) -> dict[str, int]:
    """What happens to a model before its first step; returns counts of its parameters."""
    model, method = predictor.model, predictor.method
    model.micro_batch_size = config.micro_batch_size
    method.on_train_begin(model, predictor.moved(batches.stream(0)))
    if job.stage is not None:
        job.stage.begin(model, method)
    parameters = model.counts()
    shown = data.shown
    every = np.arange(len(shown.tokens)) if job.alike else shown.every
    prepare_for_training(
        model,
        AUTOCAST.get(config.precision),
        batching.occurring_ids(shown.tokens, every, predictor.padding),
        config.gradient_checkpointing,
    )
    return parameters


def _made_with(job: TrainingJob, predictor: Predictor, config: TrainingConfig) -> Json:
    """What decides figures of a training beside its key: a checkpoint is of the same alone."""
    modules = predictor.model.module.modules()
    part = 1 if job.run.checkpoint_selection.fraction else job.setting.curve_part
    return {
        "device": predictor.device.type,
        "processes": ProcessGroup(predictor.accelerator).count,
        "steps": job.steps,  # measured, of a calibrated budget
        "micro_batch_size": config.micro_batch_size,
        # word embeddings are those of the run alone, or of all training texts
        "words": [len(m.weight) for m in modules if isinstance(m, SparseEmbedding)],
        "precision": config.precision,
        **({"curve_part": part} if part < 1 else {}),  # points of a curve are of the same examples
        # of what was chosen by scores, which may turn out otherwise with other sums
        "trained": io.digest("\n".join(sorted(predictor.model.trained())).encode())[:12],
    }


def _warm_shapes(prepared: PreparedTraining, batches: batching.BatchSource) -> None:
    """Meet every shape of evaluations and steps before a clock runs."""
    job = prepared.job
    _warm_evaluation(prepared)
    if not job.alike and job.budget.steps != 0:  # it trains alone
        with prepared.training.phases.phase("warmup"):
            prepared.graphs = captured_alone(prepared.training, batches.shapes)


def _warm_evaluation(prepared: PreparedTraining) -> None:
    """Predict once, for the first run of a kind, so that no shape is new while a clock runs."""
    predictor, phases = prepared.training.predictor, prepared.training.phases
    kind = measurement.kind_of(predictor)
    split, rows = prepared.curve_rows()
    for name, some in ((split, rows), *((name, None) for name in prepared.job.extra)):
        count = len(prepared.data.tokens[name]) if some is None else len(some)
        if measurement.first_of(predictor, f"predict {name}", kind, (count,)):
            with phases.phase("warmup"), torch.random.fork_rng():
                loop.run_alone(prepared.predict(name, some))


def build_record(prepared: PreparedTraining, found: dict[str, Arrays]) -> Record:
    """The record of a training that is over.

    Args:
        prepared: what was trained.
        found: outputs by the suffix of their split's metrics; "" is the reporting split, or what a
            trial holds out, of which `selection` has the scores.
    """
    trial = prepared.job.setting.trial
    run, data, training = prepared.job.run, prepared.data, prepared.training
    state, phases = training.state, training.phases
    names, whole = task_metrics.reported(run.task.metrics, run.task.classes), found[""]
    return Record(
        run=run,
        metrics=dict.fromkeys(names)
        if trial
        else {
            metric + suffix: value
            for suffix, one in found.items()
            for metric, value in task_metrics.score(names, one["scores"], one["label"]).items()
        },
        trivial=dict.fromkeys(names) if trial else _trivial(run, names, whole, data),
        collapsed=task_metrics.one_answer(whole),
        selection=None if state.best is None else state.curve[state.best],
        curve=state.curve,
        parameters=prepared.parameters,
        work={
            "steps": state.step,
            "examples": state.examples,
            "epochs": state.examples / len(data.rows),
            "tokens": state.tokens,
            "padded_tokens": state.padded,
            "train_size": len(data.rows) + len(data.held),
            "held_out": len(data.held),
            "evaluated": prepared.evaluated(),
            "micro_batch_size": training.config.micro_batch_size or training.config.batch_size,
            "overshoot_seconds": training.ends.budget.overshoot(state.seconds),
            "truncated": {n: t.truncated for n, t in data.tokens.items() if n != HELD}
            | data.shown.truncated,
            "resumed": prepared.resumed,
            **({"trial": True} if trial else _reported_work(run, whole)),
            **({"curve_examples": part} if (part := _curve_part(prepared)) else {}),
            **({"undefined": state.undefined} if state.undefined else {}),
            **({"out_of_range": far} if (far := _out_of_range(run, whole, data)) else {}),
            **({} if data.unit is None else dict(zip(LABEL_UNIT, data.unit, strict=True))),
        },
        seconds=phases.seconds | {"train": state.seconds},
        speed={
            "examples_per_second": state.examples / state.seconds if state.seconds else None,
            "tokens_per_second": state.tokens / state.seconds if state.seconds else None,
        },
        memory=_memory(prepared),
        energy_joules=prepared.joules,
        flops=training.flops,
        environment=measurement.environment(
            phases.device, ProcessGroup(training.predictor.accelerator).count
        )
        | {"precision": training.config.precision}
        | ({"tf32": training.config.tf32} if phases.device.type == "cuda" else {})
        | ({"graphs": prepared.graphs.told} if prepared.graphs else {})
        | _provenance(prepared.job, prepared.tokenizer)
        | {"new_parts": training.predictor.model.backbone.new_parts},
    )


def _curve_part(prepared: PreparedTraining) -> int | None:
    """Examples of the curve, where it is of a part of the reporting split; None else."""
    split, rows = prepared.curve_rows()
    whole = split != REPORTED or len(rows) == len(prepared.data.tokens[REPORTED])
    return None if whole else len(rows)


def _trivial(
    run: Run, names: list[str], outputs: Arrays, data: TaskData
) -> dict[str, float | None]:
    """Scores of a constant prediction, which knows the training labels or texts alone."""
    if data.targets is not None:
        known = [data.targets["train"][row] for row in data.rows]
        text = text_scores.constant(known, names[0], run.task.rouge_tokens)
        wanted = data.targets[REPORTED]
        found = text_scores.of_texts([text] * len(wanted), wanted, run.task.rouge_tokens)
        return task_metrics.score(names, found, outputs["label"])
    constant = task_metrics.trivial(outputs["label"], data.labels, run.task.classes)
    return task_metrics.score(names, constant, outputs["label"])


def _reported_work(run: Run, outputs: Arrays) -> Json:
    """What the record says of classes, or of the texts that were written."""
    if run.task.generation:
        return {"texts": _texts(run, outputs)}
    return {"per_class": _per_class(run, outputs)} if run.task.kind == "classification" else {}


def _texts(run: Run, outputs: Arrays) -> Json:
    """Lengths of the texts that were written, and how many are empty."""
    empty = (outputs["text_sha256"] == decoding.digests([""])).all(axis=1)
    lengths = task_metrics.text_lengths(outputs, run.task.new_tokens)
    return lengths | {"empty": int(empty.sum())}


def _out_of_range(run: Run, outputs: Arrays, data: TaskData) -> int:
    if not run.task.regression:
        return 0
    return task_metrics.out_of_range(outputs["scores"], outputs["label"], data.labels)


def _per_class(run: Run, outputs: Arrays) -> list[Json]:
    names = run.task.class_names or [str(number) for number in range(run.task.classes)]
    return task_metrics.per_class(outputs["scores"], outputs["label"], names)


def _memory(prepared: PreparedTraining) -> Json:
    """Peak bytes by phase; a replayed step allocates nothing, so its memory is that of the step."""
    memory = prepared.training.phases.memory
    if prepared.graphs is None or prepared.graphs.refused is not None or ALLOCATED not in memory:
        return memory
    peaks = memory[ALLOCATED]
    return memory | {ALLOCATED: peaks | {"train": max(peaks["train"], prepared.graphs.peak_bytes)}}


def _provenance(job: TrainingJob, tokenizer: PreTrainedTokenizerBase) -> Json:
    """What went in: data, weights and tokenizer, by hash."""
    run, root = job.run, job.setting.data_root
    folder = pretrained.locate(run.model)
    return {
        "data": {
            split: loading.fingerprint(run.task, split, root)[:16] for split in job.splits.values()
        },
        "weights": None if folder is None else pretrained.weights_hash(folder),
        "tokenizer": tokenization.tokenizer_hash(tokenizer)[:16],
    }
