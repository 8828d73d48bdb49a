"""Errors that a user can do something about, and checks that raise them."""

import math
from collections.abc import Mapping
from typing import Any


class ConfigError(ValueError):
    """What was asked for cannot be planned; the message says what is allowed and what to do."""


class RecordError(ValueError):
    """A file in a results folder is not a whole, unaltered record of a known schema."""


class ClosedFileError(RecordError):
    """The system does not let a file be read: it may be whole, and must not be made again."""


class OldName(FutureWarning):
    """A name of the release before was used; the message says the new one."""


class OtherSchemaError(RecordError):
    """A record of an older or newer peftbench: it is not damaged, and must not be overwritten."""


def first_line(error: BaseException) -> str:
    """The first line of a message, or the error's class where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def system_reason(error: OSError) -> str:
    """What the system did not do, in one line: the file and the reason."""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename else reason


def no_records(folder: object, bad: Mapping[str, str]) -> ConfigError:
    """The error of a reader that finds no record it can read.

    Args:
        folder: of results.
        bad: why a record cannot be read, by its key.
    """
    if not bad:
        return ConfigError(
            f"{folder} holds no records; `peftbench run` makes them, --results names another folder"
        )
    first = next(iter(bad.values()))
    more = f" (and {len(bad) - 1:,} more)" if len(bad) > 1 else ""
    return ConfigError(f"{folder} holds no readable record: {first}{more}")


def at_least(name: str, value: Any, least: float, whole: bool = False) -> None:
    """Refuse anything but a number from `least` up.

    Raises:
        ConfigError: with the name, what is allowed, and what was given.
    """
    kind = int if whole else (int, float)
    if not _number(value, kind) or value < least:
        noun = "a whole number" if whole else "a number"
        raise ConfigError(f"{name} must be {noun} of at least {least}, got {value!r}")


def above(name: str, value: Any, least: float) -> None:
    """Refuse anything but a number greater than `least`; see `at_least`."""
    if not is_number(value) or value <= least:
        raise ConfigError(f"{name} must be a number greater than {least}, got {value!r}")


def between(name: str, value: Any, least: float, most: float) -> None:
    """Refuse anything but a number from `least` to `most`; see `at_least`."""
    if not is_number(value) or not least <= value <= most:
        raise ConfigError(f"{name} must be a number from {least} to {most}, got {value!r}")


def listed(name: str, value: Any) -> None:
    """Refuse anything but a list; see `at_least`."""
    if not isinstance(value, list):
        raise ConfigError(f"{name} must be a list, got {value!r}")


def mapped(name: str, value: Any) -> None:
    """Refuse anything but a mapping; see `at_least`."""
    if not isinstance(value, dict):
        raise ConfigError(f"{name} must be a mapping, got {value!r}")


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, which `true` is not."""
    return _number(value, (int, float))


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, which `true` is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Refuse anything but the words in `allowed`; see `at_least`."""
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def _number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
