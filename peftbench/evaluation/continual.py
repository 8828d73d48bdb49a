"""A suite that trains, to what it finds: round after round, each from the weights of the last."""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from safetensors.torch import load
from torch import Tensor

from peftbench.core.arrays import Arrays
from peftbench.core.errors import ConfigError, RecordError
from peftbench.core.evaluation import Evaluated, Evaluation
from peftbench.core.run import Json, canonical, key_of_text
from peftbench.core.runtime import RuntimeConfig
from peftbench.data import prompting
from peftbench.data.loading import LabelledTexts
from peftbench.evaluation import evaluator
from peftbench.methods import dry_run
from peftbench.methods.base import build_method
from peftbench.models.module_ops import within
from peftbench.results.store import ResultsFolder
from peftbench.suites import base
from peftbench.suites.continual import Continual, Round
from peftbench.training import checkpointing, measurement, trainer
from peftbench.training.continual_stage import ContinualStage
from peftbench.training.device import device_of
from peftbench.training.trainer import TrainingOutput
from peftbench.training.warm_cache import WarmCache

State = dict[str, Tensor]


@dataclass
class ContinualState:
    """How far a stream is: written after every round.

    Attributes:
        state: trained weights after the last round.
        heads: the head of each task, by its round, where tasks follow each other.
        found: outputs as `ROUND/SET`, then the kind of output.
        spent: of each round steps, examples, seconds of training and of answers, FLOPs, loss.
    """

    state: State | None = None
    heads: dict[int, State] = field(default_factory=dict)
    found: dict[str, Arrays] = field(default_factory=dict)
    spent: list[Json] = field(default_factory=list)


def validate_continual(evaluation: Evaluation) -> None:
    """Refuse a chain of priors for a method without posteriors, before anything is trained.

    Raises:
        ConfigError: saying so.
    """
    if not _rounds(evaluation).posterior_as_prior:
        return
    try:
        dry_run.validate_run(evaluation.run, posterior_as_prior=True)
    except ConfigError as error:
        raise ConfigError(
            f"{error}; suite.posterior_as_prior=false trains it in rounds all the same"
        ) from None


def run_continual(
    evaluation: Evaluation,
    results: ResultsFolder,
    setting: RuntimeConfig | None = None,
    *,
    warm: WarmCache | None = None,
    report: Callable[[Json], None] = lambda news: None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Evaluated, Arrays]:
    """Train the rounds of a stream that are not done yet.

    Arguments as of `evaluator.evaluate_suite`.

    Raises:
        ConfigError: if data cannot be loaded, or not as many as the chunks ask for.
        FloatingPointError: if the loss is no longer finite.
        TrainingInterrupted: after `stop`; done rounds and a checkpoint of the one in flight
            stay.
    """
    setting = replace(setting or RuntimeConfig(), save_weights=True)
    stream = _Stream.begin(evaluation, results, setting, warm or WarmCache())
    for number in range(len(stream.progress.spent), len(stream.rounds)):
        stream.make(number, report, stop)
    return stream.evaluated()


def _rounds(evaluation: Evaluation) -> Continual:
    asked = base.build_suite(evaluation.suite)
    assert isinstance(asked, Continual)
    return asked


