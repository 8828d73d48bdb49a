"""Common names for keys and values: accepted, or answered with what to write instead."""

import re
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from peftbench.config import old_names
from peftbench.core.configs import TrainingConfig
from peftbench.core.errors import ConfigError

#: Keys that stand for another key.
KEYS = {
    **{one.name: f"train.{one.name}" for one in fields(TrainingConfig)},
    "learning_rate": "train.lr",
    "train.learning_rate": "train.lr",
    "batch": "train.batch_size",
    "per_device_train_batch_size": "train.batch_size",
    "epochs": "budget.epochs",
    "num_train_epochs": "budget.epochs",
    "train.epochs": "budget.epochs",
    "seeds": "seed",
}

#: What to write instead of a key, with its value as `{}`.
_INSTEAD = {
    **dict.fromkeys(("steps", "max_steps", "train.max_steps"), "budget=steps budget.steps={}"),
    **dict.fromkeys(("seconds", "time"), "budget=seconds budget.seconds={}"),
    **dict.fromkeys(("rank", "r", "lora_r"), "method.rank={}"),
    **{name: f"method.{name}={{}}" for name in ("alpha", "dropout", "width", "length", "scale")},
    **dict.fromkeys(
        ("lora_alpha", "lora_dropout", "target_modules", "use_dora", "use_rslora"), "method.KEY={}"
    ),
    "targets": "method.target_modules={}",
    **dict.fromkeys(("dataset", "tasks", "task_name"), "task={}"),
    "dataset_name": "task=hub task.dataset={}",
    "train_file": "task=file task.path={}",
    **{old: f"train.{new}={{}}" for old, new in old_names.KEYS["train"].items() if old != "batch"},
    **{
        prefix + name: instead
        for prefix in ("", "train.")
        for name, instead in {
            "warmup_ratio": "train.warmup_steps={}",
            "gradient_accumulation_steps": "train.micro_batch_size=N, rows of each forward pass",
            "max_seq_length": "train.max_length={}",
            "lr_scheduler": "train.lr_scheduler_type={}",
            "eval_steps": "train.num_evals=N, evaluations over the budget",
            "bf16": "train.precision=bf16",
            "fp16": "train.precision=fp16",
            "load_best_model_at_end": "checkpoint_selection=best_on_holdout",
            "early_stopping_patience": (
                "checkpoint_selection=best_on_holdout checkpoint_selection.patience={}"
            ),
        }.items()
    },
    **dict.fromkeys(("methods", "peft"), "method={}"),
    **dict.fromkeys(("checkpoint", "model_name_or_path"), "model=auto model.checkpoint={}"),
    "models": "model={}",
    **dict.fromkeys(("train_size", "max_train_samples"), "size={}"),
    **dict.fromkeys(("output_dir", "output", "results"), "--results {}"),
    **{
        name: f"--{name} {{}}"
        for name in ("configs", "device", "threads", "workers", "retry", "shard", "pack", "where")
    },
}

#: What papers call a method that is called otherwise here, in letters and digits.
_METHODS = {
    "bhpeft": "bayes_hybrid",
    "houlsby": "adapter",
    "houlsbyadapter": "adapter",
    "mam": "combined",
    "mamadapter": "combined",
    "prefixtuning": "prefix",
}

_SEEDS = re.compile(r"(\d+)-(\d+)")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")


def current_key(key: str, text: str) -> str:
    """Return the key that a common name, or one of the release before, stands for.

    Args:
        key: as it was given.
        text: its value, for the message.

    Raises:
        ConfigError: for a common name that is written in another way here.
    """
    if key in _INSTEAD:
        instead = _INSTEAD[key].replace("KEY", key).format(text)
        raise ConfigError(f"{key}={text}: unknown key {key}; write {instead}")
    return old_names.renamed_key(KEYS.get(key, key))


def current_values(given: str, key: str, values: list[Any]) -> list[Any]:
    """Return the values that a common spelling stands for.

    `seed=0-4` is five seeds, and so is `seeds=5`; `size=10%` is 0.1 and `size=1e3` is 1000; a list
    of a key that takes one value is several values.

    Args:
        given: the key as it was given.
        key: the key that it stands for.
        values: as they were given.

    Raises:
        ConfigError: for seeds that are neither a number of seeds nor a range.
    """
    if key in ("seed", "size") or "." not in key:
        values = [inner for one in values for inner in (one if isinstance(one, list) else [one])]
    if given == "seeds" and len(values) == 1 and type(values[0]) is int and values[0] > 0:
        return list(range(values[0]))
    if given == "seeds" and not all(_SEEDS.fullmatch(str(value)) for value in values):
        listed = ",".join(map(str, values))
        numbers = all(type(value) is int and value >= 0 for value in values)
        raise ConfigError(
            f"seeds={listed}: seeds must be a count, such as seeds=5 for seeds 0 to 4, or a range, "
            "such as seeds=3-7" + f"; for these seeds write seed={listed}" * numbers
        )
    if key == "seed" or key.startswith("seed."):
        return [seed for value in values for seed in _seeds(value)]
    return [_size(value) for value in values] if key == "size" else values


def _seeds(value: Any) -> Iterable[Any]:
    found = _SEEDS.fullmatch(str(value))
    if not found:
        return [value]
    first, last = map(int, found.groups())
    if last < first:
        raise ConfigError(f"seed={value}: write the smaller seed first, seed={last}-{first}")
    return range(first, last + 1)


def _size(value: Any) -> Any:
    if found := _PERCENT.fullmatch(str(value)):
        return float(f"{float(found[1]) / 100:.12g}")
    whole = isinstance(value, float) and value > 1 and value.is_integer()
    return int(value) if whole else value


def same_name(name: str, offered: Iterable[str]) -> str | None:
    """Return the one option with the same letters and digits, or of another name: mrpc for MRPC.

    None where there is none, or several.
    """
    options = list(offered)
    found = [one for one in options if _letters(one) == _letters(name)]
    found = found or [one for one in options if one == _METHODS.get(_letters(name))]
    return found[0] if len(found) == 1 and _letters(name) else None


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
