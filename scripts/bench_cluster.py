"""How long it takes to submit 10,000 runs, and to say how they are.

Slurm and Grid Engine are real ones of one node that take jobs and start none, PBS is the stand-in
of the tests; the others are stand-ins that print answers as documented, so what is measured is what
peftbench does. `status` is asked with one half of the runs done. Questions to the scheduler are
counted by a script in front of its command.

usage: uv run python scripts/bench_cluster.py [NAME …] [--runs N] [--rounds N] [--bundle MINUTES]
As root on Debian; with --bundle 0 each run has a job of its own.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmark import ROOT, median, write

from peftbench.cluster import manifest
from peftbench.config.sweep import plan
from peftbench.results.store import ResultsFolder
from peftbench.system import io

#: The command that says what waits and runs, and the one that takes all of a round back.
ASKS = {
    "slurm": ("squeue", ("scancel", "--user=root")),
    "grid_engine": ("qstat", ("qdel", "-u", "root")),
    "pbs": ("qstat", ("qdel", "0")),
    "lsf": ("bjobs", ("true",)),
    "htcondor": ("condor_q", ("true",)),
    "flux": ("flux", ("true",)),
    "kubernetes": ("kubectl", ("true",)),
}

#: What a cluster's yaml must name, and what keeps jobs from sharing.
WORDS = {
    "flux": ["cluster.cpus=1"],
    "kubernetes": ["cluster.image=i", "cluster.claim=c", "cluster.mount=/"],
}

_NEXT = 'n=$(($(cat "$STANDIN/n") + 1)); echo $n > "$STANDIN/n"\n'

#: Commands that print what the manuals say that they print.
STANDINS = {
    "lsf": {
        "bsub": f'cat > /dev/null; {_NEXT}echo "Job <$n> is submitted to queue <normal>."',
        "bjobs": 'cat "$STANDIN/answer"',
        "bkill": "true",
        "bparams": "echo MAX_JOB_ARRAY_SIZE = 1000",
        "lsid": "echo My cluster name is alpha",
    },
    "htcondor": {
        "condor_submit": f'{_NEXT}m=$(sed -n "s/^queue //p" "$2"); echo "$n.0 - $n.$((m - 1))"',
        "condor_q": 'cat "$STANDIN/answer"',
        "condor_rm": "true",
        "condor_config_val": "echo here",
    },
    "flux": {
        "flux": f"case $1 in submit) {_NEXT}seq $((n * 20000)) $((n * 20000 + ${{2#--cc=0-}})) ;;\n"
        'jobs) cat "$STANDIN/answer" ;; esac',
    },
    "kubernetes": {
        "kubectl": "case $1 in\ncreate) sed -n "
        '\'s/^  name: \\(.*\\)/{"metadata": {"name": "\\1"}}/p\' ;;\n'
        'get) cat "$STANDIN/answer" ;; config) echo alpha ;; esac',
    },
}


def main() -> None:
    """Measure, and write results/benchmarks/cluster.md."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=list(ASKS))
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bundle", type=int, default=30)
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    for name in options.names:
        place = Path(tempfile.mkdtemp(prefix="pb-", dir="/tmp"))
        place.chmod(0o755)  # munged wants its folder to be open to others
        try:
            with _site(name, place) as environment:
                counted = _counting(ASKS[name][0], place, environment)
                rounds = [
                    _round(name, place / f"runs-{n}", options.runs, options.bundle, counted)
                    for n in range(options.rounds)
                ]
        finally:
            shutil.rmtree(place, ignore_errors=True)
        names = ("submit", "again", "status", "queries", "jobs")
        found[name] = {
            key: median(column)
            for key, column in zip(names, zip(*rounds, strict=True), strict=True)
        }
    lines = [
        f"### {options.runs:,} runs on each scheduler, {options.rounds} rounds",
        "",
        "| scheduler | jobs | submit, s | second submit, s | status, half done, s | queries |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {name} | {one['jobs']:,.0f} | {one['submit']:.1f} | {one['again']:.1f} | "
        f"{one['status']:.2f} | {one['queries']:.0f} |"
        for name, one in found.items()
    ]
    write("cluster", {"runs": options.runs, **found}, "\n".join(lines))


