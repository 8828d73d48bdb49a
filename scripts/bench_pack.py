"""Packed training against everything else that a person could do, in runs an hour.

speed   24 runs (BitFit, adapter, LoRA × 8 seeds, 500 MRPC examples, 1 epoch) in four ways: the
        tuned peer, one process a run; two such at a time; `peftbench run --pack off`; and with
        `--pack N`. The peer has no adapters: it does LoRA again.
memory  peak of a process that trains 1, 2, 4, 8 runs at a time, against what it may be.
seeds   the same 20 seeds alone and in packs, dropout on: do the scores differ?

usage: uv run python scripts/bench_pack.py speed [--seeds 8] [--pack 8] [--rounds 3]
       uv run python scripts/bench_pack.py memory
       uv run python scripts/bench_pack.py seeds
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmark import (
    DATA,
    PEER,
    TUNED,
    Json,
    in_turns,
    last_json,
    median,
    model_folder,
    run_command,
    write,
)

METHODS = ("bitfit", "adapter", "lora")

#: Peer's words for a method: it has no adapters.
THEIRS = {"bitfit": "bitfit", "adapter": "lora", "lora": "lora"}


def ours(words: Iterable[str], pack: str, *more: str) -> tuple[float, list[Json]]:
    """Seconds of one command from a folder without records, and its records."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "peftbench", "run", *words, "--results", folder]
        start = time.perf_counter()
        run_command([*command, "--quiet", "--pack", pack, *more])
        took = time.perf_counter() - start
        paths = sorted(Path(folder, "records").glob("*.json"))
        return took, [json.loads(path.read_text()) for path in paths]


def theirs(seeds: int, at_once: int, model: Path, data: Path) -> float:
    """Seconds of a process for each run, so many at a time."""
    threads = max(1, (os.cpu_count() or 1) // at_once)
    base = [sys.executable, str(PEER), "--model", str(model), "--data", str(data), *TUNED]
    base += ["--task", "mrpc", "--epochs", "1", "--train-size", "500"]
    jobs = [
        [*base, "--method", THEIRS[method], "--seed", str(seed)]
        for method in METHODS
        for seed in range(seeds)
    ]
    start = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(lambda job: last_json(job, threads), jobs))
    return time.perf_counter() - start


def speed(asked: argparse.Namespace) -> None:
    """Four ways in turn."""
    grid = [f"method={','.join(METHODS)}", f"seed=range(0,{asked.seeds})", "task=mrpc", "size=500"]
    grid += ["budget.epochs=1", "train.num_evals=1", f"data.root={DATA}"]
    grid += ["train.precision=bf16"]  # as the peer, whatever this CPU is better at
    ours(["task=mrpc", "size=16", "budget.epochs=1", f"data.root={DATA}"], "off")  # tokenise once
    ways: dict[str, Callable[[], float]] = {
        "packed": lambda: ours(grid, str(asked.pack))[0],
        "peer": lambda: theirs(asked.seeds, 1, model_folder(), DATA),
        "alone": lambda: ours(grid, "off")[0],
        "peers": lambda: theirs(asked.seeds, 2, model_folder(), DATA),
    }
    rounds = []
    for turn in range(asked.rounds):
        sides = {side: ways[side]() for side in in_turns(list(ways), turn)}
        rounds.append(sides)
        print(turn, sides, flush=True)
    names = {
        "peer": "(a) the tuned peer, one process a run, LoRA in place of the adapter",
        "peers": "(b) the same, two at a time",
        "alone": "(c) `peftbench run --pack off`",
        "packed": f"(d) `peftbench run --pack {asked.pack}`",
    }
    _tell("pack", rounds, names, 3 * asked.seeds, f"MRPC, MiniLM, {os.cpu_count()} cores", "")


def _tell(
    name: str, rounds: list[Json], names: dict[str, str], runs: int, what: str, more: str
) -> None:
    found = {side: median([sides[side] for sides in rounds]) for side in names}
    ratios = {s: median([sides["peer"] / sides[s] for sides in rounds]) for s in names}
    lines = [
        f"| {called} | {found[side]:.0f} | {3600 * runs / found[side]:,.0f} | {ratios[side]:.2f} |"
        for side, called in names.items()
    ]
    turns = "one round" if len(rounds) == 1 else f"medians of {len(rounds)} alternating rounds"
    text = (
        f"### {runs} runs (BitFit, adapter, LoRA; 500 examples, 1 epoch): {what}\n\n"
        "| | seconds | runs an hour | speed ÷ (a) |\n| --- | ---: | ---: | ---: |\n"
        + "\n".join(lines)
        + f"\n\nWall clock from command to table, {turns}."
        + more
    )
    write(name, {"seconds": rounds, "ratios": ratios, "runs": runs}, text)