@dataclass(frozen=True)
class _Stream:
    """The rounds of an evaluation, and how far they are.

    Attributes:
        sets: of texts that rounds are asked about, by name.
        phases: seconds of what is not training, in this process.
    """

    evaluation: Evaluation
    results: ResultsFolder
    setting: RuntimeConfig
    warm: WarmCache
    asked: Continual
    rounds: list[Round]
    sets: dict[str, LabelledTexts]
    progress: ContinualState
    device: torch.device
    phases: measurement.Phases

    @classmethod
    def begin(
        cls,
        evaluation: Evaluation,
        results: ResultsFolder,
        setting: RuntimeConfig,
        warm: WarmCache,
    ) -> "_Stream":
        """Before the first round that is missing."""
        asked, run, device = _rounds(evaluation), evaluation.run, device_of(setting)
        return cls(
            evaluation=evaluation,
            results=results,
            setting=setting,
            warm=warm,
            asked=asked,
            rounds=list(asked.rounds(run, setting.data_root)),
            sets=asked.sets(run, setting.data_root),
            progress=load_progress(results, evaluation) or ContinualState(),
            device=device,
            phases=measurement.Phases(device),
        )

    def make(self, number: int, report: Callable[[Json], None], stop: Callable[[], bool]) -> None:
        """Train a round, ask it about its sets, and write how far the stream is."""
        one, progress = self.rounds[number], self.progress
        before = sum(len(earlier.rows) for earlier in self.rounds[:number])
        total = before + sum(len(later.rows) for later in self.rounds[number:])

        def told(news: Json) -> None:
            parts = {
                name: (before + news.get(name, 0.0) * len(one.rows)) / total
                for name in ("fraction", "resumed")
            }
            report(news | parts)

        name = key_of_text(f"{self.evaluation.key} {number}")
        stage = ContinualStage(
            name,
            0 if one.at_once else number,  # its order and dropout are those of the run itself
            one.rows,
            None if one.at_once else progress.state,
            not self.asked.sequence,
            self.asked.posterior_as_prior and number > 0,
        )
        self.results.drop_drafts(name)
        outcome = trainer.execute(
            one.run,
            self.setting,
            stage=stage,
            results=self.results,
            warm=self.warm,
            report=told,
            stop=stop,
        )
        assert outcome.trained is not None
        if not one.at_once:
            progress.state = load(outcome.trained)
        already = self.phases.seconds["evaluate"]
        with self.phases.phase("evaluate"):
            if one.at_once:
                progress.found[f"{number}/validation"] = _known(outcome)
            else:
                self._answer(number, outcome)
        asking = self.phases.seconds["evaluate"] - already
        progress.spent.append(_spent(outcome) | {"evaluate_seconds": asking})
        save_progress(self.results, self.evaluation, progress)
        self.results.checkpoint(name).unlink(missing_ok=True)

    def _answer(self, number: int, outcome: TrainingOutput) -> None:
        """Add the outputs on all sets that a round is asked about."""
        one, progress = self.rounds[number], self.progress
        backbone, tokenizer = self.warm.backbone(one.run, self.device)
        state = progress.state
        assert state is not None

        def head(name: str) -> bool:
            return any(within(name, path) for path in backbone.head)

        progress.heads[number] = {name: t.clone() for name, t in state.items() if head(name)}
        own = str(number) if "validation" not in self.sets else "validation"
        progress.found[f"{number}/{own}"] = _known(outcome)
        by_head: dict[int, list[str]] = {}
        for name, whose in one.asked.items():
            if name != own:
                by_head.setdefault(whose, []).append(name)
        for whose, names in by_head.items():
            there = self.rounds[whose].run
            unique, places = evaluator.distinct({name: self.sets[name] for name in names})
            tokens = prompting.coder(there, tokenizer, self.setting.data_root)(unique)
            whole = {n: t for n, t in state.items() if not head(n)} | progress.heads[whose]
            view = evaluator.viewed(
                there,
                build_method(there.method),
                whole,
                backbone,
                tokenizer,
                self.device,
                outcome.record.environment["precision"],
            )
            outputs = evaluator.outputs(view, there, tokens, lambda news: None)
            for name in names:
                arrays = {kind: array[places[name]] for kind, array in outputs.items()}
                table = self.sets[name]
                found = evaluator.labelled(arrays, table, tokenizer, there.task)
                progress.found[f"{number}/{name}"] = found

    def evaluated(self) -> tuple[Evaluated, Arrays]:
        """What all rounds found, and their predictions as `KIND/ROUND/SET`."""
        run, progress = self.evaluation.run, self.progress
        record = self.results.load(run.key)
        findings = evaluator.finite_findings(self.asked.findings(record, {}, progress.found))
        findings |= {"spent": progress.spent}
        headline = findings.pop("headline")
        backbone, _ = self.warm.backbone(run, self.device)
        method, last = build_method(run.method), self.rounds[-1].run
        model = evaluator.trained(backbone, method, last, progress.state)
        done = Evaluated(
            evaluation=self.evaluation,
            findings=findings | {"moved": evaluator.moved(model)},
            headline=headline,
            seconds=self.phases.seconds
            | {
                "train": sum(one["seconds"] for one in progress.spent),
                # missing in rounds that an earlier version left
                "evaluate": sum(one.get("evaluate_seconds", 0.0) for one in progress.spent),
            },
            environment=measurement.environment(self.device)
            | {"precision": record.environment["precision"]},
            trained_sha256=None,
        )
        found = progress.found.items()
        return done, {f"{kind}/{name}": a for name, arrays in found for kind, a in arrays.items()}


def _spent(outcome: TrainingOutput) -> Json:
    record = outcome.record
    return {
        "examples": record.work["train_size"],
        "steps": record.work["steps"],
        "seconds": record.seconds["train"],
        "flops": record.flops,
        "loss": record.curve[-1]["loss"],
    }


def _known(outcome: TrainingOutput) -> Arrays:
    """What a training predicted on its reporting split."""
    return {n: a for n, a in outcome.predictions.items() if "/" not in n and n != "item"}


def save_progress(results: ResultsFolder, evaluation: Evaluation, progress: ContinualState) -> None:
    """Keep what the rounds until now gave, for when the command is given again."""
    tensors = {f"state.{name}": t for name, t in (progress.state or {}).items()}
    for number, head in progress.heads.items():
        tensors |= {f"heads.{number}.{name}": t for name, t in head.items()}
    for name, arrays in progress.found.items():
        tensors |= {f"found.{name}.{kind}": torch.from_numpy(a) for kind, a in arrays.items()}
    note = {"evaluation": evaluation.key, "spent": canonical(progress.spent)}
    body = checkpointing.sealed({n: t.detach().cpu().clone() for n, t in tensors.items()}, note)
    results.write(results.checkpoint(evaluation.key), body)


def load_progress(results: ResultsFolder, evaluation: Evaluation) -> ContinualState | None:
    """What earlier rounds gave, if it is there and whole."""
    path = results.checkpoint(evaluation.key)
    if not path.exists():
        return None
    try:
        tensors, note = checkpointing.unsealed(path)
    except RecordError as error:
        warnings.warn(f"{error}; the stream starts again", stacklevel=2)
        path.unlink(missing_ok=True)
        return None
    progress = ContinualState(spent=json.loads(note["spent"]), state={})
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "state":
            assert progress.state is not None
            progress.state[rest] = tensor
        elif kind == "heads":
            number, _, inner = rest.partition(".")
            progress.heads.setdefault(int(number), {})[inner] = tensor
        else:
            where, _, inner = rest.rpartition(".")
            progress.found.setdefault(where, {})[inner] = tensor.numpy()
    return progress