@contextmanager
def _site(name: str, place: Path) -> Iterator[dict[str, str]]:
    """The environment in which the commands of a scheduler work that starts nothing."""
    if name == "slurm":
        given = {"SLURM_TEST_ROOT": f"{place}/s", "SLURM_CONF": f"{place}/s/slurm.conf"}
        with _daemons("slurm-ci.sh", given | {"SLURM_TEST_PORT": "16857"}) as environment:
            _call(environment, "scontrol", "update", "PartitionName=main", "State=DOWN")
            yield environment
    elif name == "grid_engine":
        given = {"SGE_TEST_ROOT": f"{place}/s", "SGE_TEST_PORT": "16484"}
        given |= {"SGE_ROOT": f"{place}/s", "SGE_CELL": "ci", "SGE_QMASTER_PORT": "16484"}
        with _daemons("sge-ci.sh", given | {"SGE_EXECD_PORT": "16485"}) as environment:
            _call(environment, "qmod", "-d", "main.q")
            yield environment
    elif name == "pbs":
        sys.path.append(str(ROOT / "tests" / "support"))
        import pytest
        from fake_pbs import FakePbs

        with pytest.MonkeyPatch.context() as patch:
            FakePbs(place, patch)
            yield dict(os.environ)
    else:
        (place / "bin").mkdir()
        (place / "n").write_text("0")
        for command, text in STANDINS[name].items():
            path = place / "bin" / command
            path.write_text(f"#!/bin/bash\n{text}\n")
            path.chmod(0o755)
        searched = f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"
        yield os.environ | {"PATH": searched, "STANDIN": str(place)}


@contextmanager
def _daemons(script: str, given: dict[str, str]) -> Iterator[dict[str, str]]:
    environment = os.environ | given
    command = ["bash", str(ROOT / "scripts" / script)]
    subprocess.run([*command, "install"], env=environment, check=True)
    subprocess.run([*command, "start"], env=environment, check=True, capture_output=True)
    try:
        yield environment
    finally:
        subprocess.run([*command, "stop"], env=environment, check=False)


def _round(
    name: str, folder: Path, count: int, bundle: int, environment: dict[str, str]
) -> tuple[float, ...]:
    words = ["method=bitfit,lora", f"seed=range(0,{count // 2})"]
    yaml = [f"cluster={name}", *WORDS.get(name, ["cluster.cpus=1", "cluster.memory_gb=1"])]
    yaml += [
        "cluster.unknown_minutes=3",
        f"cluster.bundle_minutes={bundle}",
        "cluster.poll_seconds=0",
    ]
    submit = _timed(environment, "submit", *words, *yaml, "--results", str(folder))
    if name in STANDINS:
        _answer(name, folder, Path(environment["STANDIN"]) / "answer")
    again = _timed(environment, "submit", *words, *yaml, "--results", str(folder))
    results = ResultsFolder(folder)
    given, _ = ResultsFolder(ROOT / "results/reference").scan()
    (folder / "records").mkdir(parents=True)
    for run in plan(*words).runs[: count // 2]:
        record = replace(given[0], run=run)
        (folder / "records" / f"{run.key}.json").write_bytes(io.sealed(record.to_json()))
    log = Path(environment["COUNTED"])
    log.write_text("")
    status = _timed(environment, "status", "--results", str(folder))
    asked = log.read_text().splitlines()
    queries = sum(not line.startswith("config") for line in asked)  # kubectl reads a file then
    jobs = sum(1 for _ in results.submissions().glob("*/*_*.json"))
    subprocess.run(ASKS[name][1], env=environment, capture_output=True)
    return submit, again, status, queries, jobs


def _answer(name: str, folder: Path, path: Path) -> None:
    """What a stand-in says: all tasks wait."""
    ((made,), _) = manifest.scan(ResultsFolder(folder))
    jobs: list[dict[str, Any]] = []
    for a, sent in enumerate(made.arrays):
        called, count = manifest.job_name(made.name, a), len(sent.tasks)
        if name == "lsf":
            jobs += [
                {"JOBID": sent.job, "JOBINDEX": str(n + 1), "STAT": "PEND", "PEND_REASON": ""}
                | {"JOB_NAME": f"{called}[{n + 1}]", "EXIT_CODE": "", "EXIT_REASON": ""}
                for n in range(count)
            ]
        elif name == "htcondor":
            jobs += [
                {"ClusterId": int(sent.job or 0), "ProcId": n, "JobStatus": 1, "Peftbench": called}
                for n in range(count)
            ]
        elif name == "flux":
            numbers = (sent.job or "").split()
            jobs += [{"id": int(n), "name": called, "state": "SCHED"} for n in numbers]
        else:
            jobs.append(
                {"kind": "Job", "metadata": {"name": sent.job}, "spec": {"completions": count}}
            )
    key = {"lsf": "RECORDS", "flux": "jobs", "kubernetes": "items"}.get(name)
    path.write_text(json.dumps({key: jobs} if key else jobs))


def _counting(command: str, place: Path, environment: dict[str, str]) -> dict[str, str]:
    """An environment in which every call of a command leaves a line."""
    real = shutil.which(command, path=environment["PATH"])
    (place / "counting").mkdir()
    shim = place / "counting" / command
    shim.write_text(f'#!/bin/sh\necho "$@" >> "$COUNTED"\nexec {real} "$@"\n')
    shim.chmod(0o755)
    path = f"{place / 'counting'}{os.pathsep}{environment['PATH']}"
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
