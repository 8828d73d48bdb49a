"""What one GPU does: runs alone, the peer, packs, a sweep, equal results, kernels of attention.

BERT-base's shape with random weights, MRPC, batch 16, bf16. Rows come in the order of their
importance and are written as they are found, to results/benchmarks/gpu.{md,json}, with --only to
gpu_PARTS.{md,json}; what there is no time for is named. In a call without network what is not there
is brought along by `gpu_bundle.sh`. A part that fails leaves a row that says why, and the next one
follows; nothing starts when the minutes since the start of this script are over, and what runs then
is ended.

usage: uv run python scripts/bench_gpu.py [--minutes 5] [--only equal,large,peer_full,kernels]
       uv run python scripts/bench_gpu.py --smoke    # the same on a CPU, tiny, nothing is written
"""

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from benchmark import DATA, PEER, Json, last_json, model_folder, run_command, write

if TYPE_CHECKING:
    import torch

    from peftbench.core.run import Run
    from peftbench.core.runtime import RuntimeConfig
    from peftbench.training.packing.pack import Left
    from peftbench.training.trainer import TrainingOutput
    from peftbench.training.warm_cache import WarmCache

STARTED = time.monotonic()

Item = TypeVar("Item")

METHODS = ("lora", "bitfit", "adapter", "full")

#: Of a run: half an epoch of MRPC.
STEPS = 115

#: Without dropout a run in a pack is the run alone.
STILL = "model.shape={hidden_dropout_prob:0.0,attention_probs_dropout_prob:0.0}"


#: Runs the peer without cuDNN's attention. Its JSON also gets the seconds of the second half of its
#: steps: those of all contain what the first ones take longer.
PEER_CODE = """
import contextlib, io, json, runpy, sys, time
import torch, transformers
torch.backends.cuda.enable_cudnn_sdp(False)
sys.argv = sys.argv[1:]
times = []
class Clock(transformers.TrainerCallback):
    def on_step_end(self, args, state, control, **more):
        if state.global_step in (state.max_steps // 2, state.max_steps):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append(time.perf_counter())
train = transformers.Trainer.train
def timed(trainer):
    trainer.add_callback(Clock())
    return train(trainer)
transformers.Trainer.train = timed
with contextlib.redirect_stdout(io.StringIO()) as told:
    runpy.run_path(sys.argv[0], run_name="__main__")
found = json.loads(told.getvalue().strip().splitlines()[-1])
print(json.dumps(found | {"second_half_s": times[1] - times[0]}))
"""


class NoTimeLeft(Exception):
    """A part was cut, as the minutes are over."""


@dataclass
class Bench:
    """Where and how large, and what was found so far.

    Attributes:
        device: cuda or cpu.
        model: a folder of random weights.
        steps: of a run.
        pack: members of a pack.
        large: members of a large pack.
        full: members of a pack of full fine-tuning.
        seeds: of each method of the sweep.
        end: on the monotonic clock.
        rows: by part, in order.
    """

    device: str
    model: Path
    steps: int
    pack: int
    large: int
    full: int
    seeds: int
    end: float
    peak: float = 0.0
    rows: dict[str, list[Json]] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds until the minutes are over."""
        return self.end - time.monotonic()

    def in_time(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items for which there is time.

        Raises:
            NoTimeLeft: before the first for which there is none.
        """
        for item in items:
            if self.left <= 0:
                raise NoTimeLeft
            yield item

    def words(self, method: str, *more: str) -> list[str]:
        """Overrides of a run."""
        given = any(word.startswith("train.precision=") for word in more)
        return [
            *("model=bert_base", f"model.checkpoint={self.model}", "model.sha256=null"),
            *("task=mrpc", f"data.root={DATA}", f"method={method}"),
            *(() if given else ("train.precision=bf16",)),
            *("train.num_evals=1", *more),
        ]

    def runs(self, method: str, *more: str) -> "list[Run]":
        """Runs of so many steps."""
        from peftbench.config.sweep import plan

        budget = () if any(word.startswith("budget") for word in more) else self._budget()
        return plan(*self.words(method, *budget, *more)).runs

    def _budget(self) -> tuple[str, str]:
        return "budget=steps", f"budget.steps={self.steps}"


