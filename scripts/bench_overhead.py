"""What a sweep costs beside its runs: from command to the first run, between runs, to the table.

One worker, short runs of MiniLM, the real command; a wrapper notes when each run is told to be
done. What a record says that its run took (all phases) is taken off.

usage: uv run python scripts/bench_overhead.py [--runs 20]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmark import median, write

#: Runs the command, and appends the time and the key of each finished run to $NOTES.
WRAPPED = """
import os, sys, time
from peftbench import progress
told = progress.Display.__call__
def note(self, event):
    if event.kind == "done":
        with open(os.environ["NOTES"], "a") as file:
            file.write(f"{time.time()} {event.job.key}\\n")
    told(self, event)
progress.Display.__call__ = note
from peftbench.cli import main
main(sys.argv[1:])
"""


def main() -> None:
    """Measure and write results/benchmarks/overhead.{json,md}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    asked = parser.parse_args()
    words = ["method=bitfit", "task=builtin_paraphrase", "size=16", f"seed=range(0,{asked.runs})"]
    words += ["budget=steps", "budget.steps=1", "train.evaluations=1", "train.max_length=16"]
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder, "notes")
        command = [sys.executable, "-c", WRAPPED, "run", *words, "--workers", "1", "--quiet"]
        command += ["--results", f"{folder}/runs"]
        environment = os.environ | {"NOTES": str(notes), "HF_HUB_OFFLINE": "1"}
        start = time.time()
        subprocess.run(command, check=True, capture_output=True, env=environment)
        end = time.time()
        ends, took = [], []
        for line in notes.read_text().splitlines():
            when, key = line.split()
            record = json.loads(Path(folder, "runs/records", f"{key}.json").read_text())
            ends.append(float(when))
            took.append(sum(record["seconds"].values()))
    between = [b - a - own for a, b, own in zip(ends, ends[1:], took[1:], strict=False)]
    figures = {
        "from the command to the first run, imports and checks included": ends[0] - start - took[0],
        "between two runs of a worker": median(between),
        "from the last run to the table, report written": end - ends[-1],
    }
    rows = "\n".join(f"| {name} | {value:.2f} |" for name, value in figures.items())
    text = (
        f"### What a sweep costs beside its runs, seconds: {asked.runs} runs, one worker\n\n"
        f"| | seconds |\n| --- | ---: |\n{rows}\n\nBetween runs: the median; all seconds that the "
        "records name are taken off."
    )
    write("overhead", {"seconds": figures, "between": between}, text)


if __name__ == "__main__":
    main()