def memory(asked: argparse.Namespace) -> None:
    """Peak resident set of a process by how many runs it trains at a time."""
    peaks = {}
    for method in METHODS:
        for size in (0, 1, 2, 4, 8):
            command = [sys.executable, __file__, "one", "--method", method, "--pack", str(size)]
            peaks[f"{method} {size}"] = last_json(command, 1)["peak_mib"]
            print(method, size, peaks[f"{method} {size}"], flush=True)
    lines = []
    for method in METHODS:
        base, one = peaks[f"{method} 0"], peaks[f"{method} 1"]
        for size in (1, 2, 4, 8):
            found = peaks[f"{method} {size}"]
            bound = base + size * (one - base)
            lines.append(
                f"| {method} | {size} | {found:,.0f} | {bound:,.0f} | {found / bound:.2f} |"
            )
    text = (
        "### Memory of a pack: MiniLM, 16 MRPC texts a run and step\n\n"
        "Peak resident set of a process, MiB. Bound: the process with the backbone and the data "
        "loaded, and for each run what one run adds to that.\n\n"
        "| method | runs in a pass | peak | bound | peak / bound |\n"
        "| --- | ---: | ---: | ---: | ---: |\n" + "\n".join(lines)
    )
    write("pack_memory", {"peak_mib": peaks}, text)


def one(asked: argparse.Namespace) -> None:
    """Train so many runs in one pack of this process; its peak as JSON. 0: load and leave."""
    import torch

    from peftbench.config.sweep import plan
    from peftbench.core.runtime import RuntimeConfig
    from peftbench.training.measurement import Phases
    from peftbench.training.packing import pack
    from peftbench.training.trainer import TrainingJob, TrainingOutput, requests_of
    from peftbench.training.warm_cache import WarmCache

    pack.OVERHEAD["cpu"] = 10**6  # all in one pass, whatever the padding
    count = max(1, asked.pack)
    words = ["task=mrpc", "size=96", "budget=steps", "budget.steps=6", "train.num_evals=1"]
    words += [f"method={asked.method}", f"seed=range(0,{count})", f"data.root={DATA}"]
    setting, warm = RuntimeConfig(device="cpu", threads=1, data_root=str(DATA)), WarmCache()
    trainings = [
        (run.key, requests_of(TrainingJob(run, setting, warm, alike=True)))
        for run in plan(*words).runs
    ]
    cpu = torch.device("cpu")
    if asked.pack == 0:
        first = plan(*words).runs[0]
        _, tokenizer = warm.backbone(first, cpu)
        for split in first.task.splits.values():
            warm.tokenised(first, split, tokenizer, setting.data_root)
    phases = Phases(cpu)
    with phases.phase("train"):
        packing: pack.Pack[TrainingOutput] = pack.Pack(cpu, count)
        for left in packing.train(iter(trainings if asked.pack else [])):
            if left.error is not None:
                raise left.error
    print(json.dumps({"peak_mib": phases.memory["cpu_peak_rss_bytes"]["train"] / 2**20}))


def seeds(asked: argparse.Namespace) -> None:
    """Scores of 20 seeds alone and packed."""
    words = ["method=lora", "task=stsb", "size=200", "budget.epochs=4", "train.num_evals=1"]
    words += ["seed=range(0,20)", f"data.root={DATA}"]
    found, shared = {}, {}
    for side, pack in (("alone", "off"), ("packed", "10")):
        _, records = ours(words, pack)
        by_seed = {r["run"]["seed"]: r["metrics"]["spearman"] for r in records}
        found[side] = [by_seed[seed] for seed in sorted(by_seed)]
        shared[side] = sum(bool(r["work"].get("packed_with")) for r in records)
        print(side, found[side], shared[side], "shared passes", flush=True)
    if not shared["packed"]:
        raise SystemExit("no runs shared passes: their scores would be compared with themselves")
    lines = "\n".join(
        f"| {side} | {100 * sum(s) / 20:.2f} | {100 * _deviation(s):.2f} | {100 * min(s):.2f} | "
        f"{100 * max(s):.2f} |"
        for side, s in found.items()
    )
    told = paired(found["alone"], found["packed"])
    text = (
        "### Twenty seeds alone and in packs of ten, with dropout: LoRA, 200 STS-B examples\n\n"
        "| Spearman | mean | sd | least | most |\n| --- | ---: | ---: | ---: | ---: |\n"
        f"{lines}\n\nPacked over alone, seed by seed: {100 * told['mean']:+.2f} (95 % interval "
        f"{100 * told['low']:+.2f} to {100 * told['high']:+.2f}), Wilcoxon signed-rank test "
        f"p = {told['p']:.2f}. {shared['packed']} of the packed runs shared passes."
    )
    write("pack_seeds", {"spearman": found, "shared": shared, "difference": told}, text)


def paired(alone: list[float], packed: list[float]) -> dict[str, float]:
    """The mean difference of seeds, its 95 % interval, and p of no difference.

    A seed has the same examples, head and order on both sides.
    """
    from scipy import stats

    apart = [b - a for a, b in zip(alone, packed, strict=True)]
    half = stats.t.ppf(0.975, len(apart) - 1) * _deviation(apart) / len(apart) ** 0.5
    mean, p = sum(apart) / len(apart), stats.wilcoxon(apart).pvalue
    return {"mean": mean, "low": float(mean - half), "high": float(mean + half), "p": float(p)}


def _deviation(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return float((sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5)


def main() -> None:
    """Measure and write results/benchmarks/pack*.{json,md}."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    whats = {f.__name__: f for f in (speed, memory, seeds, one)}
    parser.add_argument("what", choices=whats)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--pack", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--method", default="lora")
    asked = parser.parse_args()
    whats[asked.what](asked)


if __name__ == "__main__":
    main()
