"""Results of functions that are made once and shared by all who ask for the same."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class MadeOnce:
    """Results by their function and its arguments: plain data, or results of earlier calls.

    What is shared must not be written to.
    """

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __call__(self, make: Callable[..., T], *given: Any) -> T:
        """What the function makes of the arguments."""
        name = json.dumps([make.__module__, make.__qualname__, *given], default=id)
        if name not in self._made:
            self._made[name] = make(*given)
        made: T = self._made[name]
        return made
