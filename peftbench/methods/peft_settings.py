"""Names, types and ranges of the settings of peft's tuners, checked without torch or peft.

`peft_settings.json` is written by scripts/peft_settings.py from the library's config classes.
"""

import json
import math
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from peftbench.core.errors import ConfigError
from peftbench.core.run import Json

#: Kinds of values as JSON has them, by the names in the file.
_KINDS: dict[str, Any] = {
    "int": int,
    "float": (int, float),
    "str": str,
    "bool": bool,
    "list": list,
    "dict": dict,
    "null": type(None),
}


@cache
def peft_settings() -> Json:
    """Of the library: its version; for each type and setting the kinds, choices and default."""
    found: Json = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    return found


def check_peft_settings(kind: str, config: Json, at: str = "") -> None:
    """Refuse settings that the tuner `kind` does not have, or values that it cannot have.

    With another version of peft than the file is of, a name is left to the library itself.

    Args:
        kind: a type of the library.
        config: arguments of its config class.
        at: what stands before `config` in messages.

    Raises:
        ConfigError: with the setting, what is allowed and what was given.
    """
    known = peft_settings()["types"].get(kind)
    if known is None:
        return  # refused by name where peft is loaded
    for name, value in config.items():
        if name not in known:
            if installed_peft() == peft_settings()["peft"]:
                raise ConfigError(f"{kind} takes no {name}; it takes {', '.join(sorted(known))}")
            continue
        _check(f"{at}config.{name}", name, value, known[name])


def _check(called: str, name: str, value: Any, about: Json) -> None:
    kinds, choices = list(about["kinds"]), about.get("choices")
    if re.search(r"alpha|scal", name) and "int" in kinds:
        kinds.append("float")  # a factor, which peft takes as it is
    fits = any(
        isinstance(value, _KINDS[one]) and (one == "bool" or not isinstance(value, bool))
        for one in kinds
    )
    if isinstance(value, str) and choices and "str" not in kinds:
        fits = any(_is_choice(value, choice) for choice in choices)
    if not fits:
        allowed = [f"a value of kind {' or '.join(kinds)}"] if kinds else []
        allowed += [f"one of {', '.join(choices)}"] if choices else []
        raise ConfigError(f"{called} must be {', or '.join(allowed)}, got {value!r}")
    if name == "bias" and value not in ("none", "all") and not str(value).endswith("_only"):
        raise ConfigError(f"{called} must be none, all or TYPE_only, got {value!r}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if not math.isfinite(value):
        raise ConfigError(f"{called} must be finite, got {value!r}")
    if "dropout" in name and not 0 <= value < 1:
        raise ConfigError(f"{called} must be a number from 0 to below 1, got {value!r}")
    if re.fullmatch(r"(.*_)?(r|rank|r1|r2)", name):
        least = min(1, about["default"]) if isinstance(about.get("default"), int) else 1
        if value < least:
            raise ConfigError(f"{called} must be a whole number of at least {least}, got {value!r}")
    if re.search(r"(^|_)alpha$", name) and value <= 0:
        raise ConfigError(
            f"{called} must be greater than 0, got {value!r}: it scales what the method adds"
        )


def _is_choice(value: str, choice: str) -> bool:
    """Whether a word is a choice, which may have a part of one's own: pissa_niter_[…]."""
    start, placeholder, _ = choice.partition("[")
    return value.startswith(start) and len(value) > len(start) if placeholder else value == choice


def installed_peft() -> str | None:
    """The version of the library here."""
    try:
        return version("peft")
    except PackageNotFoundError:
        return None
