"""How long it takes to submit 10,000 runs to Slurm, and to say how they are.

The Slurm is a real one of one node, whose partition takes jobs and starts none. `status` is asked
with one half of the runs done. Calls of `squeue` are counted by a script in front of it.

usage: uv run python scripts/bench_cluster.py [--runs 10000] [--rounds 3]; as root on Debian
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmark import ROOT, median, write

from peftbench.config.sweep import plan
from peftbench.results.store import Results
from peftbench.system import io

SCRIPT = ROOT / "scripts" / "slurm-ci.sh"


def main() -> None:
    """Measure, and write results/benchmarks/cluster.md."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="pb-", dir="/tmp"))
    place.chmod(0o755)  # munged wants its folder to be open to others
    environment = os.environ | {
        "SLURM_TEST_ROOT": f"{place}/s",
        "SLURM_CONF": f"{place}/s/slurm.conf",
        "SLURM_TEST_PORT": "16857",
    }
    subprocess.run(["bash", SCRIPT, "install"], env=environment, check=True)
    subprocess.run(["bash", SCRIPT, "start"], env=environment, check=True, capture_output=True)
    try:
        _call(environment, "scontrol", "update", "PartitionName=main", "State=DOWN")
        counted = _counting(place, environment)
        rounds = [_round(place / f"runs-{n}", options.runs, counted) for n in range(options.rounds)]
    finally:
        subprocess.run(["bash", SCRIPT, "stop"], env=environment, check=False)
        shutil.rmtree(place, ignore_errors=True)
    names = ("submit", "again", "status", "queries", "jobs")
    found = {n: median(column) for n, column in zip(names, zip(*rounds, strict=True), strict=True)}
    rows = (
        ("submit: plan, bundle, write, hand over, seconds", f"{found['submit']:.1f}"),
        ("the same command again: nothing to do, seconds", f"{found['again']:.1f}"),
        ("status, half of the runs being done, seconds", f"{found['status']:.2f}"),
        ("calls of squeue by that status", f"{found['queries']:.0f}"),
    )
    lines = [
        f"### {options.runs:,} runs on Slurm in {found['jobs']:,.0f} jobs, {options.rounds} rounds",
        "",
        "| | |",
        "| --- | ---: |",
        *(f"| {name} | {value} |" for name, value in rows),
    ]
    write("cluster", {"runs": options.runs, **found}, "\n".join(lines))


def _round(folder: Path, count: int, environment: dict[str, str]) -> tuple[float, ...]:
    words = ["method=bitfit,lora", f"seed=range(0,{count // 2})"]
    yaml = [
        *("cluster=slurm", "cluster.partition=main", "cluster.unknown_minutes=3"),
        "cluster.poll_seconds=0",
    ]
    yaml += ["cluster.memory_gb=1", "cluster.cpus=1", "cluster.bundle_minutes=30"]
    submit = _timed(environment, "submit", *words, *yaml, "--results", str(folder))
    again = _timed(environment, "submit", *words, *yaml, "--results", str(folder))
    results = Results(folder)
    given, _ = Results(ROOT / "results/reference").scan()
    (folder / "records").mkdir(parents=True)
    for run in plan(*words).runs[: count // 2]:
        record = replace(given[0], run=run)
        (folder / "records" / f"{run.key}.json").write_bytes(io.sealed(record.to_json()))
    log = Path(environment["COUNTED"])
    log.write_text("")
    status = _timed(environment, "status", "--results", str(folder))
    queries = len(log.read_text().splitlines())
    jobs = sum(1 for _ in results.submissions().glob("*/*_*.json"))
    _call(environment, "scancel", "--user=root")
    return submit, again, status, queries, jobs


def _counting(place: Path, environment: dict[str, str]) -> dict[str, str]:
    """An environment in which every call of squeue leaves a line."""
    real = shutil.which("squeue")
    (place / "bin").mkdir()
    shim = place / "bin" / "squeue"
    shim.write_text(f'#!/bin/sh\necho asked >> "$COUNTED"\nexec {real} "$@"\n')
    shim.chmod(0o755)
    path = f"{place / 'bin'}{os.pathsep}{environment['PATH']}"
    return environment | {"PATH": path, "COUNTED": str(place / "counted")}


def _timed(environment: dict[str, str], *words: str) -> float:
    start = time.perf_counter()
    _call(environment, sys.executable, "-m", "peftbench", *words)
    return time.perf_counter() - start


def _call(environment: dict[str, str], *command: str) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
