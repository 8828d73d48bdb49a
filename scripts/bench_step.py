"""One optimizer step of every method, and what makes it fast: a model on a CPU, one thread.

All encoders live in one process and take turns, a step each, on the same batches of MRPC's shape;
a step's seconds are divided by those of the plain encoder's forward and backward pass in the same
turn (all weights frozen but the first block's biases, so that gradients flow through everything),
and by those of the peer: the same method by transformers and peft, where they have it. The
arithmetic of a step (its matrix products, counted) over the plain one's is its floor.

MPNet takes turns with BERT of the same size too (random weights): what its steps cost for each
operation of their matrix products, over what BERT's cost. Above 1 is what its relative positions
cost besides; 1.15 is the most that is to be.

usage: uv run python scripts/bench_step.py [--turns 30] [--model minilm|mpnet_base]
           [--methods lora,full]   these alone, to look at: printed, not written
"""

import argparse
import json
import time
from collections.abc import Callable
from inspect import signature

import numpy as np
import peft
import torch
from benchmark import Json, median, write
from torch.utils.flop_counter import FlopCounterMode

import peftbench
from peftbench.config import catalog
from peftbench.core.configs import ModelConfig
from peftbench.data.batching import Batch
from peftbench.data.tokenizer import load_tokenizer
from peftbench.methods.base import Method, build_method, task_loss
from peftbench.models import attention, cpu_kernels, pretrained
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.models.prepare_for_training import prepare_for_training
from peftbench.results.runtime_estimates import STEP_COSTS

BATCH, TOKENS = 16, 56

#: Of the matrices whose product is the peak.
SIDE = 2048

LIBRARY = "lora with the library's attention"

#: Methods beside the yamls, and what they are compared with.
EXTRA = {
    "robust_partial without a penalty": ["method=robust_partial", "method.penalty=none"],
    "bayes_hybrid, flipout": ["method=bayes_hybrid", "method.noise=flipout"],
    LIBRARY: ["method=lora"],
    "lora with torch's dropout": ["method=lora"],
    "bitfit, blocks compiled": ["method=bitfit"],
    "lora, blocks compiled": ["method=lora"],
}

COMPILED = ", blocks compiled"

#: Models that are measured, and how many of their tokens are special ones or unused.
MODELS = {"minilm": 1000, "mpnet_base": 1004}
TITLES = {"minilm": "MiniLM", "mpnet_base": "MPNet (base)"}

#: By model: another one of its size to compare with, and the methods that are compared.
YARDSTICKS = {"mpnet_base": "bert_base"}
HELD = ("full", "bitfit", "lora", "adapter")

#: Most that a model's time for each operation may be over that of its yardstick.
ALLOWED = 1.15


def batches(count: int, model: ModelConfig) -> list[Batch]:
    """Random words, lengths around MRPC's."""
    tokenizer = load_tokenizer(model)
    assert tokenizer.pad_token_id is not None
    first, segments = MODELS[model.name], "token_type_ids" in tokenizer.model_input_names
    generator = np.random.default_rng(0)
    found = []
    for _ in range(count):
        lengths = torch.from_numpy(generator.integers(TOKENS - 12, TOKENS + 1, BATCH))
        ids = torch.from_numpy(generator.integers(first, 12_000, (BATCH, TOKENS)))
        real = torch.arange(TOKENS) < lengths[:, None]
        labels = torch.from_numpy(generator.integers(0, 2, BATCH))
        found.append(
            {
                "input_ids": ids.where(real, int(tokenizer.pad_token_id)),
                "attention_mask": real[:, None, None, :],
                **({"token_type_ids": torch.zeros_like(ids)} if segments else {}),
                "labels": labels,
            }
        )
    return found


