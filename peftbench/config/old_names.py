"""Names of the release before: they work in this one, with a note that says the new name.

Beside them are names of transformers and peft for what has a shorter name here; these stay, and
need no note.
"""

import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from peftbench.core.errors import ConfigError, OldName
from peftbench.system import yaml_files

#: Groups of configuration files.
GROUPS = {
    "form": "prompt",
    "augment": "augmentation",
    "select": "checkpoint_selection",
    "target": "shift_dataset",
}

#: Keys of a group, in overrides and in files.
KEYS = {
    "train": {
        "batch": "batch_size",
        "micro_batch": "micro_batch_size",
        "clip": "max_grad_norm",
        "warmup": "warmup_steps",
        "schedule": "lr_scheduler_type",
        "evaluations": "num_evals",
    },
    "prompt": {"words": "verbalizer", "demonstrations": "num_demonstrations"},
    "augmentation": {"part": "probability"},
    "suite": {"chain": "posterior_as_prior"},
    "cluster": {"requeues": "max_requeues"},
    "model_family": {"words": "language_model"},
}

#: Hyper-parameters of methods, where a method has none that is called so.
HYPERPARAMETERS = {
    "targets": "target_modules",
    "at": "target_modules",
    "power": "rank_scaling",
    "decompose": "use_dora",
}

#: What a method's file says under `recipe`.
RECIPE = {"schedule": "lr_scheduler_type", "warmup": "warmup_steps"}

#: Options of a group.
OPTIONS = {
    "checkpoint_selection": {"none": "last", "holdout": "best_on_holdout"},
    "method": {"hybrid": "combined"},
    "suite": {"rounds": "continual"},
    "sweep": {"rounds_minilm": "continual_minilm"},
    "task": {
        f"builtin_{kind}": f"synthetic_{kind}"
        for kind in ("acceptability", "paraphrase", "similarity")
    },
}

#: Classes of options, by their dotted paths.
TARGETS = {
    "peftbench.methods.hybrid.Hybrid": "peftbench.methods.combined.Combined",
    "peftbench.suites.rounds.Rounds": "peftbench.suites.continual.Continual",
}

#: Names of transformers and peft that stay.
SYNONYMS = {"learning_rate": "lr", "r": "rank", "lora_alpha": "alpha", "lora_dropout": "dropout"}

_BASE_METHOD = re.compile(r"(?<=\.)host(?=\.|$)")


#: Names that `noted_once` has collected, with the new ones.
_collected: ContextVar[dict[str, str] | None] = ContextVar("collected", default=None)


@contextmanager
def noted_once() -> Iterator[None]:
    """Hold notes back to the end, where each name that was given has one, with its last new name.

    A name may be read several times, and of `method.host.power` one step knows the new name of
    `host`, a later one that of `power`.
    """
    found: dict[str, str] = {}
    token = _collected.set(found)
    try:
        yield
    finally:
        _collected.reset(token)
        for old in [old for old in found if old not in found.values()]:
            new = found[old]
            while new in found:
                new = found[new]
            note(old, new)


def note(old: str, new: str) -> None:
    """Say that a name is another one now."""
    collected = _collected.get()
    if collected is not None:
        collected[old] = new
        return
    warnings.warn(
        f"{old} is called {new} now; the old name works in this release",
        OldName,
        stacklevel=2,
    )


