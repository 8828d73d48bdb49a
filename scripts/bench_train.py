"""One run's training speed and memory against the peer: MRPC, MiniLM, batch 16, two threads.

In bf16 and in fp32, for processors with and without instructions for bf16; the peer with the best
settings in the same precision, and with its defaults (fp32, padded to 128). The two sides take
turns to begin, each run in a process of its own; ratios are of neighbours in time. Seconds are
those of the first step to the last and of all that is computed for them: our warm-up, which is
before our clock of training, as well as what the peer's first steps take longer.

usage: uv run python scripts/bench_train.py [--rounds 5] [--size 512] [--methods lora,bitfit,full]
"""

import argparse
import itertools
import json
import sys

from benchmark import DATA, DEFAULTS, TUNED, Json, in_turns, last_json, median, peer, write

OURS = """
import json, sys
import peftbench
words, threads, root = json.loads(sys.argv[1])
planned = peftbench.plan(*words)
setting = peftbench.RuntimeConfig(device="cpu", threads=threads, data_root=root)
record = peftbench.execute(planned.runs[0], setting).record
peak = max(record.memory["cpu_peak_rss_bytes"].values())
warmup = record.seconds["warmup"]
speed = record.work["examples"] / (warmup + record.seconds["train"])
print(json.dumps({**record.metrics, "examples_per_s": speed, "warmup_s": warmup,
                  "peak_rss_mib": peak // 2**20}))
"""


def ours(method: str, precision: str, size: int, seed: int) -> Json:
    """A run of ours at the peer's settings."""
    words = [f"method={method}", "task=mrpc", f"size={size}", f"seed={seed}", "budget.epochs=1"]
    words += [f"train.lr={RATES[method]}", "train.num_evals=1", "train.lr_scheduler_type=linear"]
    words += [f"train.precision={precision}"]
    command = [sys.executable, "-c", OURS, json.dumps([words, 2, str(DATA)])]
    return last_json(command, threads=2)


#: The peer's own default rates.
RATES = {"lora": 5e-4, "bitfit": 1e-3, "full": 5e-5}


def theirs(method: str, precision: str, size: int, seed: int) -> Json:
    """A run of the peer: in a precision at its best, or in "defaults"."""
    words = ["--task", "mrpc", "--method", method, "--epochs", "1", "--train-size", str(size)]
    best = [word for word in TUNED if word != "--bf16" or precision == "bf16"]
    return peer(*words, *(DEFAULTS if precision == "defaults" else best), "--seed", str(seed))


def main() -> None:
    """Measure and write results/benchmarks/train.{json,md}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(RATES))
    asked = parser.parse_args()
    rows, lines = [], []
    for method, precision in itertools.product(asked.methods, ("bf16", "fp32")):
        sides: dict[str, list[Json]] = {"ours": [], "tuned": [], "defaults": []}
        for turn in range(asked.rounds):
            both = [("ours", ours, precision), ("tuned", theirs, precision)]
            defaults = [("defaults", theirs, "defaults")]  # several times slower: one is enough
            for side, run, how in in_turns(both, turn) + (defaults if turn < 1 else []):
                sides[side].append(run(method, how, asked.size, turn))
            told = {k: v[-1]["examples_per_s"] for k, v in sides.items()}
            print(method, precision, turn, told, flush=True)
        speed = {side: [run["examples_per_s"] for run in runs] for side, runs in sides.items()}
        pairs = list(zip(speed["ours"], speed["tuned"], strict=True))
        slow = list(zip(speed["ours"], speed["defaults"], strict=False))
        row: Json = {
            "method": method,
            "precision": precision,
            "examples_per_second": {side: median(values) for side, values in speed.items()},
            "ratio_to_tuned": median([a / b for a, b in pairs]),
            "ratio_to_defaults": median([a / b for a, b in slow]),
            "peak_rss_mib": {
                s: median([r["peak_rss_mib"] for r in runs]) for s, runs in sides.items()
            },
            "accuracy": {s: median([r["accuracy"] for r in runs]) for s, runs in sides.items()},
            "rounds": sides,
        }
        rows.append(row)
        per, memory = row["examples_per_second"], row["peak_rss_mib"]
        lines.append(
            f"| {method} | {precision} "
            f"| {per['ours']:.0f} | {per['tuned']:.0f} | {per['defaults']:.0f} "
            f"| {row['ratio_to_tuned']:.2f} | {row['ratio_to_defaults']:.2f} "
            f"| {memory['ours']:.0f} | {memory['tuned']:.0f} |"
        )
    head = (
        "### Training speed of one run: MRPC, MiniLM, batch 16, 2 threads\n\n"
        f"{asked.size} examples, one epoch; medians of {asked.rounds} alternating rounds, warm-up "
        "counted on both sides. The peer is transformers' Trainer with peft: tuned (the same "
        "precision, batches of similar length), and with its defaults (fp32, padded to 128, batch "
        "32; one run, to ours of the same round). Nobody learns much in so few steps: "
        "results/tuned/trainer compares scores.\n\n"
        "| method | precision | ours, ex/s | tuned peer | default peer | ours / tuned "
        "| ours / default | ours, peak MiB | tuned peer |\n"
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    )
    write("train", {"rows": rows}, head + "\n".join(lines))


if __name__ == "__main__":
    main()
