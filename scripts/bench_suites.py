"""What noise costs: texts made a second, and ten noisy variants of MRPC against one evaluation.

usage: PEFTBENCH_DATA=FOLDER uv run python scripts/bench_suites.py [--rounds 3]
"""

import argparse
import os
import time

import torch
from benchmark import median, write

from peftbench.config.sweep import plan
from peftbench.data import loading, text_noise, tokenization
from peftbench.evaluation import evaluator
from peftbench.methods.base import build_method
from peftbench.models.adapted_model import AdaptedModel
from peftbench.suites import base
from peftbench.training.warm_cache import WarmCache

WORDS = ["model=minilm", "method=lora", "task=mrpc", "suite=noise"]
#: The ten variants: nine kinds as strong as they come, typing errors at half strength too.
TWICE = "typos/0.5"


def main() -> None:
    """Measure and write results/benchmarks/suites.{json,md}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(2)
    root = os.environ["PEFTBENCH_DATA"]
    (evaluation,) = plan(*WORDS).evaluations
    run = evaluation.run
    backbone, tokenizer = WarmCache().backbone(run, torch.device("cpu"))
    method = build_method(run.method)
    inserted = AdaptedModel(backbone, run.task.classes, run.seeds()["head"])
    method.insert(inserted)
    sets = {
        name: table
        for name, table in base.build_suite(evaluation.suite).sets(run, root).items()
        if name in ("clean", TWICE) or name.endswith("/1")
    }
    assert len(sets) == 11

    def seconds(names: list[str]) -> float:
        start = time.perf_counter()
        unique, _ = evaluator.distinct({name: sets[name] for name in names})
        tokens = tokenization.encode(unique, tokenizer, run.train.max_length)
        state, padding = inserted.state(), tokenizer.pad_token_id
        view = evaluator.viewed(run, method, state, backbone, padding, torch.device("cpu"), "bf16")
        evaluator.outputs(view, run, tokens, lambda news: None)
        return time.perf_counter() - start

    seconds(["clean"])  # libraries and weights into memory
    pairs = [(seconds(["clean"]), seconds(list(sets))) for _ in range(asked.rounds)]
    ratio = median([many / one for one, many in pairs])
    texts = loading.load_split(run.task, "validation", root).texts[0]
    speeds = {}
    for kind in text_noise.EDITS:
        start = time.perf_counter()
        text_noise.noisy(texts, kind, 0.1, 0)
        speeds[kind] = len(texts) / (time.perf_counter() - start)
    slowest = min(speeds, key=lambda kind: speeds[kind])
    figures = {"ratio": ratio, "pairs": pairs, "sentences_per_second": speeds}
    title = f"### Noise: MRPC's validation split, MiniLM, LoRA, medians of {asked.rounds} turns"
    rows = [
        ("one evaluation, seconds", f"{median([one for one, _ in pairs]):.1f}"),
        ("with ten noisy variants, seconds", f"{median([many for _, many in pairs]):.1f}"),
        ("ratio (with the clean texts: 11 sets)", f"{ratio:.2f}"),
        (f"noisy sentences a second, slowest kind ({slowest})", f"{speeds[slowest]:,.0f}"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    write("suites", figures, f"{title}\n\n| | |\n| --- | ---: |\n{table}")


if __name__ == "__main__":
    main()
