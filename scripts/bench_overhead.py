"""What a sweep costs beside its runs: from command to the first run, between runs, to the table.

One worker, short runs of MiniLM, the real command; a wrapper notes when each run is told to be
done. What a record says that its run took (all phases) is taken off. Beside it: what a worker
imports, and the part of that which is torch and transformers; the table of 1,000 records; the plan
of 10,000 runs.

usage: uv run python scripts/bench_overhead.py [--runs 20]
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import bench_reports
from benchmark import median, run_command, write

from peftbench.config.sweep import plan
from peftbench.reports import builder
from peftbench.results import status
from peftbench.results.store import ResultsFolder

#: What a worker imports, and what any program with such a model imports.
IMPORTS = {
    "a worker's imports": "import peftbench.training.trainer, peftbench.runner.worker",
    "of these, torch and transformers' BERT": (
        "import torch; from transformers.models.bert.modeling_bert import BertModel"
    ),
}

#: Runs the command, and appends the time and the key of each finished run to $NOTES.
WRAPPED = """
import os, sys, time
from peftbench.runner import progress
told = progress.Display.__call__
def note(self, event):
    if event.kind == "done":
        with open(os.environ["NOTES"], "a") as file:
            file.write(f"{time.time()} {event.job.key}\\n")
    told(self, event)
progress.Display.__call__ = note
from peftbench.cli.main import main
main(sys.argv[1:])
"""

PLAN = """
from peftbench.cli.main import main
main(["plan", "method=bitfit,adapter,lora,full", "seed=range(0,2500)", "--results", "none"])
"""


def main() -> None:
    """Measure and write results/benchmarks/overhead.{json,md}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    asked = parser.parse_args()
    words = ["method=bitfit", "task=synthetic_paraphrase", "size=16", f"seed=range(0,{asked.runs})"]
    words += ["budget=steps", "budget.steps=1", "train.num_evals=1", "train.max_length=16"]
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder, "notes")
        command = [sys.executable, "-c", WRAPPED, "run", *words, "--workers", "1", "--quiet"]
        command += ["--results", f"{folder}/runs"]
        start = time.time()
        run_command(command, NOTES=str(notes))
        end = time.time()
        ends, took = [], []
        for line in notes.read_text().splitlines():
            when, key = line.split()
            record = json.loads(Path(folder, "runs/records", f"{key}.json").read_text())
            ends.append(float(when))
            took.append(sum(record["seconds"].values()))
    imports = {name: median([_python(code) for _ in range(3)]) for name, code in IMPORTS.items()}
    tables, drawn = _table(1000)
    between = [b - a - own for a, b, own in zip(ends, ends[1:], took[1:], strict=False)]
    figures = {
        "from the command to the first run, imports and checks included": ends[0] - start - took[0],
        **imports,
        "between two runs of a worker": median(between),
        "from the last run to the table, report written": end - ends[-1],
        "from the last of 1,000 runs to the tables": tables,
        "from the last of 1,000 runs to the pictures": drawn,
        "plan of 10,000 runs, the whole command": _python(PLAN),
    }
    rows = "\n".join(f"| {name} | {value:.2f} |" for name, value in figures.items())
    text = (
        f"### What a sweep costs beside its runs, seconds: {asked.runs} runs, one worker\n\n"
        f"| | seconds |\n| --- | ---: |\n{rows}\n\nBetween runs: the median; all seconds that the "
        "records name are taken off."
    )
    write("overhead", {"seconds": figures, "between": between}, text)


def _python(code: str) -> float:
    """Seconds of a Python process."""
    start = time.perf_counter()
    run_command([sys.executable, "-c", code])
    return time.perf_counter() - start


def _table(count: int) -> tuple[float, float]:
    """Seconds from the last of so many runs to the tables, and to the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        results = ResultsFolder(Path(folder, "runs"))
        bench_reports.make(results.folder, count)
        wanted = replace(plan("seed=0"), runs=[record.run for record in results.scan()[0]])
        start = time.perf_counter()
        shown: list[float] = []
        records = status.sweep_status(wanted, results).records
        builder.write(
            results, records, [], show=lambda made: shown.append(time.perf_counter() - start)
        )
        return shown[0], time.perf_counter() - start


if __name__ == "__main__":
    main()