def stepper(words: list[str], backbone: Backbone, data: list[Batch], name: str) -> Callable:
    """A function that takes one step on a batch, and its trained parameters."""
    method: Method = build_method(peftbench.plan(*words).runs[0].method)
    model = AdaptedModel(backbone, 2, seed=0, examples=1000)
    torch.manual_seed(0)
    method.insert(model)
    with torch.autocast("cpu", torch.bfloat16):
        method.on_train_begin(model, iter(data * 10))
    plain = name == "lora with torch's dropout"
    hasten = cpu_kernels.hasten
    cpu_kernels.hasten = (lambda module: None) if plain else hasten
    prepare_for_training(model, torch.bfloat16, torch.arange(12_000))
    cpu_kernels.hasten = hasten
    if name == LIBRARY:
        model.module.set_attn_implementation("sdpa")
    if name.endswith(COMPILED):
        for block in model.blocks:
            block.compile(dynamic=False)
    optimizer = torch.optim.AdamW(model.trained().values(), lr=1e-5, fused=True)
    model.train()
    method.on_step_end(model, 0, 1000)

    def step(batch: Batch) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = method.compute_loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.trained().values(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def floor(backbone: Backbone) -> Callable:
    """Forward and backward through the plain encoder."""
    model = AdaptedModel(backbone, 2, seed=0)
    model.unfreeze("bias", lambda name, p: model.block_of(name) == 0 and name.endswith("bias"))
    prepare_for_training(model, torch.bfloat16, torch.arange(12_000))
    model.train()

    def step(batch: Batch) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = task_loss(model(batch), batch["labels"])
        loss.backward()
        model.zero_grad(set_to_none=True)

    return step


def peer_configs(model: ModelConfig) -> dict[str, peft.PeftConfig | None]:
    """The methods that transformers and peft have, of the sizes of ours."""
    lora, prefix = (
        peftbench.plan(f"method={name}").runs[0].method.hyperparameters
        for name in ("lora", "prefix")
    )
    roles = {role: path.rpartition(".")[2] for role, path in model.family_config.roles.items()}
    scaled = [model.family_config.roles["ffn_out"]]
    return {
        "full": None,
        "bitfit": None,
        "lora": peft.LoraConfig(
            task_type="SEQ_CLS",
            r=lora["rank"],
            lora_alpha=lora["alpha"],
            lora_dropout=lora["dropout"],
            target_modules=[roles[role] for role in lora["target_modules"]],
        ),
        "ia3": peft.IA3Config(
            task_type="SEQ_CLS",
            target_modules=[roles["key"], roles["value"], *scaled],
            feedforward_modules=scaled,
        ),
        "prefix": peft.PrefixTuningConfig(
            task_type="SEQ_CLS",
            num_virtual_tokens=prefix["length"],
            prefix_projection=True,
            encoder_hidden_size=prefix["width"],
        ),
    }


def peers(model: ModelConfig, data: list[Batch]) -> dict[str, Callable]:
    """Steps of the methods that transformers and peft have, as a user of theirs would write them.

    peft has no names of its own for MPNet's modules, and no place in it for a prefix.
    """
    steps = {}
    for name, config in peer_configs(model).items():
        module = pretrained.backbone(model)[0]
        base = module.get_submodule(model.family_config.blocks.partition(".")[0])
        if name == "prefix" and "past_key_values" not in signature(base.forward).parameters:
            continue
        if config is not None:
            module = peft.get_peft_model(module, config)
        for path, parameter in module.named_parameters():
            if name == "bitfit":
                parameter.requires_grad_("bias" in path or "classifier" in path)
        steps[name] = peer(module.train(), data)
    return steps


def peer(module: torch.nn.Module, data: list[Batch]) -> Callable:
    """One step of a library's model, on the batches with their usual two-dimensional mask."""
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    usual = {
        id(batch): batch | {"attention_mask": batch["attention_mask"][:, 0, 0].long()}
        for batch in data
    }

    def step(batch: Batch) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = module(**usual[id(batch)]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def yardstick(name: str, data: list[Batch], methods: list[str]) -> dict[str, Callable]:
    """Steps of the methods on an architecture with random weights, which cost the same."""
    model = peftbench.plan(f"model={name}").runs[0].model
    backbone = Backbone(model, loaded=pretrained.skeleton(model))
    return {
        f"{name}: {method}": stepper([f"method={method}"], backbone, data, method)
        for method in methods
    }


def arithmetic(step: Callable, batch: Batch) -> int:
    """Floating-point operations of a step's matrix products."""
    with FlopCounterMode(display=False) as counted:
        step(batch)
    return counted.get_total_flops()


def product() -> Callable:
    """A large bf16 product, the most that a core of this machine does."""
    a, b = (torch.randn(SIDE, SIDE).bfloat16() for _ in range(2))
    return lambda batch: torch.mm(a, b)


def main() -> None:
    """Measure and write results/benchmarks/step.{json,md}, or step_MODEL of another model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--model", choices=MODELS, default="minilm")
    parser.add_argument("--methods", type=lambda text: text.split(","), default=[])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    assert attention.NAME  # registered
    model = peftbench.plan(f"model={asked.model}").runs[0].model
    backbone = Backbone(model)
    data = batches(8, model)
    options = asked.methods or catalog.options("method", (catalog.packaged(),))
    named = {name: [f"method={name}"] for name in options}
    extra = {} if asked.methods else dict(EXTRA)
    if not backbone.module._supports_attention_backend:
        extra.pop(LIBRARY, None)  # it is code of the model's, which takes another mask
    steps = {name: stepper(w, backbone, data, name) for name, w in (named | extra).items()}
    steps["plain"] = floor(backbone)
    compiling = {}
    for name in (name for name in steps if name.endswith(COMPILED)):
        start = time.perf_counter()
        steps[name](data[0])
        compiling[name.removesuffix(COMPILED)] = time.perf_counter() - start
    eager = {n: arithmetic(s, data[0]) for n, s in steps.items() if not n.endswith(COMPILED)}
    operations = {name: eager[name.removesuffix(COMPILED)] for name in steps}
    theirs = {} if asked.methods else peers(model, data)
    theirs = {f"peer's {name}": step for name, step in theirs.items()}
    other = YARDSTICKS.get(asked.model)
    if other is not None:
        against = yardstick(other, data, [name for name in HELD if name in steps])
        operations |= {name: arithmetic(step, data[0]) for name, step in against.items()}
        theirs |= against
    seconds: dict[str, list[float]] = {name: [] for name in steps | theirs}
    most = {"product": product()}
    seconds |= {"product": []}
    for turn in range(asked.turns + 2):
        for name, step in (steps | theirs | most).items():
            start = time.perf_counter()
            step(data[turn % len(data)])
            if turn >= 2:
                seconds[name].append(time.perf_counter() - start)

    def over(name: str, other: str) -> float | None:
        if other not in seconds:
            return None
        return median([a / b for a, b in zip(seconds[name], seconds[other], strict=True)])

    peak = 2 * SIDE**3 / median(seconds["product"])
    rows: list[Json] = []
    for name in steps:
        rows.append(
            {
                "method": name,
                "milliseconds": 1e3 * median(seconds[name]),
                "to_plain": over(name, "plain"),
                "arithmetic_to_plain": operations[name] / operations["plain"],
                "tokens_per_second": BATCH * TOKENS / median(seconds[name]),
                "share_of_peak": operations[name] / median(seconds[name]) / peak,
                "to_peer": over(name, f"peer's {name}"),
                "to_yardstick": over(name, there := f"{other}: {name}"),
                "arithmetic_to_yardstick": operations[name] / operations[there]
                if there in operations
                else None,
            }
        )
    rows.sort(key=lambda row: row["to_plain"])
    lines = []
    for row in rows:
        own = row["to_plain"] / row["arithmetic_to_plain"]
        peer_ratio = "–" if row["to_peer"] is None else f"{row['to_peer']:.2f}"
        lines.append(
            f"| {row['method']} | {row['milliseconds']:.0f} | {row['to_plain']:.2f} | "
            f"{row['arithmetic_to_plain']:.2f} | {own:.2f} | {row['tokens_per_second']:,.0f} | "
            f"{100 * row['share_of_peak']:.0f} % | {peer_ratio} |"
        )
    first = " and ".join(f"{took:.0f} s ({name})" for name, took in compiling.items())
    told = " Compiled: by torch.compile, a block at a time; the first step takes " + first + "."
    told = told if compiling else ""
    head = (
        f"### One optimizer step: {TITLES[asked.model]}, "
        f"{BATCH} texts of {TOKENS} tokens, one thread\n\n"
        f"Medians of {asked.turns} turns; in each, every method takes a step on the same batch. "
        "Plain: forward and backward through the frozen encoder. Arithmetic: operations of the "
        "step's matrix products over the plain one's. Of the peak: these operations a second over "
        f"those of a product of {SIDE} × {SIDE} bf16 matrices in the same turns, "
        f"{peak / 1e9:.0f} GFLOP/s. Peer: the same method by transformers and peft, bf16 autocast, "
        f"their attention.{told}\n\n"
        "| method | ms | time ÷ plain | arithmetic ÷ plain | time ÷ arithmetic | tokens/s | "
        "share of peak | time ÷ peer |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    )
    if other is not None:
        lines += ["", *held(rows, asked.model, other)]
    if asked.methods:
        print(head + "\n".join(lines))
        return
    minilm = asked.model == "minilm"
    name = "step" if minilm else f"step_{asked.model}"
    write(name, {"rows": rows, "compiling": compiling}, head + "\n".join(lines))
    if minilm:
        STEP_COSTS.write_text(json.dumps(step_costs(rows), indent=1) + "\n")


def held(rows: list[Json], model: str, other: str) -> list[str]:
    """The lines of a table: a model against its yardstick."""
    lines = [
        f"{TITLES[model]} against {other}: a step's time and arithmetic over those of the same "
        f"method there in the same turns, and time for each operation (at most {ALLOWED}).",
        "",
        "| method | time | arithmetic | time / arithmetic | |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        if row["to_yardstick"] is not None:
            time_over, work = row["to_yardstick"], row["arithmetic_to_yardstick"]
            each = time_over / work
            verdict = "within" if each <= ALLOWED else "above"
            lines.append(
                f"| {row['method']} | {time_over:.2f} | {work:.2f} | {each:.2f} | {verdict} |"
            )
    return lines


def step_costs(rows: list[Json]) -> dict[str, float]:
    """What is shipped for estimates: the packaged methods as they are, by name."""
    options = catalog.options("method", (catalog.packaged(),))
    return {
        row["method"]: round(row["to_plain"], 2)
        for row in sorted(rows, key=lambda row: row["method"])
        if row["method"] in options
    }


if __name__ == "__main__":
    main()