def alone(bench: Bench) -> Iterator[Json]:
    """A run after the other in one process; the first method comes again at the end.

    Energy is left out: NVML's counter moves ten times a second, too seldom for runs of half a
    second.
    """
    from peftbench.training.trainer import execute
    from peftbench.training.warm_cache import WarmCache

    warm, first = WarmCache(), dict[str, float]()
    order = [*METHODS, *METHODS[1:], *METHODS[1:2], METHODS[0], METHODS[0]]
    for number, method in enumerate(bench.in_time(order), 1):
        (run,) = bench.runs(method, f"seed={number}")
        start = time.perf_counter()
        record = execute(run, _setting(bench), warm=warm, stop=lambda: bench.left <= 0).record
        took = time.perf_counter() - start
        speed = record.speed["examples_per_second"] or 0.0
        busy = record.seconds["warmup"] + record.seconds["train"]
        yield {
            "run": f"{number}, {method}",
            "examples_per_second": speed,
            "with_warmup": record.work["examples"] / busy,
            "to_its_first": speed / first[method] if method in first else None,
            "ms_a_step": 1000 * record.seconds["train"] / bench.steps,
            "share_of_peak": _share(bench, record.flops, record.work, record.seconds["train"]),
            "warmup_seconds": record.seconds["warmup"],
            "wall_seconds": took,
        }
        first.setdefault(method, speed)


