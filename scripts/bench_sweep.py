"""A sweep of 12 short runs against 12 processes of the tuned peer, wall clock.

Ours: full, adapter, LoRA and BitFit, three seeds each, 500 MRPC examples, one epoch, one
`peftbench run` from command to table. The peer has no adapters: its fourth method is LoRA again.
Both score the official validation split once. The time left that is printed when a tenth of the
runs is done is set against the time that the rest then takes.

usage: uv run python scripts/bench_sweep.py [--rounds 2]
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time

from benchmark import DATA, TUNED, in_turns, median, peer, write

GRID = ["method=full,adapter,lora,bitfit", "seed=0,1,2", "task=mrpc", "size=500"]
GRID += ["budget.epochs=1", "train.num_evals=1", "train.precision=bf16", f"data.root={DATA}"]


#: What a line says when a run has ended: how many have, of how many, and the time left.
ENDED = re.compile(r"^\s*(\d+)/(\d+) .*?(?:([\d.]+) (s|min|h) left)?\s*$")

SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


def ours() -> tuple[float, float, float]:
    """A sweep from a folder without records: its seconds, those left by its own word, and in truth.

    The time left is that of the first line after a tenth of the runs.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "peftbench", "run", *GRID, "--results", folder]
        start = time.perf_counter()
        told: tuple[float, float] | None = None
        last = start
        with subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        ) as sweep:
            assert sweep.stderr is not None
            for line in sweep.stderr:
                found = ENDED.match(line)
                if found is None:
                    continue
                last = time.perf_counter()
                done, total, left, unit = found.groups()
                if told is None and left and int(done) >= int(total) / 10:
                    told = last, float(left) * SECONDS[unit]
        if sweep.returncode or told is None:
            raise SystemExit(f"{' '.join(command)} ended with {sweep.returncode}; told: {told}")
        return time.perf_counter() - start, told[1], last - told[0]


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
    owns: list[tuple[float, float, float]] = []
    peers: list[float] = []
    for turn in range(asked.rounds):
        for side in in_turns(("ours", "peer"), turn):
            if side == "ours":
                owns.append(ours())
            else:
                peers.append(theirs())
        print(turn, owns[-1], peers[-1], flush=True)
    turns = [(*own, peer_) for own, peer_ in zip(owns, peers, strict=True)]
    ratio = median([peer_ / own for own, _, _, peer_ in turns])
    said = [left / truth for _, left, truth, _ in turns]
    rounds = (
        f"median of {asked.rounds} alternating rounds"
        if asked.rounds > 1
        else "one alternating round"
    )
    text = (
        "### A sweep of 12 runs (4 methods, 3 seeds, 500 MRPC examples, 1 epoch), wall clock\n\n"
        "| | seconds |\n| --- | ---: |\n"
        f"| one `peftbench run`, workers by default | {median([own for own, *_ in turns]):.0f} |\n"
        "| 12 processes of the tuned peer, one after the other, LoRA in place of the adapter | "
        f"{median(peers):.0f} |\n\n"
        f"{ratio:.2f} times faster, {rounds} in bf16. The "
        "time left that was printed after a tenth of the runs was "
        f"{' and '.join(f'{one:.2f}' for one in said)} of what was left in truth."
    )
    figures = [
        {"ours": own, "peer": peer_, "left_printed": left, "left": truth}
        for own, left, truth, peer_ in turns
    ]
    write("sweep", {"seconds": figures, "ratio": ratio, "left_ratio": said}, text)


if __name__ == "__main__":
    main()
