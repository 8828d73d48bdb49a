"""What the simulate_*.py scripts share: options, and tables beside those of other labels."""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark import BEGAN

ROOT = Path(__file__).parents[1]

Json = dict[str, Any]


def write(
    name: str,
    about: str,
    repeats: int,
    made: Callable[[int], Json],
    markdown: Callable[[Json], str],
) -> None:
    """Simulate as the command line says, and write NAME.{json,md}; other labels stay in them.

    Args:
        name: of the files.
        about: for `--help`.
        repeats: by default.
        made: the results of so many repeats.
        markdown: of the results of all labels.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--label", help="name of the columns of these results; by default: after")
    parser.add_argument("--code", default=BEGAN.code(), help="which code was simulated, in words")
    parser.add_argument("--output", type=Path, default=ROOT / "results/simulations")
    given = parser.parse_args()
    path = given.output / f"{name}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    label = given.label or "after"
    there = found.get(label, {}).get("code", given.code)
    if given.label is None and there != given.code:
        parser.error(
            f"{path} has results labelled {label!r} of {there or 'unknown code'}, these would be "
            f"of {given.code}: replace them with --label {label}, or choose another label"
        )
    start = time.process_time()
    new = made(given.repeats) | {"code": given.code}
    print(f"{time.process_time() - start:.0f} CPU seconds")
    found[label] = json.loads(json.dumps(new).replace("NaN", "null"))
    given.output.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(found))
    print(f"written: {path.with_suffix('.md')}")
