"""What configuration files may hold: structured configs for Hydra's ConfigStore.

`configs/run.yaml` starts from `run_schema`, so OmegaConf refuses unknown keys and wrong types. The
fields come from `core.configs`; named here is only what differs in a file: keys that composition
uses up (`lr_scale`, `tasks`), and values that may be left open until the run is resolved. A method
is open: only its class knows its hyper-parameters. Ranges of values are checked later, where the
configs of `core.configs` are made, and those of methods in `methods.settings`.
"""

import re
import types
from dataclasses import field, fields, make_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from peftbench.config import catalog
from peftbench.core.configs import (
    AugmentationConfig,
    Budget,
    CheckpointSelection,
    Config,
    ModelConfig,
    PromptConfig,
    TaskConfig,
    TrainingConfig,
)
from peftbench.core.errors import ConfigError, first_line

#: Name of the schema in the defaults list of run.yaml.
NAME = "run_schema"


def structured(
    kind: type[Config],
    *,
    without: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
    **more: Any,
) -> type:
    """A structured config with the fields of a config.

    Every field is missing until a file gives it, so that a value which the chosen option does not
    have is told apart from one that it has.

    Args:
        kind: the config.
        without: fields that no file gives.
        optional: fields that a file may leave null.
        more: further keys of a file, with their types.
    """
    hints = get_type_hints(kind)
    kept = [one.name for one in fields(kind) if one.name not in without]  # type: ignore[arg-type]
    typed = {name: _with_int(hints[name]) for name in kept} | more
    typed |= {name: typed[name] | None for name in optional}
    defaults: dict[str, Any] = dict.fromkeys(catalog.PROSE)
    defaults["tasks"] = field(default_factory=dict)
    made = [
        (name, kind_of, defaults.get(name, MISSING))
        for name, kind_of in (dict.fromkeys(catalog.PROSE, str | None) | typed).items()
    ]
    return make_dataclass(kind.__name__, made)


def _with_int(hint: Any) -> Any:
    """A type in which a float may be an int, which stays one: 3 epochs are not 3.0."""
    if hint is float:
        return int | float
    if get_origin(hint) in (Union, types.UnionType):
        return Union[tuple(_with_int(part) for part in get_args(hint))]  # noqa: UP007
    if get_origin(hint) in (list, dict):
        return get_origin(hint)[tuple(_with_int(part) for part in get_args(hint))]
    return hint


DataSchema = make_dataclass("DataConfig", [("root", str | None, None)])

#: By group of a run; `method` is open.
SCHEMAS: dict[str, type] = {
    "model": structured(
        ModelConfig,
        without=("family_config", "path", "files_sha256", "wheels"),
        optional=("family",),
        lr_scale=int | float,
        wheels=dict[str, str] | None,
    ),
    "task": structured(
        TaskConfig,
        without=("class_names", "rows_sha256"),  # they come from the data
        optional=("name", "classes", "metrics", "texts", "label"),
        dataset=str | None,
        config=str | None,
        revision=str | None,
        validation=str,
    ),
    "prompt": structured(
        PromptConfig,
        without=("template",),
        optional=("verbalizer",),
        masked=str | None,
        causal=str | None,
        tasks=dict[str, Any],
    ),
    "augmentation": structured(
        AugmentationConfig, without=("kinds",), kinds=dict[str, float | None], tasks=dict[str, Any]
    ),
    "budget": structured(Budget),
    "train": structured(TrainingConfig),
    "checkpoint_selection": structured(CheckpointSelection),
}

RunSchema = make_dataclass(
    "RunConfig",
    [
        *((group, schema, field(default_factory=schema)) for group, schema in SCHEMAS.items()),
        ("method", Any, MISSING),
        ("size", int | float | str, "full"),
        ("seed", int, 0),
        ("tuned", bool, False),
        ("data", DataSchema, field(default_factory=DataSchema)),
    ],
)

#: What a value of a type is, in messages.
_KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
}


def wrong_type(key: str, value: Any, of: type = RunSchema) -> ConfigError | None:
    """The error about a value of another type than its key has; None for a key without a type.

    Args:
        key: with dots, from the root of the structured config.
        value: as it was given.
        of: the structured config.
    """
    hint: Any = of
    for part in re.findall(r"[^.\[\]]+", key):
        if hint in SCHEMAS.values() or hint in (of, DataSchema):
            hint = get_type_hints(hint).get(part)
        else:
            inner = [one for one in _parts(hint) if get_origin(one) in (list, dict)]
            hint = get_args(inner[0])[-1] if inner else None
    kinds = dict.fromkeys(get_origin(part) or part for part in _parts(hint))
    if float in kinds:  # a whole number is one
        kinds.pop(int, None)
    null = kinds.pop(types.NoneType, "") is None
    if not kinds or not kinds.keys() <= _KINDS.keys():
        return None
    allowed = " or ".join([*(_KINDS[kind] for kind in kinds), *["null"] * null])
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    return ConfigError(f"{key} must be {allowed}, got {value!r}")


def type_reason(error: OmegaConfBaseException, of: type = RunSchema) -> str:
    """What is wrong with a value of a file, in one line: its type, else as OmegaConf has it."""
    if isinstance(error, ValidationError) and error.full_key:
        found = wrong_type(error.full_key, getattr(error, "value", None), of)
        if found is not None:
            return str(found)
    return f"{error.full_key}: {first_line(error)}" if error.full_key else first_line(error)


def _parts(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
