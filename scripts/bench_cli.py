"""How long the light verbs take: help and list; `bench_overhead.py` times a large plan.

usage: uv run python scripts/bench_cli.py [--rounds 7]
"""

import argparse
import sys
import time

from benchmark import median, run_command, write

COMMANDS = {"peftbench --help": ["--help"], "peftbench list": ["list"]}


def seconds(words: list[str]) -> float:
    """Wall clock of one command."""
    start = time.perf_counter()
    run_command([sys.executable, "-m", "peftbench", *words])
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
