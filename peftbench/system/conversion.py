"""Conversions of weights to safetensors, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

from peftbench.core.errors import ConfigError


def convert(kind: str, source: Path, draft: Path) -> None:
    """Let `peftbench.models.KIND_conversion` make a checkpoint.

    Args:
        kind: of the conversion.
        source: a file or a folder.
        draft: the folder that is filled.

    Raises:
        ConfigError: with the last line that the process said.
    """
    done = subprocess.run(
        [sys.executable, "-m", f"peftbench.models.{kind}_conversion", str(source), str(draft)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        if done.returncode < 0:
            lines = [f"the process was ended by signal {-done.returncode}, as for want of memory"]
        raise ConfigError(f"{source} cannot be converted: {lines[-1] if lines else 'no reason'}")
