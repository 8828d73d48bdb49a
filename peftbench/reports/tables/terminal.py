"""Standard output: what rich draws, as wide as a terminal, whole in a pipe or a file."""

import io
from typing import Any

from peftbench.system import terminal


def print_out(renderable: Any) -> None:
    """Print what rich can draw.

    Raises:
        OSError: if standard output takes no more.
    """
    width = terminal.columns()
    if width is None:
        terminal.write(plain(renderable) + "\n")
        return
    from rich.console import Console

    Console(highlight=False, width=width).print(renderable)


def plain(renderable: Any) -> str:
    """What rich draws, without colours and as wide as it is."""
    from rich.console import Console

    buffer = io.StringIO()
    Console(file=buffer, width=terminal.UNCUT, highlight=False, color_system=None).print(renderable)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())
