"""What a CPU run gains by doing less: what each way brings, or would bring.

1. Padding: tokens of the batches of an epoch over real tokens, for batches of similar length (as
   we train), batches of the shuffle padded to their longest, and all padded to 128 tokens.
2. No gradient below the first trained part: a step that trains the last third of the blocks
   against one whose gradient goes on to the embeddings, and against the arithmetic of both.
3. Lower blocks once for each example: their forward pass as a share of that step. Outputs could be
   kept only if nothing random came before them, so without dropout in the embeddings and blocks
   below; every committed sweep has it.
4. Evaluations: their share of the seconds of committed runs.

Steps take turns in one process, MiniLM, one thread, bf16 if the processor has it, else fp32.

usage: uv run python scripts/bench_work.py [--turns 30]
"""

import argparse
import itertools
import time
from collections.abc import Callable

import numpy as np
import torch
from bench_step import BATCH, TOKENS, arithmetic, batches
from benchmark import DATA, ROOT, Json, median, write

import peftbench
from peftbench.data import batching
from peftbench.data.batching import Batch
from peftbench.methods.base import task_loss
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.models.prepare_for_training import prepare_for_training
from peftbench.results.store import ResultsFolder
from peftbench.system import hardware
from peftbench.training.warm_cache import WarmCache

TASKS = ("mrpc", "cola", "stsb")

#: Of the folder whose records tell the share of evaluations.
FOLDER = ROOT / "results/reference"


def padding() -> list[Json]:
    """Padded tokens over real ones in an epoch of 1,000 examples, by task."""
    rows, warm = [], WarmCache()
    for task in TASKS:
        (run,) = peftbench.plan("model=minilm", f"task={task}").runs
        _, tokenizer = warm.backbone(run, torch.device("cpu"))
        tokens = warm.tokenised(run, "train", tokenizer, str(DATA))
        chosen = batching.subset(tokens, run.task.classes, 1000, seed=0)
        lengths = tokens.lengths
        real = int(lengths[chosen].sum())
        (ours,) = itertools.islice(batching.epochs(tokens, chosen, BATCH, seed=0), 1)
        shuffled = np.array_split(np.random.default_rng(0).permutation(chosen), len(ours))

        def padded(cut: list[np.ndarray], lengths: np.ndarray = lengths, real: int = real) -> float:
            return float(sum(len(rows) * int(lengths[rows].max()) for rows in cut) / real)

        rows.append(
            {
                "task": task,
                "similar_length": padded(ours),
                "shuffled": padded(shuffled),
                "to_128": 128 * len(chosen) / real,
            }
        )
    return rows


class Upper:
    """Steps that train the last third of the blocks.

    Args:
        below: whether the gradient goes on to the first block.
    """

    def __init__(self, backbone: Backbone, below: bool, dtype: torch.dtype):
        self.model = AdaptedModel(backbone, 2, seed=0)
        self.dtype = dtype
        first = len(self.model.blocks) - len(self.model.blocks) // 3
        block = self.model.block_of
        self.model.unfreeze("upper", lambda name, p: (block(name) or 0) >= first)
        if below:
            self.model.unfreeze(
                "lowest", lambda name, p: block(name) == 0 and name.endswith("bias")
            )
        prepare_for_training(self.model, dtype, torch.arange(12_000))
        self.model.train()
        self.first = first

    def __call__(self, batch: Batch) -> None:
        """Forward and backward."""
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            loss = task_loss(self.model(batch), batch["labels"])
        loss.backward()
        self.model.zero_grad(set_to_none=True)

    def lower(self, batch: Batch) -> None:
        """The forward pass up to the first trained block."""

        class Reached(Exception):
            pass

        def stop(module: torch.nn.Module, inputs: object) -> None:
            raise Reached

        hook = self.model.blocks[self.first].register_forward_pre_hook(stop)
        try:
            with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
                self.model(batch)
        except Reached:
            pass
        finally:
            hook.remove()


def timed(
    steps: dict[str, Callable[[Batch], None]], data: list[Batch], turns: int
) -> dict[str, list[float]]:
    """Seconds of each step, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(turns + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step(data[turn % len(data)])
            if turn >= 2:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def evaluations() -> dict[str, float]:
    """Seconds of evaluations over those of training and evaluations, by task, in committed runs."""
    records, _ = ResultsFolder(FOLDER).scan()
    found: dict[str, list[float]] = {}
    for record in records:
        scored = record.seconds["evaluate"]
        found.setdefault(record.run.task.name, []).append(
            scored / (scored + record.seconds["train"])
        )
    return {task: median(values) for task, values in sorted(found.items())}


def main() -> None:
    """Measure and write results/benchmarks/work.{json,md}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=30)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    dtype = torch.bfloat16 if hardware.bf16_on_cpu() else torch.float32
    model = peftbench.plan("model=minilm").runs[0].model
    backbone, data = Backbone(model), batches(8, model)
    upper, whole = Upper(backbone, False, dtype), Upper(backbone, True, dtype)
    seconds = timed({"upper": upper, "whole": whole, "lower": upper.lower}, data, asked.turns)
    pairs = zip(*seconds.values(), strict=True)
    ratios = [(a / b, c / a) for a, b, c in pairs]
    pruned, kept = (median(values) for values in zip(*ratios, strict=True))
    floor = arithmetic(upper, data[0]) / arithmetic(whole, data[0])
    rows, shares = padding(), evaluations()
    lines = "\n".join(
        f"| {row['task']} | {row['similar_length']:.3f} | {row['shuffled']:.2f} "
        f"| {row['to_128']:.2f} |"
        for row in rows
    )
    text = (
        "### What a CPU run does not compute: MiniLM, one thread\n\n"
        f"Tokens of an epoch of 1,000 examples, batch {BATCH}, over those that are no padding:\n\n"
        "| task | batches of similar length (ours) | of the shuffle, padded to the longest | "
        "all padded to 128 |\n| --- | ---: | ---: | ---: |\n"
        f"{lines}\n\n"
        f"A step of {BATCH} texts of {TOKENS} tokens that trains the last third of the blocks "
        f"takes {pruned:.2f} of one whose gradient goes on to the first block (arithmetic: "
        f"{floor:.2f}): no gradient is computed below the first trained part. The forward pass of "
        f"the blocks below is {kept:.2f} of that step; it could be computed once for each example "
        "where nothing random comes before, which needs a model without dropout, so it is computed "
        "each time. Evaluations are "
        + ", ".join(f"{100 * share:.0f} % ({task})" for task, share in shares.items())
        + f" of the seconds of training and evaluation in {FOLDER.relative_to(ROOT)} (medians); "
        "each point of the curve is one pass over its split, and the last one is the reported "
        "score."
    )
    figures: Json = {
        "padding": rows,
        "upper_to_whole": pruned,
        "arithmetic_upper_to_whole": floor,
        "lower_to_upper": kept,
        "evaluation_share": shares,
        "seconds": seconds,
    }
    write("work", figures, text)


if __name__ == "__main__":
    main()
