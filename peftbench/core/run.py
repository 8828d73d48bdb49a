"""A run and its record: plain data, and the key that says which runs are the same.

Nothing here is imported but the standard library, so that planning, status and reports stay light.
"""

import copy
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from peftbench.core.configs import (
    AugmentationConfig,
    Budget,
    CheckpointSelection,
    Config,
    Json,
    MethodConfig,
    ModelConfig,
    PromptConfig,
    TaskConfig,
    TrainingConfig,
)
from peftbench.core.errors import ConfigError, OtherSchemaError, RecordError
from peftbench.core.text import one_line

#: Raised when a change makes an existing run score differently; part of every key.
PROTOCOL = 1

#: Raised when the fields of a record change; a reader refuses any other.
SCHEMA = 2

#: Brings the records of a results folder from schema 1 to 2.
MIGRATION = "scripts/migrate_records.py"

#: Keys of a node, at any depth, that cannot change a score: prose, where the same bytes or the same
#: code are found, and memory that is paid for with time. A node may hold them, a key never depends
#: on them.
ASIDE = frozenset(
    {
        *("about", "family_config", "package", "path", "validation_path", "examples"),
        *("hub_rows_sha256", "wheels", "weights_note", "_target_", "gradient_checkpointing"),
    }
)

#: What `train` may hold without changing what a step computes.
STEP_FREE = (
    *("lr", "lr_scheduler_type", "warmup_steps", "weight_decay"),
    *("max_grad_norm", "num_evals"),
)

#: What tables call the rows of runs that train no step.
UNTRAINED = "untrained"

#: What a run draws at random, each from a seed of its own, so that two methods with one seed see
#: the same examples in the same order and start from the same head. Their names are part of what is
#: hashed: another name is another seed. The override `seed.order=3` gives one role the seed that it
#: has in the run with seed=3.
ROLES = ("subset", "order", "head", "method", "dropout", "sampling", "augment")


