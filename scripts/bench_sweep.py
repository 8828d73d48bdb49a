"""A sweep of 12 short runs against 12 processes of the tuned peer, wall clock.

Ours: full, adapter, LoRA and BitFit, three seeds each, 500 MRPC examples, one epoch, one
`peftbench run` from command to table. The peer has no adapters: its fourth method is LoRA again.
Both score the official validation split once.

usage: uv run python scripts/bench_sweep.py [--rounds 2]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

from benchmark import DATA, TUNED, median, peer, write

GRID = ["method=full,adapter,lora,bitfit", "seed=0,1,2", "task=mrpc", "size=500"]
GRID += ["budget.epochs=1", "train.num_evals=1", f"data.root={DATA}"]


def ours() -> float:
    """Seconds of the sweep, from a folder without records."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "peftbench", "run", *GRID, "--results", folder, "--quiet"]
        start = time.perf_counter()
        subprocess.run(
            command, check=True, capture_output=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}
        )
        return time.perf_counter() - start


def theirs() -> float:
    """Seconds of 12 processes, one after the other, each with both cores."""
    start = time.perf_counter()
    for method in ("full", "lora", "lora", "bitfit"):
        for seed in range(3):
            words = ["--task", "mrpc", "--method", method, "--epochs", "1", "--train-size", "500"]
            peer(*words, *TUNED, "--seed", str(seed))
    return time.perf_counter() - start


def main() -> None:
    """Measure and write results/benchmarks/sweep.{json,md}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    ours()  # tokenise once: the peer's cache is warm after its first process, too
    pairs = []
    for turn in range(asked.rounds):
        pairs.append((ours(), theirs()))
        print(turn, pairs[-1], flush=True)
    ratio = median([b / a for a, b in pairs])
    text = (
        "### A sweep of 12 runs (4 methods, 3 seeds, 500 MRPC examples, 1 epoch), wall clock\n\n"
        "| | seconds |\n| --- | ---: |\n"
        f"| one `peftbench run`, workers by default | {median([a for a, _ in pairs]):.0f} |\n"
        f"| 12 processes of the tuned peer | {median([b for _, b in pairs]):.0f} |\n\n"
        f"{ratio:.2f} times faster, median of {asked.rounds} alternating rounds."
    )
    write("sweep", {"seconds": [{"ours": a, "peer": b} for a, b in pairs], "ratio": ratio}, text)


if __name__ == "__main__":
    main()
