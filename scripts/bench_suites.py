"""What suites cost: ten noisy variants of MRPC against one evaluation, and solved examples.

Demonstrations of SST-2 are computed once for all texts of a pass (key-value cache); a method that
says that it looks at whole texts has all computed, in turns with one that does not. Then a step of
decoding: 32 texts at a time against one. All in CPU seconds of one thread, which other work on the
machine changes little.

usage: [PEFTBENCH_DATA=FOLDER] uv run --group smollm2 python scripts/bench_suites.py
           [--rounds 3] [--model smollm2_135m] [--texts 200] [--shown 4]
"""

import argparse
import time
from dataclasses import dataclass

import numpy as np
import torch
from benchmark import DATA, median, write

from peftbench.config.sweep import plan
from peftbench.core.run import Json
from peftbench.data import batching, loading, prompting, text_noise, tokenization
from peftbench.evaluation import evaluator
from peftbench.methods.base import Method, build_method
from peftbench.models import decoding
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.suites import base
from peftbench.training.warm_cache import WarmCache

WORDS = ["model=minilm", "method=lora", "task=mrpc", "suite=noise"]
#: The ten variants: nine kinds as strong as they come, typing errors at half strength too.
TWICE = "typos/0.5"


@dataclass(frozen=True, kw_only=True)
class Whole(Method):
    """The model as it is, every text passed whole."""

    @property
    def token_wise(self) -> bool:
        """False, so that nothing is computed once for several texts."""
        return False


def in_context(model: str, count: int, shown: int, rounds: int, root: str) -> Json:
    """Seconds and scores of the same texts behind demonstrations, whole and cached, in fp32."""
    words = ["method=lora", "task=sst2", "prompt=words", "train.max_length=512"]
    (run,) = plan(f"model={model}", *words).runs
    cpu, warm = torch.device("cpu"), WarmCache()
    backbone, tokenizer = warm.backbone(run, cpu)
    table = loading.load_split(run.task, "validation", root)
    table = table.take(np.arange(min(count, len(table.label))))
    tokens = prompting.coder(run, tokenizer, root, shown)(table)
    methods = {"whole": Whole(), "cached": Method()}
    scores: dict[str, np.ndarray] = {}

    def seconds(name: str, tokens: tokenization.TokenizedSplit) -> float:
        view = evaluator.viewed(run, methods[name], None, backbone, tokenizer, cpu, "fp32")
        start = time.process_time()
        scores[name] = evaluator.outputs(view, run, tokens, lambda news: None)["scores"]
        return time.process_time() - start

    few = prompting.coder(run, tokenizer, root, 0)(table.take(np.arange(2)))
    seconds("whole", few)  # libraries and weights into memory
    pairs = [(seconds("whole", tokens), seconds("cached", tokens)) for _ in range(rounds)]
    return {
        "texts": len(table.label),
        "shown": shown,
        "pairs": pairs,
        "ratio": median([whole / cached for whole, cached in pairs]),
        "difference": float(np.abs(scores["whole"] - scores["cached"]).max()),
        "accuracies": [float(np.mean(one.argmax(1) == table.label)) for one in scores.values()],
    }


def decoding_steps(name: str, steps: int = 20, length: int = 64) -> Json:
    """Milliseconds of a step of decoding, of one text and of 32."""
    (run,) = plan(f"model={name}", "method=lora", "task=socialqa").runs
    backbone = Backbone(run.model, verbalizer_ids=[])
    model = AdaptedModel(backbone, 0, seed=0).eval()
    found = {}
    for count in (1, 32):
        ids = np.random.default_rng(0).integers(100, 10_000, count * length).astype(np.int32)
        ends = np.arange(1, count + 1, dtype=np.int64) * length
        label = np.zeros(count, np.int64)
        tokens = tokenization.TokenizedSplit(ids, np.zeros(0, np.uint8), ends, label, 0)
        batch = batching.collate(tokens, np.arange(count), 0, "causal")
        took = []
        for most in (1, 1 + steps):
            start = time.process_time()
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                decoding.greedy(model, batch, decoding.Decoding(most, end=-2))
            took.append(time.process_time() - start)
        found[str(count)] = 1000 * (took[1] - took[0]) / steps
    return found


def main() -> None:
    """Measure and write results/benchmarks/suites.{json,md}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="smollm2_135m", help="a causal one")
    parser.add_argument("--texts", type=int, default=200, help="of SST-2 behind demonstrations")
    parser.add_argument("--shown", type=int, default=4, help="demonstrations")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    root = str(DATA)
    shown = in_context(asked.model, asked.texts, asked.shown, asked.rounds, root)
    steps = decoding_steps(asked.model)
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
        start = time.process_time()
        unique, _ = evaluator.distinct({name: sets[name] for name in names})
        tokens = tokenization.encode(unique, tokenizer, run.train.max_length)
        state, cpu = inserted.state(), torch.device("cpu")
        view = evaluator.viewed(run, method, state, backbone, tokenizer, cpu, "bf16")
        evaluator.outputs(view, run, tokens, lambda news: None)
        return time.process_time() - start

    seconds(["clean"])  # libraries and weights into memory
    pairs = [(seconds(["clean"]), seconds(list(sets))) for _ in range(asked.rounds)]
    ratio = median([many / one for one, many in pairs])
    texts = loading.load_split(run.task, "validation", root).texts[0]
    speeds = {}
    for kind in text_noise.EDITS:
        start = time.process_time()
        text_noise.noisy(texts, kind, 0.1, 0)
        speeds[kind] = len(texts) / (time.process_time() - start)
    slowest = min(speeds, key=lambda kind: speeds[kind])
    figures = {"ratio": ratio, "pairs": pairs, "sentences_per_second": speeds}
    figures |= {"in_context": shown, "decoding_ms": steps}
    title = f"### Noise: MRPC's validation split, MiniLM, LoRA, medians of {asked.rounds} turns"
    rows = [
        ("one evaluation, CPU seconds", f"{median([one for one, _ in pairs]):.1f}"),
        ("with ten noisy variants, CPU seconds", f"{median([many for _, many in pairs]):.1f}"),
        ("ratio (with the clean texts: 11 sets)", f"{ratio:.2f}"),
        (f"noisy sentences a second, slowest kind ({slowest})", f"{speeds[slowest]:,.0f}"),
    ]
    whole, cached = (median(column) for column in zip(*shown["pairs"], strict=True))
    accuracies = ", ".join(f"{100 * one:.1f}" for one in shown["accuracies"])
    asked_as = f"{shown['texts']} texts behind {shown['shown']} solved ones"
    more = [
        (f"in-context evaluation, {asked_as}, CPU seconds", f"{whole:.1f}"),
        ("with what they share computed once, CPU seconds", f"{cached:.1f}"),
        ("times faster, median of turns", f"{shown['ratio']:.2f}"),
        ("largest difference of a score", f"{shown['difference']:.1e}"),
        ("accuracies, each text by itself and shared", accuracies),
        ("a step of decoding, one text, bf16, ms", f"{steps['1']:.0f}"),
        ("a step of decoding, 32 texts, bf16, ms", f"{steps['32']:.0f}"),
    ]
    table, other = (
        "\n".join(f"| {name} | {value} |" for name, value in part) for part in (rows, more)
    )
    head = "| | |\n| --- | ---: |"
    second = f"### A language model: {asked.model}, SST-2, fp32 unless it says bf16"
    write("suites", figures, f"{title}\n\n{head}\n{table}\n\n{second}\n\n{head}\n{other}")


if __name__ == "__main__":
    main()