def canonical(value: Any) -> str:
    """Write plain data as the one JSON text that equal data share (sorted keys, 8.0 as 8).

    Raises:
        ValueError: if a number is not finite.
        TypeError: if something is not JSON.
    """
    return _CANONICAL.encode(_plain(value))


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int):
        return value  # most are; the check for a Mapping takes longest
    if isinstance(value, Config):
        return _plain(value.to_json())
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def leaves(node: Json, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """What is in objects inside each other, by dotted path; a list is one value."""
    for name, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def flattened(node: Json) -> Json:
    """Scalars by path; a method inside a method also by its name; lists as canonical JSON."""
    found: Json = {}
    for path, value in leaves(node):
        found[path] = canonical(value) if isinstance(value, list) else value
        if path.startswith("run.method") and path.endswith(".name"):
            found[path.removesuffix(".name")] = value
    return found


def identity(value: Any) -> Any:
    """A node, or a config, without what cannot change a score, `ASIDE`."""
    if isinstance(value, Config):
        value = value.json
    if isinstance(value, Mapping):
        return {name: identity(inner) for name, inner in value.items() if name not in ASIDE}
    return value


def refuse_aside(
    what: str,
    at: str,
    node: Mapping[str, Any],
    counted: Iterable[str] = (),
    deep: bool = False,
) -> None:
    """Refuse settings of names in `ASIDE`: runs that differ in one would have one key.

    Args:
        what: names the class in the message.
        at: before the names of its settings, `method.`.
        node: its settings.
        counted: names that its key holds all the same, or that hold parts with rules of their own.
        deep: whether its key leaves names out in lists, and in classes inside it, too.

    Raises:
        ConfigError: with the setting, and what to do.
    """
    for name, value in node.items():
        if name in counted or name == "_target_":
            continue
        if name in ASIDE:
            raise ConfigError(
                f"{at}{name}: {what} has a setting called {name}, a name that never counts in a "
                "run's key, so that two of its values would be one run; rename the setting"
            )
        if isinstance(value, Mapping) and (deep or "_target_" not in value):
            refuse_aside(what, f"{at}{name}.", value, counted, deep)
        if isinstance(value, list) and deep:
            inner = {str(n): one for n, one in enumerate(value) if isinstance(one, Mapping)}
            refuse_aside(what, f"{at}{name}.", inner, counted, deep)


def _config_text(value: Config) -> str:
    """What a key holds of a config; kept in the object, as `Config.json` is: runs share theirs."""
    kept = vars(value)
    if "_key_text" not in kept:
        kept["_key_text"] = canonical(identity(value.json))
    return str(kept["_key_text"])


def counts_in_key(name: str, value: Any) -> bool:
    """Whether a part of a run is in its key: what is None is not, nor a first revision."""
    return value is not None and (name, value) != ("loss_revision", 1)


def key_text(parts: Mapping[str, str]) -> str:
    """The text of which a run's key is the hash.

    Args:
        parts: of each part that `counts_in_key`, the canonical text of its `identity`.
    """
    return "{" + ",".join(f'"{name}":{parts[name]}' for name in sorted(parts)) + "}"


def key_of_text(text: str) -> str:
    """First 12 hex digits of the SHA-256: the key of a run by `key_text`, of others by theirs."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def counted_size(size: int | float | str, task: TaskConfig) -> int | float | str:
    """The number of training examples where the task says how many there are, else `size`."""
    total = task.examples.get("train")
    return _train_size(size, task, total) if total else size


def _train_size(size: int | float | str, task: TaskConfig, total: int) -> int:
    if size == "full":
        return total
    if isinstance(size, float):
        return max(1, round(size * total))
    if int(size) > total:
        raise ConfigError(
            f"size={size}: {task.name} has {total} training examples; "
            "use at most that many, a fraction, or full"
        )
    return int(size)


@dataclass(frozen=True, eq=False)
class Run:
    """One training, as a value: everything that can change its score and nothing else.

    Attributes:
        model, method, task, budget, train, checkpoint_selection: what it is made of.
        size: training examples: a count, a fraction in (0, 1), or "full".
        seed: the seed from which the seeds of all `ROLES` follow.
        role_seeds: in its place for some of them, see `role_seeds`; None is for none.
        prompt: how texts and labels are put to the model; None is a classification head.
        augmentation: how training texts are varied; None is not at all.
        loss_revision: of the task's loss; it rises when a correction makes its runs score
            differently.
        protocol: the version of the rules under which scores are comparable.
    """

    model: ModelConfig
    method: MethodConfig
    task: TaskConfig
    budget: Budget
    train: TrainingConfig
    checkpoint_selection: CheckpointSelection
    size: int | float | str
    seed: int
    prompt: PromptConfig | None = None
    augmentation: AugmentationConfig | None = None
    loss_revision: int = 1
    protocol: int = PROTOCOL
    role_seeds: Mapping[str, int] | None = None

    @cached_property
    def key(self) -> str:
        """First 12 hex digits of the SHA-256 of the run's canonical JSON, `ASIDE` left out.

        No path of a class is in it, so code can move. What is None, and a revision of 1, is left
        out, so that a field which comes later leaves older keys as they are. The size counts as its
        number of examples where the task says how many there are, so that 0.5 of 200 and 100 are
        one run.
        """
        return key_of_text(key_text(self._key_parts()))

    @property
    def cell_key(self) -> str:
        """Equal in runs that differ only in their seed."""
        parts = self._key_parts()
        del parts["seed"]
        return key_of_text(key_text(parts))

    def _key_parts(self) -> dict[str, str]:
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        parts = {
            name: _config_text(value) if isinstance(value, Config) else canonical(value)
            for name, value in values.items()
            if counts_in_key(name, value)
        }
        return parts | {"size": canonical(self.counted_size)}

    @property
    def counted_size(self) -> int | float | str:
        """The number of training examples where the task says how many there are, else `size`."""
        return counted_size(self.size, self.task)

    def train_size(self, total: int) -> int:
        """How many of `total` training examples the run uses.

        Raises:
            ConfigError: if there are fewer than it wants.
        """
        return _train_size(self.size, self.task, total)

    def planned_size(self, total: int) -> int:
        """As `train_size`, of a run that has not started.

        Raises:
            ConfigError: also if there are fewer examples than classes.
        """
        size = self.train_size(total)
        if self.size != "full" and size < self.task.classes:
            raise ConfigError(
                f"size={self.size}: {size} of {total} examples cannot hold all "
                f"{self.task.classes} classes of {self.task.name}; use a larger size"
            )
        return size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def title(self) -> str:
        """A line that names the run to a person; not unique."""
        own = "".join(f", {role} {seed}" for role, seed in (self.role_seeds or {}).items())
        return one_line(
            f"{self.method.name} · {self.task.name} · {self.model.title}"
            f" · size {self.size} · seed {self.seed}{own}"
        )

    @property
    def row(self) -> str:
        """What tables call its row: its method, or that nothing was trained."""
        return UNTRAINED if self.untrained else self.method.name

    @property
    def untrained(self) -> bool:
        """Whether no step is trained, at whatever rate its words name."""
        return self.budget.steps == 0

    def seed_of(self, role: str) -> int:
        """The seed from which that of a role follows: its own, else `seed`."""
        return (self.role_seeds or {}).get(role, self.seed)

    def seeds(self) -> dict[str, int]:
        """Derive the seed of each role in `ROLES`; 32 bits, the same for all methods."""
        return {
            role: int.from_bytes(
                hashlib.sha256(f"{role} {self.seed_of(role)}".encode()).digest()[:4]
            )
            for role in ROLES
        }

    def step_shape(self) -> list[Any]:
        """What decides what a training step computes, and so what it costs."""
        recipe = {n: value for n, value in self.train.to_json().items() if n not in STEP_FREE}
        return [self.model, self.method, self.task, self.prompt, self.augmentation, recipe]

    def to_json(self) -> Json:
        """The run as plain data, which `from_json` reads."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        if self.role_seeds is None:  # as in records that are older than this field
            del values["role_seeds"]
        return {n: v.to_json() if isinstance(v, Config) else v for n, v in values.items()}

    @classmethod
    def from_json(cls, data: Json) -> "Run":
        """Read what `to_json` wrote.

        Raises:
            RecordError: if a field is missing or unknown.
        """
        given = dict(known(cls, {"role_seeds": None} | data))
        for name, kind in PARTS.items():
            if given[name] is not None:
                given[name] = kind.from_json(given[name])
        return cls(**given)


def distinct_inputs(runs: Iterable[Run]) -> list[Run]:
    """One run for each model, method, task, prompt and length, which runs of a plan share.

    Parts are compared by identity, so equal parts that were made separately all count.
    """
    found: dict[tuple[int, ...], Run] = {}
    for run in runs:
        parts = (run.model, run.method, run.task, run.prompt)
        found.setdefault((*map(id, parts), run.train.max_length), run)
    return list(found.values())


def role_seeds(seed: int, given: Mapping[str, int]) -> dict[str, int] | None:
    """The seeds of single roles in the order of `ROLES`, without those that are the run's anyway.

    So that one computation has one key. None if none is left.
    """
    found = {role: given[role] for role in ROLES if given.get(role, seed) != seed}
    return found or None


#: The configs of a run, by field.
PARTS: dict[str, type[Config]] = {
    "model": ModelConfig,
    "method": MethodConfig,
    "task": TaskConfig,
    "budget": Budget,
    "train": TrainingConfig,
    "checkpoint_selection": CheckpointSelection,
    "prompt": PromptConfig,
    "augmentation": AugmentationConfig,
}


@dataclass(frozen=True, eq=False)
class Record:
    """What one finished run gave. Undefined or unmeasured values are None, never a stand-in.

    Attributes:
        run: the run.
        metrics: scores in [-1, 1] on the reporting split, once, at the end of the budget; errors
            of a regression in the unit of its labels. None of a trial, which reads nothing of it.
        trivial: the same metrics for the constant prediction learnt from the training labels.
        collapsed: whether one class (or one value) was predicted throughout.
        selection: scores on the split carved from train, where the run has one.
        curve: evaluations during training: step, fraction, seconds, examples, loss, scores.
        parameters: counts: trained (head left out), head, total.
        work: steps, examples, tokens, padded tokens, epochs, overshoot, truncated, train_size …;
            evaluated, examples that were predicted on, at all points of the curve together;
            curve_examples, those of a point where it is of a part of the reporting split;
            trial, that it is one; per_class, figures of each class on the reporting split;
            out_of_range, predictions of a regression far out of the range of the labels, where
            there are any; of a packed run the keys of those it shared passes with, and its
            calibration's name.
        seconds: load, tokenise, warmup, train, evaluate.
        speed: training examples and tokens for each second of `seconds["train"]`; None of a run
            that trained no step.
        memory: peak bytes by phase: CPU resident set, CUDA allocated and reserved.
        energy_joules: of the GPU from the first step to the last evaluation of the curve; None
            unless one GPU was held alone.
        flops: model FLOPs of the training, forward and backward.
        environment: versions, device, threads, commit, data fingerprint, weights hash …
        predictions_sha256: of the predictions' file.
        trained_sha256: of the file of trained weights, where it was kept.
    """

    run: Run
    metrics: dict[str, float | None]
    trivial: dict[str, float | None]
    collapsed: bool
    selection: Json | None
    curve: list[Json]
    parameters: dict[str, int]
    work: Json
    seconds: dict[str, float]
    speed: dict[str, float | None]
    memory: Json
    energy_joules: float | None
    flops: float | None
    environment: Json
    predictions_sha256: str | None = None
    trained_sha256: str | None = None
    schema: int = field(default=SCHEMA)

    @property
    def score(self) -> float | None:
        """The task's primary metric."""
        return self.metrics[self.run.task.metric]

    def to_json(self) -> Json:
        """The record as plain data, which `from_json` reads."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "run"}
        return {"run": self.run.to_json()} | copy.deepcopy(values)

    @classmethod
    def from_json(cls, data: Json) -> "Record":
        """Read what `to_json` wrote.

        Raises:
            RecordError: if the schema is another one, or a field is missing or unknown.
        """
        given = known(cls, of_schema("a record", data))
        return cls(**given | {"run": Run.from_json(given["run"])})


def of_schema(what: str, data: Json) -> Json:
    """The data, if they are of the schema that is read here.

    Raises:
        RecordError: if they are of another one.
    """
    found = data.get("schema")
    if found == SCHEMA:
        return data
    if not isinstance(found, int):
        raise RecordError(f"{what} without a schema")
    if found > SCHEMA:
        raise OtherSchemaError(
            f"{what} of schema {found} is of a newer peftbench; this one reads {SCHEMA}: update it"
        )
    raise OtherSchemaError(
        f"{what} of schema {found} is of an older peftbench; bring its folder up to date with "
        f"`python {MIGRATION} FOLDER`, from peftbench's repository"
    )


def known(cls: type, data: Json) -> Json:
    """The data, if they hold the fields of a data class and no others.

    Raises:
        RecordError: naming what is too much and what is missing.
    """
    allowed = {f.name for f in fields(cls)}
    if set(data) != allowed:
        raise RecordError(
            f"{cls.__name__.lower()} has fields that do not belong: {sorted(set(data) - allowed)}, "
            f"and is missing {sorted(allowed - set(data))}"
        )
    return data
