"""Which tuners of the peft library run on which model families; read without torch."""

import json
from pathlib import Path


def peft_support() -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Of the peft library: versions; for each type and family why it does not run, or nothing.

    Made by scripts/peft_matrix.py, which runs them.
    """
    found = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    return found["versions"], found["reasons"]
