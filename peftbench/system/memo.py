"""Findings that are remembered between commands, by a hash of all that they depend on.

They are kept in the user's cache (`PEFTBENCH_CACHE`). Without one that can be written, a finding is
made again.
"""

import json
import os
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peftbench.core.run import canonical
from peftbench.system import io


def cache_root() -> Path:
    """The folder of caches: `PEFTBENCH_CACHE`, else peftbench in the user's cache folder."""
    if own := os.environ.get("PEFTBENCH_CACHE"):
        return Path(own)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "peftbench"


def recall(kind: str, inputs: Any) -> Any:
    """What `remember` kept for the same inputs; None for nothing."""
    with suppress(OSError, ValueError, RuntimeError):  # RuntimeError: there is no home folder
        return json.loads(_place(kind, inputs).read_bytes())
    return None


def remember(kind: str, inputs: Any, found: Any) -> None:
    """Keep a finding (plain data, not None) for its inputs (plain data) and this version."""
    with suppress(OSError, RuntimeError):
        io.write_whole(_place(kind, inputs), json.dumps(found).encode())


def _place(kind: str, inputs: Any) -> Path:
    name = io.digest(canonical([kind, version("peftbench"), inputs]).encode())[:32]
    return cache_root() / kind / f"{name}.json"