def check_value(key: str, value: Any) -> None:
    """Refuse a value of an old key that means another thing under the new one.

    Raises:
        ConfigError: for a warm-up of the whole budget; `warmup_steps=1` is one step.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if key == "train.warmup" and number and value >= 1:
        raise ConfigError(
            f"train.warmup={value}: it was a share of the budget; train.warmup_steps from 1 on is "
            "a number of steps, so give that, or a share below 1"
        )


def renamed_key(key: str) -> str:
    """An override's key as it is called now, without a note.

    `aliases.current_key` is for what a person writes. Of a key under `method` only the part that
    names a method inside another one: what the rest is called depends on the method, see
    `hyperparameter`.
    """
    group, dot, rest = key.partition(".")
    group = GROUPS.get(group, group)
    if group == "method":
        return _BASE_METHOD.sub("base_method", key)
    first, more, last = rest.partition(".")
    return group + dot + KEYS.get(group, {}).get(first, first) + more + last


def current_option(group: str, option: str, given: str | None = None) -> str:
    """An option of a group as it is called now; what is no old option is returned as it is.

    Args:
        group: as it is called now.
        option: of it.
        given: the group as it was given, for the note.
    """
    now = OPTIONS.get(group, {}).get(option, option)
    if now != option:
        note(f"{given or group}={option}", f"{group}={now}")
    return now


def current_field(name: str) -> str:
    """A field of records, or a condition of a claim, as it is called now; without a note."""
    flat = {old: new for keys in KEYS.values() for old, new in keys.items()} | HYPERPARAMETERS
    flat |= {old: new for old, new in GROUPS.items() if old != "target"} | {"host": "base_method"}
    return ".".join(flat.get(part, part) for part in name.split("."))


def current_arguments(arguments: list[str]) -> list[str]:
    """A command line as it is written now."""
    now: list[str] = []
    for word in arguments:
        if (word == "trained" and now[-1:] == ["--keep"]) or word == "--keep=trained":
            now = [*(now[:-1] if word == "trained" else now), "--save-weights"]
            note("--keep trained", "--save-weights")
        elif word.partition("=")[0] == "--processes":
            now.append(word.replace("--processes", "--gpus-per-run"))
            note("--processes", "--gpus-per-run")
        else:
            now.append(word)
    return now


def hyperparameter(key: str, value: Any, known: Collection[str]) -> tuple[str, Any]:
    """A hyper-parameter as the method calls it, and its value there.

    Args:
        key: as it was given, with what stands before it: method.base_method.power.
        value: that it is to have.
        known: those that the method has.
    """
    path, _, name = key.rpartition(".")
    if name in known:
        return name, value
    if name == "use_rslora" and "rank_scaling" in known and isinstance(value, bool):
        return "rank_scaling", 0.5 if value else 1.0
    if SYNONYMS.get(name) in known:
        return SYNONYMS[name], value
    now = HYPERPARAMETERS.get(name)
    if now is None or now not in known:
        return name, value
    note(key, f"{path}.{now}")
    return now, value


def files(folder: Path, group: str) -> Iterable[Path]:
    """The files of a group's options in a folder; those in a group of the old name come last."""
    yield from sorted((folder / group).glob("*.yaml"))
    for old, new in GROUPS.items():
        if new == group:
            yield from sorted((folder / old).glob("*.yaml"))
    if group == "model_family":
        yield from sorted((folder / "model").glob("_*.yaml"))


def read(path: Path, group: str) -> str:
    """The text of an option's file, with the old names in it replaced.

    Raises:
        ConfigError: if it cannot be read or is not UTF-8.
    """
    text = yaml_files.read_utf8(path)
    names: Mapping[str, str] = KEYS.get(group, {})
    if group == "method":
        text = _replaced(path, text, r"(?<=[@{.]){}(?=[:.])", {"host": "base_method"})
        _check_warmup(path, text)
        text = _replaced(path, text, r"\b{}(?=:)", RECIPE)
        own = "_target_:" in text and "_target_: peftbench." not in text
        names = {"host": "base_method"} | ({} if own else HYPERPARAMETERS)
        if "BitFit" not in text:  # of an adapter it says where, as before
            names = {old: new for old, new in names.items() if old != "at"}
    if group == "train":
        _check_warmup(path, text)
    if group == "model_family":
        text = _replaced(path, text, r"(?<=[{ ]){}(?=:)", {"class": "kind"})
    if "_target_" in text:
        text = _replaced(path, text, r"\b_target_: *{}\b", TARGETS)
    if group in OPTIONS:
        text = _replaced(path, text, r"(?<=^  - ){}$", OPTIONS[group])
    return _replaced(path, text, r"^\s*\b{}(?=:)", names)


def _check_warmup(path: Path, text: str) -> None:
    for found in re.findall(r"\bwarmup: *([\d.]+)", text):
        try:
            check_value("train.warmup", float(found))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None


def _replaced(path: Path, text: str, pattern: str, names: Mapping[str, str]) -> str:
    """The text with names replaced where the pattern, with a name for its {}, matches."""
    for old, new in names.items():
        found = re.compile(f"(?P<before>{pattern.replace('{}', f')(?:{old})', 1)}", re.MULTILINE)
        now = found.sub(rf"\g<before>{new}", text)
        if now != text:
            note(f"{path}: {old}", new)
        text = now
    return text