def peer(bench: Bench, method: str) -> Iterator[Json]:
    """The tuned peer, at its best: without cuDNN's attention, with both kinds of padding.

    Its pace is that of the second half of its steps, as ours is behind our warm-up; then both again
    with all that comes before. Ours is the method's first run in its process.
    """
    ours = [row for row in bench.rows.get("alone", []) if row["run"].endswith(f", {method}")]
    for pad in bench.in_time(("dynamic", "max")):
        command = [sys.executable, "-c", PEER_CODE, str(PEER), "--model", str(bench.model)]
        command += ["--data", str(DATA), "--task", "mrpc", "--method", method, "--bf16"]
        command += ["--pad", pad] + ["--group"] * (pad == "dynamic") + ["--batch", "16"]
        command += ["--epochs", "1", "--train-size", str(16 * bench.steps)]
        found = last_json(command, os.cpu_count() or 1, bench.left)
        pace = 16 * (bench.steps - bench.steps // 2) / found["second_half_s"]
        whole = found["examples_per_s"]
        yield {
            "run": f"peer, {method}, pad {pad}",
            "examples_per_second": pace,
            "with_warmup": whole,
            "ours_to_it": ours[0]["examples_per_second"] / pace if ours else None,
            "ours_to_it_with_warmup": ours[0]["with_warmup"] / whole if ours else None,
            "wall_seconds": found["wall_s"],
        }


def packed(bench: Bench, large: bool = False) -> Iterator[Json]:
    """Members that train together: their set-up, and how fast they are in the second half."""
    from peftbench.training import measurement
    from peftbench.training.warm_cache import WarmCache

    device, warm = _device(bench), WarmCache()
    sizes = [(method, bench.large if large else bench.pack) for method in METHODS[:3]]
    for method, size in bench.in_time([*sizes, *([("full", bench.full)] * large)]):
        times: list[float] = []  # when all are set up and have passed once, half-way, at the end
        half = bench.steps // 2
        first = 1 if device.type == "cpu" else 2  # a GPU's memory is tried with a step of the first
        taken, marks = itertools.count(1), (first, size * half, size * bench.steps)

        def stop(
            times: list[float] = times,
            taken: "itertools.count[int]" = taken,
            marks: tuple[int, ...] = marks,
        ) -> bool:
            """Called after each step of a member; asks all to stop when the time is over."""
            if next(taken) in marks:
                times.append(measurement.synchronized_clock(device))
            return bench.left <= 0

        start = time.perf_counter()
        left = _train_pack(
            bench, bench.runs(method, f"seed=range(0,{size})"), _setting(bench), warm, stop
        )
        wall = time.perf_counter() - start
        records = [one.end.record for one in left if one.end is not None]
        warm.keep()
        work = {n: sum(r.work[n] for r in records) for n in records[0].work if "tokens" in n}
        share = (bench.steps - half) / bench.steps
        examples = share * sum(record.work["examples"] for record in records)
        flops = share * sum(record.flops or 0.0 for record in records)
        seconds = times[2] - times[1]
        yield {
            "run": f"packed, {method} × {size}",
            "examples_per_second": examples / seconds,
            "ms_a_step": 1000 * seconds / (bench.steps - half),
            "share_of_peak": _share(bench, flops, work, seconds),
            "set_up_and_first_pass_ms_a_member": 1000 * (times[0] - start) / size,
            "graphs": left[0].graphs,
            "wall_seconds": wall,
        }


def equal(bench: Bench) -> Iterator[Json]:
    """Whether a run is the same in a pack as alone, and a deterministic pack the same again."""
    from peftbench.training.trainer import execute
    from peftbench.training.warm_cache import WarmCache

    warm, steps = WarmCache(), ("budget=steps", "budget.steps=8", "seed=0,1")

    def late() -> bool:
        return bench.left <= 0

    def scores(left: "list[Left[TrainingOutput]]") -> "dict[str, Any]":
        return {one.key: one.end.predictions["scores"] for one in left if one.end is not None}

    for method in bench.in_time(METHODS):
        dropless = ("method.dropout=0",) * (method == "lora")
        runs = bench.runs(method, STILL, "train.precision=fp32", *dropless, *steps)
        shared = scores(_train_pack(bench, runs, _setting(bench), warm, late))
        alone = {
            run.key: execute(run, _setting(bench), warm=warm, stop=late).predictions for run in runs
        }
        apart = max(abs(shared[key] - found["scores"]).max() for key, found in alone.items())
        yield {
            "run": f"{method} × 2 without dropout, fp32: in a pack and alone",
            "largest_difference_of_scores": f"{apart:.1e}",
        }
        warm.keep()
    setting = _setting(bench, deterministic=True)
    for method in bench.in_time(("lora",)):
        runs = bench.runs(method, *steps)
        one, other = (
            scores(_train_pack(bench, runs, setting, WarmCache(), late)) for _ in range(2)
        )
        apart = max(abs(one[key] - other[key]).max() for key in one)
        same = all((one[key] == other[key]).all() for key in one)
        yield {
            "run": f"{method} × 2 with dropout, bf16, --deterministic: a pack and its repetition",
            "largest_difference_of_scores": "none, bit for bit" if same else f"{apart:.1e}",
        }


def sweep(bench: Bench) -> Iterator[Json]:
    """BitFit, adapter and LoRA × seeds, 500 examples, one epoch: from the command to the table."""
    for state in bench.in_time(("first", "again, in another process")):
        # a sweep that is ended leaves workers that may write for a moment
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            gpu = bench.device == "cuda"
            words = bench.words(
                ",".join(METHODS[:3]), f"size={500 if gpu else 16}", "budget.epochs=1"
            )
            command = [sys.executable, "-m", "peftbench", "run", *words]
            command += [f"seed=range(0,{bench.seeds})", "--results", folder, "--quiet"]
            command += ["--pack", "auto" if gpu else "4"]
            start = time.perf_counter()
            run_command(command, bench.left)
            made = len(list(Path(folder, "records").glob("*.json")))
            yield {
                "run": f"sweep of {made} runs, {state}",
                "wall_seconds": time.perf_counter() - start,
            }


def kernels(bench: Bench) -> Iterator[Json]:
    """Forward and backward of an attention with a padding mask, by kernel."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    device = _device(bench)
    backends = {
        "cudnn": SDPBackend.CUDNN_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
        "flash": SDPBackend.FLASH_ATTENTION,
        "math": SDPBackend.MATH,
    }
    shapes = ((16, 64), (512, 64), (512, 128)) if bench.device == "cuda" else ((2, 16),)
    for rows, length in bench.in_time(shapes):
        for name, backend in backends.items():
            q, k, v = (
                torch.randn(
                    rows, 12, length, 64, device=device, dtype=torch.bfloat16, requires_grad=True
                )
                for _ in range(3)
            )
            mask = torch.ones(rows, 1, 1, length, dtype=torch.bool, device=device)
            mask[:, :, :, -length // 4 :] = False

            def once(
                q: Any = q, k: Any = k, v: Any = v, mask: Any = mask, backend: Any = backend
            ) -> None:
                with sdpa_kernel(backend):
                    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)
                torch.autograd.grad(out.sum(), (q, k, v))

            try:
                first, later = _timed(once, 1, device), _timed(once, 20, device)
            except RuntimeError as error:
                yield {"run": f"{name}, {rows} × {length}", "refuses": str(error).splitlines()[0]}
                continue
            yield {
                "run": f"{name}, {rows} × {length}",
                "first_ms": 1000 * first,
                "ms_a_step": 1000 * later,
            }


PARTS: dict[str, tuple[Callable[[Bench], Iterator[Json]], str]] = {
    "alone": (alone, "Runs alone, one after the other in one process"),
    "peer": (
        partial(peer, method="lora"),
        "The peer: transformers' Trainer with peft, at its best",
    ),
    "packed": (packed, "Runs that share passes"),
    "sweep": (sweep, "A sweep, from the command to the table"),
    "equal": (equal, "Equal results"),
    "large": (partial(packed, large=True), "More runs that share passes"),
    "peer_full": (partial(peer, method="full"), "The peer with full fine-tuning"),
    "kernels": (kernels, "One attention, forward and backward, by kernel"),
}


def _rows(bench: Bench, part: str) -> Iterator[Json]:
    """The rows of a part; where it fails, a row that says why, as the others are still wanted.

    Raises:
        NoTimeLeft: where it was cut.
    """
    try:
        yield from PARTS[part][0](bench)
    except (Exception, SystemExit) as error:
        if bench.left <= 0:  # also what was ended then
            raise NoTimeLeft from error
        traceback.print_exc()
        reason = str(error).partition("\n")[0]
        yield {"run": f"{part} stopped", "refuses": f"{type(error).__name__}: {reason}"[:200]}


def _setting(bench: Bench, deterministic: bool = False) -> "RuntimeConfig":
    from peftbench.core.runtime import RuntimeConfig

    return RuntimeConfig(bench.device, data_root=str(DATA), deterministic=deterministic)


def _train_pack(
    bench: Bench,
    runs: "list[Run]",
    setting: "RuntimeConfig",
    warm: "WarmCache",
    stop: Callable[[], bool],
) -> "list[Left[TrainingOutput]]":
    """Train runs in one pack.

    Raises:
        Exception: of the first that failed.
    """
    from peftbench.training.packing.pack import Pack
    from peftbench.training.trainer import TrainingJob, TrainingOutput, requests_of

    jobs = (TrainingJob(run, setting, warm, stop=stop, alike=True) for run in runs)
    pack: Pack[TrainingOutput] = Pack(_device(bench), len(runs), tell=lambda text: None)
    left = list(pack.train((job.key, requests_of(job)) for job in jobs))
    for one in left:
        if one.error is not None:
            raise one.error
    return left


def _device(bench: Bench) -> "torch.device":
    import torch

    return torch.device(bench.device, 0) if bench.device == "cuda" else torch.device("cpu")


def _gpu() -> str:
    import pynvml
    import torch

    try:
        pynvml.nvmlInit()
        driver = pynvml.nvmlSystemGetDriverVersion()
    except pynvml.NVMLError as error:
        driver = f"unknown ({error})"
    name = torch.cuda.get_device_name(0)
    return f"{name}, driver {driver}, CUDA {torch.version.cuda}"


def _timed(what: Callable[[], None], times: int, device: "torch.device") -> float:
    """Seconds of a call."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        what()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / times


def _share(bench: Bench, flops: float | None, work: Json, seconds: float) -> float:
    """Model FLOPs of the tokens that are there, padding left out, to those of the matmul peak."""
    return (flops or 0.0) * work["tokens"] / work["padded_tokens"] / seconds / bench.peak


def _peak(bench: Bench) -> float:
    """FLOPs a second of a large bf16 product."""
    import torch

    device, side = _device(bench), 8192 if bench.device == "cuda" else 512
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    product = torch.empty_like(a)

    def once() -> None:
        torch.mm(a, a, out=product)

    _timed(once, 3, device)
    return 2 * side**3 / _timed(once, 20, device)


def random_bert(folder: Path, tiny: bool) -> None:
    """BERT-base's shape with random weights, and MiniLM's tokenizer, which has the same words."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    small: Json = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(**(small | {"intermediate_size": 64} if tiny else {}))
    BertForSequenceClassification(config).save_pretrained(folder)
    words = os.environ.get("PEFTBENCH_TOKENIZER") or model_folder()
    AutoTokenizer.from_pretrained(words).save_pretrained(folder)


def markdown(bench: Bench, where: str, left: list[str]) -> str:
    """All rows so far."""
    text = [
        f"### One GPU: {where}",
        "BERT-base's shape with random weights, MRPC, batch 16, bf16. A bf16 product of 8192 × "
        f"8192 matrices does {bench.peak / 1e12:.0f} TFLOP/s. Shares of it are of model FLOPs, "
        "padding left out.",
    ]
    for part, rows in bench.rows.items():
        names = list(dict.fromkeys(name for row in rows for name in row))
        text.append(f"**{PARTS[part][1]}**")
        head = "| " + " | ".join(name.replace("_", " ") for name in names) + " |"
        rule = "| --- |" + " ---: |" * (len(names) - 1)
        body = [
            "| " + " | ".join(_cell(name, row.get(name)) for name in names) + " |" for row in rows
        ]
        text.append("\n".join([head, rule, *body]))
    if left:
        text.append(f"Not measured for want of time: {', '.join(left)}.")
    return "\n\n".join(text)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if name == "share_of_peak":
        return f"{100 * value:.1f} %"
    if name in ("to_its_first", "ours_to_it", "ours_to_it_with_warmup"):
        return f"{value:.2f}"
    if name == "graphs" and "captured" not in value:  # why none were
        return f"launched one by one: {str(value).partition('. ')[0]}"
    return f"{value:,.1f}" if isinstance(value, float) else str(value).partition(". ")[0]


def main() -> None:
    """Measure, and write after each row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, in this order")
    parser.add_argument("--smoke", action="store_true")
    asked = parser.parse_args()
    import torch

    if not asked.smoke and not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU here; --smoke tries the script on a CPU")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "bert_base")
        random_bert(model, asked.smoke)
        end = STARTED + 60 * asked.minutes
        large: Json = {"steps": STEPS, "pack": 32, "large": 64, "full": 8, "seeds": 22}
        small: Json = {"steps": 4, "pack": 2, "large": 3, "full": 2, "seeds": 1}
        device = "cpu" if asked.smoke else "cuda"
        bench = Bench(device, model, end=end, **(small if asked.smoke else large))
        bench.peak = _peak(bench)
        where = "a CPU, for a try" if asked.smoke else _gpu()
        left = measure(bench, asked.only.split(","), where)
        print(markdown(bench, where, left))


def measure(bench: Bench, parts: list[str], where: str) -> list[str]:
    """Measure parts, writing after each row where that is on a GPU; return what was left out."""
    left = list(parts)

    def save() -> None:
        if bench.device == "cuda":
            figures = {"gpu": where, "peak": bench.peak, "rows": bench.rows, "left": left}
            name = "gpu" if parts == list(PARTS) else "_".join(["gpu", *parts])
            write(name, figures, markdown(bench, where, left), show=False)

    for part in parts:
        if bench.left <= 0:
            break
        rows: list[Json] = []
        try:
            for row in _rows(bench, part):
                rows.append(row)
                bench.rows[part] = rows
                left[0] = f"{part} (the rest)"
                print(part, json.dumps(row), flush=True)
                save()
        except NoTimeLeft:
            break
        del left[0]
    save()
    return left


if __name__ == "__main__":
    main()
