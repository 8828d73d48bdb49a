"""Write peftbench/methods/peft_settings.json: the settings of peft's tuners, for planning.

Run it after an update of peft; tests/methods/test_peft_settings.py compares the file with peft.

usage: uv run python scripts/peft_settings.py
"""

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any

import peft
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import PeftType

from peftbench.methods.peft import offered

OUT = Path(__file__).resolve().parents[1] / "peftbench/methods/peft_settings.json"

_NAMES = {int: "int", float: "float", str: "str", bool: "bool", type(None): "null"}


def spelled(annotation: Any) -> dict[str, list[str]]:
    """The kinds of values and the choices that an annotation allows."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        parts = [spelled(one) for one in inside]
        return {
            name: sorted({item for part in parts for item in part[name]})
            for name in ("kinds", "choices")
        }
    if origin is typing.Literal:
        return {"kinds": [], "choices": [str(word) for word in inside]}
    if isinstance(annotation, type) and issubclass(annotation, str):  # enums of words too
        return {"kinds": ["str"], "choices": []}
    if annotation in _NAMES:
        return {"kinds": [_NAMES[annotation]], "choices": []}
    if origin in (list, set, tuple):
        return {"kinds": ["list"], "choices": []}
    return {"kinds": ["dict"], "choices": []}  # a config class inside, or a mapping


def settings(kind: str) -> dict[str, Any]:
    """The settings of a tuner."""
    config = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)]
    hints = typing.get_type_hints(config)
    found = {}
    for field in dataclasses.fields(config):
        about: dict[str, Any] = spelled(hints[field.name])
        if not about["choices"]:
            del about["choices"]
        if isinstance(field.default, int | float | str):
            about["default"] = field.default
        elif field.default is None and "null" not in about["kinds"]:
            about["kinds"] = sorted([*about["kinds"], "null"])
        found[field.name] = about
    return found


def content() -> dict[str, Any]:
    """What the file holds."""
    return {"peft": peft.__version__, "types": {kind: settings(kind) for kind in offered()}}


if __name__ == "__main__":
    OUT.write_text(json.dumps(content(), indent=None, separators=(", ", ": "), sort_keys=True))
