"""How many workers of how many threads train fastest on this CPU: tried for some seconds.

As many processes as there would be workers pass texts through a plain encoder of the model's size,
forward and backward, side by side, with 1, 2, 4, … threads each. What came out is kept in the
results folder's cache: a sweep that goes on has the threads that it was begun with.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from peftbench.core.run import Json, Run, canonical
from peftbench.results.store import Results
from peftbench.system.hardware import cores, processor

#: Of each try; and the length of its texts.
SECONDS, TOKENS = 1.0, 64

#: How much faster than one thread each others must be, or noise would decide.
CLEARLY = 1.1


class ProbeError(Exception):
    """A process of the probe ended, with what it said."""


def candidates(workers: int) -> list[tuple[int, int]]:
    """Workers and threads of each, which use all cores, most workers first.

    Args:
        workers: as many as memory and the number of runs allow.
    """
    most = cores()
    counts = {min(workers, most >> halved) for halved in range(most.bit_length())}
    return [(count, most // count) for count in sorted(counts, reverse=True)]


def kept(run: Run, workers: int, results: Results) -> tuple[int, int] | None:
    """What `fastest` found for such a sweep before; None if it was not asked."""
    options = candidates(workers)
    try:
        rates = [
            float(rate) for _, _, rate in json.loads(_cache(run, workers, results).read_bytes())
        ]
    except (OSError, ValueError, TypeError):  # a cache: it is made again
        return None
    if len(rates) != len(options):
        return None
    best = max(range(len(options)), key=rates.__getitem__)
    return options[best if rates[best] > CLEARLY * rates[0] else 0]


def fastest(run: Run, workers: int, results: Results) -> tuple[int, int]:
    """Workers and threads of each with which most examples a second were trained.

    Args:
        run: whose model's size, batch and precision are taken.
        workers: as many as memory and the number of runs allow.
        results: whose cache keeps what was found.

    Raises:
        ProbeError: if a process ended.
        OSError: if the folder can take no more.
    """
    options = candidates(workers)
    rates = _measure(_encoder(run), options)
    found = [[*option, rate] for option, rate in zip(options, rates, strict=True)]
    results.write(_cache(run, workers, results), json.dumps(found).encode())
    chosen = kept(run, workers, results)
    assert chosen is not None
    return chosen


def _cache(run: Run, workers: int, results: Results) -> Path:
    what = canonical([_encoder(run), workers, cores(), processor()])
    return results.cache(f"threads-{hashlib.sha256(what.encode()).hexdigest()[:12]}.json")


def _encoder(run: Run) -> Json:
    """What decides how fast a step is, roughly."""
    shape = run.model["shape"]
    width = int(shape.get("hidden_size", 768))
    heads = int(shape.get("num_attention_heads", 12))
    return {
        "width": width,
        "blocks": int(shape.get("num_hidden_layers", 12)),
        "inner": int(shape.get("intermediate_size", 4 * width)),
        "heads": heads if width % heads == 0 else 1,
        "batch": int(run.train["micro_batch"] or run.train["batch"]),
        "precision": run.train["precision"],
    }


def _measure(asked: Json, options: list[tuple[int, int]]) -> list[float]:
    """Examples a second of all workers together, for each option."""
    processes = [_started(asked) for _ in range(max(count for count, _ in options))]
    try:
        for process in processes:
            _answer(process)
        rates = []
        for count, threads in options:
            for process in processes[:count]:
                _say(process, threads)
            rates.append(sum(float(_answer(process)) for process in processes[:count]))
        return rates
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _started(asked: Json) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-m", "peftbench.runner.probe"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        start_new_session=True,  # Ctrl-C in the terminal is for the supervisor
    )
    _say(process, asked)
    return process


def _say(process: "subprocess.Popen[str]", what: Json | int) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(what) + "\n")
        process.stdin.flush()
    except BrokenPipeError:  # it has ended, which `_answer` finds
        return


def _answer(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    if not line:
        said = process.stderr.read().strip().splitlines() or [f"exit code {process.wait()}"]
        raise ProbeError(said[-1])
    return line


def main() -> None:
    """Build what the first line of input says; answer each number of threads with a rate."""
    import torch
    from torch.nn import functional as F

    asked = json.loads(sys.stdin.readline())
    batch, width, inner = asked["batch"], asked["width"], asked["inner"]
    kind = torch.bfloat16 if asked["precision"] == "bf16" else torch.float32
    sizes = ((3 * width, width), (width, width), (inner, width), (width, inner))
    blocks = [
        [torch.empty(size, dtype=kind).uniform_(-0.05, 0.05) for size in sizes]
        for _ in range(asked["blocks"])
    ]
    texts = torch.randn(batch, TOKENS, width, dtype=kind, requires_grad=True)

    def step() -> None:
        x = texts
        for inward, outward, up, down in blocks:
            parts = F.linear(x, inward).view(batch, TOKENS, 3, asked["heads"], -1)
            query, key, value = parts.permute(2, 0, 3, 1, 4)
            attended = torch.softmax(query @ key.mT, -1) @ value
            x = F.layer_norm(x + F.linear(attended.transpose(1, 2).flatten(2), outward), (width,))
            x = F.layer_norm(x + F.linear(F.gelu(F.linear(x, up)), down), (width,))
        x.float().square().mean().backward()

    print("ready", flush=True)
    for line in sys.stdin:
        torch.set_num_threads(int(line))
        step()
        count, start = 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < SECONDS:
            step()
            count += 1
        print(count * asked["batch"] / spent, flush=True)


if __name__ == "__main__":
    main()
