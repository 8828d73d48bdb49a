"""How long `peftbench report table` takes over many records, and how much memory.

The records are the committed ones with other seeds, weight decays and warm-ups, each under the key
of its run and with the hash of its content; scores and seconds are moved by a little. First every
record is read (cold), then the columns that were kept are (warm), each time by a fresh process.

usage: uv run python scripts/bench_reports.py [--records 100000] [--rounds 5] [--folder KEPT]
"""

import argparse
import itertools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from benchmark import ROOT, median, write

from peftbench.core.run import Record
from peftbench.results.store import ResultsFolder
from peftbench.system import io

DECAYS = [0.01, 0.0, *(round(0.02 + 0.01 * i, 2) for i in range(10))]
WARMUPS = [0.06, 0.0, *(round(0.1 + 0.02 * i, 2) for i in range(10))]

#: One setting of the twelve times twelve, all seeds; and every record.
ONE = [
    "rows=method",
    "columns=task,size",
    "cell=score",
    "where=weight_decay=0.01 warmup_steps=0.06",
]
ALL = ["rows=method,weight_decay,warmup_steps", "columns=task,size", "cell=score"]


def make(folder: Path, count: int) -> int:
    """Write so many records; how many there are."""
    given, _ = ResultsFolder(ROOT / "results/reference").scan()
    bases = list({replace(record.run, seed=0).key: record for record in given}.values())
    draw = np.random.default_rng(0)
    results = ResultsFolder(folder)
    seeds = range(1 + count // (len(bases) * len(DECAYS) * len(WARMUPS)))
    cases = itertools.product(seeds, DECAYS, WARMUPS, bases)
    (folder / "records").mkdir(parents=True)
    for seed, decay, warmup, base in itertools.islice(cases, count):
        record = varied(base, seed, decay, warmup, draw)
        path = folder / "records" / f"{record.run.key}.json"
        path.write_bytes(io.sealed(record.to_json()))
    return len(results.keys())


def varied(base: Record, seed: int, decay: float, warmup: float, draw: Any) -> Record:
    """The record with another seed and recipe."""
    train = replace(base.run.train, weight_decay=decay, warmup_steps=warmup)
    move, pace = draw.normal(0, 0.01), draw.uniform(0.9, 1.1)
    metrics = {name: None if v is None else v + move for name, v in base.metrics.items()}
    seconds = {name: pace * value for name, value in base.seconds.items()}
    run = replace(base.run, train=train, seed=seed)
    return replace(base, run=run, metrics=metrics, seconds=seconds)


def measure(folder: Path, words: list[str]) -> tuple[float, float, float]:
    """Seconds of one command, those of its processors, and the most MiB that it held."""
    out = folder.parent / "table.md"
    command = [sys.executable, "-m", "peftbench", "report", "table", *words]
    command += ["--results", str(folder), "-o", str(out)]
    start, before = time.perf_counter(), _worked()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    held = [0.0]
    watch = threading.Thread(target=_watch, args=(process, held))
    watch.start()
    if process.wait():
        raise SystemExit(f"{' '.join(command)} failed")
    took = time.perf_counter() - start
    watch.join()
    return took, _worked() - before, held[0]


def _worked() -> float:
    """User and system seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _watch(process: "subprocess.Popen[bytes]", held: list[float]) -> None:
    """Proportional set size of the tree: what processes share counts once."""
    root = psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        try:
            for one in [root, *root.children(recursive=True)]:
                total += one.memory_full_info().pss
        except psutil.Error:
            continue
        held[0] = max(held[0], total / 2**20)
        time.sleep(0.2)


def main() -> None:
    """Measure and write results/benchmarks/reports.{json,md}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="Made if it is not there; kept.")
    asked = parser.parse_args()
    place = asked.folder or Path(tempfile.mkdtemp()) / "results"
    try:
        count = len(ResultsFolder(place).keys()) or make(place, asked.records)
        print(f"{count:,} records", flush=True)
        found: dict[str, list[tuple[float, float, float]]] = {}
        load = os.getloadavg()[1]
        for name, words, cold in (
            ("cold: every record is read and its hash checked", ONE, True),
            ("warm: one setting, all seeds", ONE, False),
            ("warm: every record, 144 rows a method", ALL, False),
        ):
            for _ in range(asked.rounds):
                if cold:
                    ResultsFolder(place).cache("frame").unlink(missing_ok=True)
                found.setdefault(name, []).append(measure(place, words))
                print(name, found[name][-1], flush=True)
    finally:
        if asked.folder is None:
            shutil.rmtree(place.parent)
    figures = {
        name: {
            "seconds": median([wall for wall, _, _ in all_]),
            "cpu_seconds": median([cpu for _, cpu, _ in all_]),
            "peak_mib": max(peak for _, _, peak in all_),
        }
        for name, all_ in found.items()
    }
    rows = "\n".join(
        f"| {name} | {one['seconds']:.1f} | {one['cpu_seconds']:.1f} | {one['peak_mib']:,.0f} |"
        for name, one in figures.items()
    )
    title = f"### `peftbench report table` over {count:,} records, median of {asked.rounds}"
    head = "| | seconds | CPU seconds | peak MiB |\n| --- | ---: | ---: | ---: |"
    about = (
        "All processes together. Load of the machine over the five minutes before: "
        f"{load:.1f} on {os.cpu_count()} cores; what else ran there is in the seconds."
    )
    write(
        "reports",
        {"records": count, "load": load, "commands": figures},
        "\n".join([title, "", about, "", head, rows]),
    )


if __name__ == "__main__":
    main()
