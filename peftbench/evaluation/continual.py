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
        spent: of each round steps, examples, seconds of training, FLOPs, loss.
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
        loop.TrainingInterrupted: after `stop`; done rounds and a checkpoint of the one in flight
            stay.
    """
    setting, warm = replace(setting or RuntimeConfig(), save_weights=True), warm or WarmCache()
    run, asked = evaluation.run, _rounds(evaluation)
    device = device_of(setting)
    phases = measurement.Phases(device)
    sets = asked.sets(run, setting.data_root)
    rounds = list(asked.rounds(run, setting.data_root))
    total = sum(len(one.rows) for one in rounds)
    progress = load_progress(results, evaluation) or ContinualState()
    for number in range(len(progress.spent), len(rounds)):
        one, before = rounds[number], sum(len(earlier.rows) for earlier in rounds[:number])

        def told(news: Json, one: Round = one, before: int = before) -> None:
            done = before + news.get("fraction", 0.0) * len(one.rows)
            report(news | {"fraction": done / total})

        name = key_of_text(f"{evaluation.key} {number}")
        stage = ContinualStage(
            name,
            0 if one.at_once else number,  # its order and dropout are those of the run itself
            one.rows,
            None if one.at_once else progress.state,
            not asked.sequence,
            asked.posterior_as_prior and number > 0,
        )
        results.drop_drafts(name)
        outcome = trainer.execute(
            one.run, setting, stage=stage, results=results, warm=warm, report=told, stop=stop
        )
        assert outcome.trained is not None
        if not one.at_once:
            progress.state = load(outcome.trained)
        progress.spent.append(_spent(outcome))
        with phases.phase("evaluate"):
            if one.at_once:
                progress.found[f"{number}/validation"] = _known(outcome)
            else:
                _answer(progress, rounds, number, sets, outcome, setting, warm, device)
        save_progress(results, evaluation, progress)
        results.checkpoint(name).unlink(missing_ok=True)
    record = results.load(run.key)
    findings = evaluator.finite_findings(asked.findings(record, {}, progress.found))
    told_of = findings | {"spent": progress.spent}
    headline = told_of.pop("headline")
    backbone, _ = warm.backbone(run, device)
    last = evaluator.trained(backbone, build_method(run.method), rounds[-1].run, progress.state)
    done = Evaluated(
        evaluation=evaluation,
        findings=told_of | {"moved": evaluator.moved(last)},
        headline=headline,
        seconds=phases.seconds | {"train": sum(one["seconds"] for one in progress.spent)},
        environment=measurement.environment(device)
        | {"precision": record.environment["precision"]},
        trained_sha256=None,
    )
    found = progress.found.items()
    return done, {f"{kind}/{name}": a for name, arrays in found for kind, a in arrays.items()}


def _rounds(evaluation: Evaluation) -> Continual:
    asked = base.build_suite(evaluation.suite)
    assert isinstance(asked, Continual)
    return asked


def _spent(outcome: TrainingOutput) -> Json:
    record = outcome.record
    return {
        "examples": record.work["train_size"],
        "steps": record.work["steps"],
        "seconds": record.seconds["train"],
        "flops": record.flops,
        "loss": record.curve[-1]["loss"],
    }


def _answer(
    progress: ContinualState,
    rounds: list[Round],
    number: int,
    sets: dict[str, LabelledTexts],
    outcome: TrainingOutput,
    setting: RuntimeConfig,
    warm: WarmCache,
    device: torch.device,
) -> None:
    """Add the outputs on all sets that a round is asked about."""
    run = rounds[number].run
    backbone, tokenizer = warm.backbone(run, device)
    state = progress.state
    assert state is not None

    def head(name: str) -> bool:
        return any(within(name, path) for path in backbone.head)

    progress.heads[number] = {name: t.clone() for name, t in state.items() if head(name)}
    own = str(number) if "validation" not in sets else "validation"
    progress.found[f"{number}/{own}"] = _known(outcome)
    by_head: dict[int, list[str]] = {}
    for name, whose in rounds[number].asked.items():
        if name != own:
            by_head.setdefault(whose, []).append(name)
    for whose, names in by_head.items():
        there = rounds[whose].run
        unique, places = evaluator.distinct({name: sets[name] for name in names})
        tokens = prompting.coder(there, tokenizer, setting.data_root)(unique)
        whole = {n: t for n, t in state.items() if not head(n)} | progress.heads[whose]
        view = evaluator.viewed(
            there,
            build_method(there.method),
            whole,
            backbone,
            tokenizer,
            device,
            outcome.record.environment["precision"],
        )
        outputs = evaluator.outputs(view, there, tokens, lambda news: None)
        for name in names:
            arrays = {kind: array[places[name]] for kind, array in outputs.items()}
            progress.found[f"{number}/{name}"] = evaluator.labelled(arrays, sets[name], tokenizer)


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
