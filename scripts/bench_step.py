"""One optimizer step of every method, and what makes it fast: MiniLM on a CPU, one thread.

All encoders live in one process and take turns, a step each, on the same batches of MRPC's shape;
a step's seconds are divided by those of the plain encoder's forward and backward pass in the same
turn (all weights frozen but the first block's biases, so that gradients flow through everything).

usage: uv run python scripts/bench_step.py [--turns 30]
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from benchmark import Json, median, write

import peftbench
from peftbench import attention, catalog, cpu
from peftbench.backbone import Backbone
from peftbench.encoder import Batch, Encoder
from peftbench.method import Method, make, task_loss
from peftbench.settle import settle

BATCH, TOKENS = 16, 56

#: Methods beside the yamls, and what they are compared with.
EXTRA = {
    "robust_partial without a penalty": ["method=robust_partial", "method.penalty=none"],
    "bayes_hybrid, flipout": ["method=bayes_hybrid", "method.noise=flipout"],
    "lora with the library's attention": ["method=lora"],
    "lora with torch's dropout": ["method=lora"],
}


def batches(count: int) -> list[Batch]:
    """Random words, lengths around MRPC's."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(count):
        lengths = torch.from_numpy(generator.integers(TOKENS - 12, TOKENS + 1, BATCH))
        ids = torch.from_numpy(generator.integers(1000, 12_000, (BATCH, TOKENS)))
        real = torch.arange(TOKENS) < lengths[:, None]
        labels = torch.from_numpy(generator.integers(0, 2, BATCH))
        found.append(
            {
                "input_ids": ids * real,
                "attention_mask": real[:, None, None, :],
                "token_type_ids": torch.zeros_like(ids),
                "labels": labels,
            }
        )
    return found


def stepper(words: list[str], backbone: Backbone, data: list[Batch], name: str) -> Callable:
    """A function that takes one step on a batch, and its trained parameters."""
    method: Method = make(peftbench.plan(*words).runs[0].method)
    encoder = Encoder(backbone, 2, seed=0, examples=1000)
    torch.manual_seed(0)
    method.insert(encoder)
    with torch.autocast("cpu", torch.bfloat16):
        method.prepare(encoder, iter(data * 10))
    plain = name == "lora with torch's dropout"
    hasten = cpu.hasten
    cpu.hasten = (lambda module: None) if plain else hasten
    settle(encoder, True, torch.arange(12_000))
    cpu.hasten = hasten
    if name == "lora with the library's attention":
        encoder.module.set_attn_implementation("sdpa")
    optimizer = torch.optim.AdamW(encoder.trained().values(), lr=1e-5, fused=True)
    encoder.train()
    method.after_step(encoder, 0, 1000)

    def step(batch: Batch) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = method.loss(encoder, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.trained().values(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def floor(backbone: Backbone) -> Callable:
    """Forward and backward through the plain encoder."""
    encoder = Encoder(backbone, 2, seed=0)
    encoder.unfreeze("bias", lambda name, p: encoder.block_of(name) == 0 and name.endswith("bias"))
    settle(encoder, True, torch.arange(12_000))
    encoder.train()

    def step(batch: Batch) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = task_loss(encoder(batch), batch["labels"])
        loss.backward()
        encoder.zero_grad(set_to_none=True)

    return step


def main() -> None:
    """Measure and write results/benchmarks/step.{json,md}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=30)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    assert attention.NAME  # registered
    backbone = Backbone(peftbench.plan("model=minilm").runs[0].model)
    data = batches(8)
    named = {name: [f"method={name}"] for name in catalog.options("method", (catalog.packaged(),))}
    steps = {name: stepper(w, backbone, data, name) for name, w in (named | EXTRA).items()}
    steps["plain"] = floor(backbone)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(asked.turns + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step(data[turn % len(data)])
            if turn >= 2:
                seconds[name].append(time.perf_counter() - start)
    rows: list[Json] = []
    for name, values in seconds.items():
        ratio = median([a / b for a, b in zip(values, seconds["plain"], strict=True)])
        rows.append({"method": name, "milliseconds": 1e3 * median(values), "to_plain": ratio})
    rows.sort(key=lambda row: row["to_plain"])
    lines = [f"| {r['method']} | {r['milliseconds']:.0f} | {r['to_plain']:.2f} |" for r in rows]
    head = (
        f"### One optimizer step: MiniLM, {BATCH} texts of {TOKENS} tokens, one thread\n\n"
        f"Medians of {asked.turns} turns; in each, every method takes a step on the same batch. "
        "Plain: forward and backward through the frozen encoder.\n\n"
        "| method | ms | to plain |\n| --- | ---: | ---: |\n"
    )
    write("step", {"rows": rows}, head + "\n".join(lines))


if __name__ == "__main__":
    main()
