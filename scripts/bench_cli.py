"""How long the light verbs take: help, list, a plan of 1,000 runs and of 10,000.

usage: uv run python scripts/bench_cli.py [--rounds 7]
"""

import argparse
import subprocess
import sys
import tempfile
import time

from benchmark import median, write

AXES = (
    "method=full,adapter,lora,bitfit,head task=mrpc,cola,stsb,rte train.lr=1e-4,3e-4,1e-3,3e-3,1e-2"
)
COMMANDS = {
    "peftbench --help": ["--help"],
    "peftbench list": ["list"],
    "plan of 1,000 runs": ["plan", *AXES.split(), "seed=range(0,10)"],
    "plan of 10,000 runs": ["plan", *AXES.split(), "seed=range(0,100)"],
}


def seconds(words: list[str]) -> float:
    """Wall clock of one command."""
    with tempfile.TemporaryDirectory() as folder:
        where = ["--results", folder] if words[0] == "plan" else []
        start = time.perf_counter()
        command = [sys.executable, "-m", "peftbench", *words, *where]
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - start


def main() -> None:
    """Measure and write results/benchmarks/cli.{json,md}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    figures = {}
    for name, words in COMMANDS.items():
        seconds(words)  # files into memory
        figures[name] = median([seconds(words) for _ in range(asked.rounds)])
        print(name, figures[name], flush=True)
    rows = "\n".join(f"| {name} | {value:.2f} |" for name, value in figures.items())
    title = f"### Light verbs, seconds, median of {asked.rounds}"
    write("cli", {"seconds": figures}, f"{title}\n\n| | seconds |\n| --- | ---: |\n{rows}")


if __name__ == "__main__":
    main()
