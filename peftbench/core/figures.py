"""Figures that methods, suites and metrics of others give: plain data before they are recorded."""

import math
from typing import Any


def plain_figures(given: Any, name: str = "") -> tuple[Any, list[str]]:
    """Return figures as JSON holds them, and the names of those that were not finite.

    These become None. A figure that is undefined, or a scalar of numpy or torch, would else fail
    when the record is saved, after all the work.

    Args:
        given: numbers, texts, arrays, and dicts and lists of them.
        name: of what is given.

    Raises:
        TypeError: naming a figure that is none of these.
    """
    if hasattr(given, "tolist"):  # scalars and arrays of numpy and torch
        given = given.tolist()
    if isinstance(given, float):
        return (given, []) if math.isfinite(given) else (None, [name])
    if given is None or isinstance(given, str | int):
        return given, []
    if isinstance(given, dict):
        pairs = {
            key: plain_figures(value, f"{name}.{key}".lstrip(".")) for key, value in given.items()
        }
        return {key: value for key, (value, _) in pairs.items()}, _names(pairs.values())
    if isinstance(given, list | tuple):
        items = [plain_figures(value, f"{name}[{place}]") for place, value in enumerate(given)]
        return [value for value, _ in items], _names(items)
    raise TypeError(
        f"{name} is a {type(given).__name__}, which a record cannot hold; give a number"
    )


def _names(found: Any) -> list[str]:
    return [name for _, names in found for name in names]
