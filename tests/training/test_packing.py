"""Runs that share passes are what they are alone, come and go, and cost what is measured alone."""

import itertools
import json
import subprocess
import sys
import threading
import weakref
from contextlib import contextmanager
from dataclasses import asdict, replace

import numpy as np
import pytest
import tiny
import torch

from peftbench.config.sweep import plan
from peftbench.core.configs import Budget
from peftbench.core.errors import ConfigError
from peftbench.core.runtime import RuntimeConfig
from peftbench.data import batching
from peftbench.data.batching import collate, widened
from peftbench.methods.base import build_method
from peftbench.methods.bitfit import BitFit
from peftbench.models.adapted_model import AdaptedModel
from peftbench.results.store import ResultsFolder
from peftbench.runner import packs
from peftbench.training import cost_model, measurement, run_stack, step_graphs
from peftbench.training.packing import pack, runner
from peftbench.training.packing.pack import Pack, partition
from peftbench.training.predictor import PredictionOutOfMemory, Predictor
from peftbench.training.run_stack import RunStack
from peftbench.training.trainer import TrainingJob, execute, requests_of
from peftbench.training.warm_cache import WarmCache

CPU = RuntimeConfig(device="cpu", threads=1)
STILL = "model.shape={hidden_dropout_prob:0.0,attention_probs_dropout_prob:0.0}"
WORDS = ("model=tiny", STILL, "train.precision=fp32", "budget=steps", "train.num_evals=2")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return tiny.own_task(tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="module")
def warm():
    return WarmCache()


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """As on a GPU, a pass costs more than padding; what can be captured is captured early."""
    monkeypatch.setitem(pack.OVERHEAD, "cpu", 10_000)
    monkeypatch.setattr(run_stack, "PAYS", 1)


def runs(task, *words):
    return plan(*task, *WORDS, *words).runs


def trained(given, size, warm, setting=CPU, tell=print, **more):
    """What a pack makes of runs, by key, in the order in which they ended."""
    waiting = (
        (r.key, requests_of(TrainingJob(r, setting, warm, alike=True, **more))) for r in given
    )
    return {left.key: left for left in Pack(torch.device("cpu"), size, tell).train(waiting)}


# which batches share a pass


@pytest.mark.parametrize("overhead", [0, 7, 40, 1000])
def test_passes_cost_least(overhead):
    lengths, rows, most = [31, 30, 22, 21, 20, 9, 8], 2, 4

    def cost(cuts):
        bounds = [0, *cuts, len(lengths)]
        parts = list(itertools.pairwise(bounds))
        if any(end - start > most for start, end in parts):
            return float("inf")
        return sum(overhead + (end - start) * rows * lengths[start] for start, end in parts)

    inner = range(1, len(lengths))
    every = itertools.chain.from_iterable(
        itertools.combinations(inner, count) for count in range(len(lengths))
    )
    found = partition(lengths, rows, overhead, most)
    assert [start for start, _ in found[1:]] == [end for _, end in found[:-1]]
    assert cost([end for _, end in found[:-1]]) == min(map(cost, every))


def test_passes_are_cut_at_multiples():
    """Nine batches in parts of two: what is cut off before the end is even."""
    lengths = [90, 90, 90, 60, 40, 40, 20, 20, 20]
    found = partition(lengths, rows=16, overhead=100, most=8, grain=2)
    assert found == [(0, 4), (4, 6), (6, 9)]
    assert partition(lengths, rows=16, overhead=100, most=8) == [(0, 3), (3, 4), (4, 6), (6, 9)]


@pytest.mark.parametrize("mask", ["4d", "2d", "causal"])
def test_a_batch_padded_further_is_one_that_was_padded_so(mask):
    tokens = tiny.tokens()
    order = np.argsort(tokens.lengths, kind="stable")
    short, longest = order[:3], order[-1]
    length = int(tokens.lengths[longest])
    wanted = collate(tokens, np.array([*short, longest]), 0, mask)
    found = widened(collate(tokens, short, 0, mask), length, 0)
    for name, tensor in found.items():
        assert torch.equal(tensor, wanted[name][:3]), name


# equality


@pytest.mark.parametrize(
    "method",
    ["lora", *(pytest.param(name, marks=pytest.mark.slow) for name in ("adapter", "full"))],
)
def test_a_run_in_a_pack_scores_what_it_scores_alone(method, task, warm):
    """Sizes, rates, lengths and seeds differ; short last batches pass alone."""
    given = [
        *runs(
            task, f"method={method}", *dropless(method), "seed=0,1", "size=24,40", "budget.steps=6"
        ),
        *runs(task, f"method={method}", *dropless(method), "budget.steps=9", "train.lr=3e-3"),
    ]
    left = trained(given, 3, warm)
    assert set(left) == {run.key for run in given}
    assert all(one.shared for one in left.values())
    for run in given:
        alone = execute(run, CPU, warm=warm)
        mine = left[run.key].end
        assert np.allclose(mine.predictions["scores"], alone.predictions["scores"], atol=1e-4)
        assert [p["step"] for p in mine.record.curve] == [p["step"] for p in alone.record.curve]
        for one, other in zip(mine.record.curve, alone.record.curve, strict=True):
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
        assert mine.record.work == alone.record.work
        assert mine.record.flops == alone.record.flops


def dropless(method):
    return ["method.dropout=0"] if method == "lora" else []


def test_a_pack_of_one_is_a_run_alone_to_the_bit(task, warm):
    [run] = plan(*task, "model=tiny", "method=lora", "budget=steps", "budget.steps=5").runs
    [left] = trained([run], 8, warm).values()
    alone = execute(run, CPU, warm=warm)
    assert left.shared == ()
    assert np.array_equal(left.end.predictions["scores"], alone.predictions["scores"])


def test_a_deterministic_pack_gives_the_same_bits_twice(task, warm):
    """With dropout, which a pass draws from the stream of its first member."""
    setting = replace(CPU, deterministic=True)
    words = ("model=tiny", "method=lora", "budget=steps", "budget.steps=6", "seed=0,1,2")
    given = plan(*task, *words, "size=24,40").runs
    try:
        first, second = (trained(given, 3, warm, setting) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    alone = execute(given[0], CPU, warm=warm).predictions["scores"]
    for key, one in first.items():
        assert one.shared
        assert one.end.record.environment["deterministic"] is True
        scores = one.end.predictions["scores"]
        assert np.array_equal(scores, second[key].end.predictions["scores"])
    assert not np.array_equal(first[given[0].key].end.predictions["scores"], alone)  # it dropped


@pytest.mark.parametrize("method", ["bitfit", "full", "lora"])
def test_biases_of_several_runs_are_rounded_as_those_of_one(method, task, warm):
    """In bf16 a linear gives bf16, whether its bias is shared or not: losses agree to its grain."""
    words = ("model=tiny", STILL, "train.precision=bf16", "budget=steps", "budget.steps=1")
    given = plan(*task, *words, f"method={method}", *dropless(method), "seed=0,1").runs
    seen = set()

    def watch(module, _, output):
        if isinstance(module, torch.nn.Linear):
            seen.add(output.dtype)

    hook = torch.nn.modules.module.register_module_forward_hook(watch)
    try:
        left = trained(given, 2, warm)
    finally:
        hook.remove()
    assert seen == {torch.bfloat16}
    for run in given:
        mine, alone = left[run.key].end.record, execute(run, CPU, warm=warm).record
        assert mine.curve[0]["loss"] == pytest.approx(alone.curve[0]["loss"], rel=2e-3)


def test_micro_batches_are_summed_in_a_pack_too(task, warm):
    words = ("method=lora", "method.dropout=0", "seed=0,1", "budget.steps=4")
    whole, parts = (
        trained(runs(task, *words, f"train.micro_batch_size={m}"), 2, warm) for m in ("null", 5)
    )
    for one, other in zip(whole.values(), parts.values(), strict=True):
        assert all(side.shared for side in (one, other))
        scores = (side.end.predictions["scores"] for side in (one, other))
        assert np.allclose(*scores, atol=1e-5)


@pytest.mark.parametrize("clip", [1.0, None])
def test_a_row_is_updated_as_torch_does(task, clip):
    """AdamW and clipping by each run's recipe, against torch's own on the same gradients."""
    recipes = [
        {"lr": 1e-2, "weight_decay": 0.1, "max_grad_norm": clip},
        {"lr": 3e-3, "weight_decay": 0.0, "max_grad_norm": 0.01},
        {"lr": 1e-1, "weight_decay": 0.5, "max_grad_norm": None},
    ]
    pairs = []
    for recipe in recipes:
        sides = []
        for _ in range(2):
            model = AdaptedModel(tiny.backbone("distilbert"), classes=2, seed=0)
            torch.manual_seed(0)
            method = build_method(tiny.one_run("method=bitfit").method)
            method.insert(model)
            batch = tiny.batch(tiny.tokens(), "distilbert")
            sides.append(tiny.training(model, method, batch, steps=9, **recipe))
        pairs.append(sides)
    stack = RunStack(pairs[0][0], 4)
    for mine, _ in pairs:
        stack.enter(mine)
    generator = torch.Generator().manual_seed(0)
    for step in range(5):
        chosen = pairs if step != 2 else pairs[1:]  # a pass of some of them leaves the others alone
        grads = torch.randn(len(chosen), stack.values.shape[1], generator=generator)
        for (_, alone), row in zip(chosen, grads, strict=True):
            own = alone.predictor.model.trained()
            for part in stack.parts:
                own[part.name].grad = row[part.start : part.end].view(part.shape).clone()
            alone.update(torch.zeros(()))
        batches = {"labels": torch.zeros(len(chosen), 1)}
        stack.update(grads, stack.inputs([mine for mine, _ in chosen], batches))
    for recipe, (mine, alone) in zip(recipes, pairs, strict=True):
        theirs = alone.predictor.model.trained()
        for name, p in mine.predictor.model.trained().items():
            assert torch.allclose(p, theirs[name], rtol=0, atol=1e-4 * recipe["lr"]), name
            for kind, tensor in alone.optimizer.state[theirs[name]].items():
                held = mine.optimizer.state[p][kind]
                assert torch.allclose(held, tensor, rtol=1e-4, atol=1e-7), (name, kind)


def test_replayed_steps_are_the_steps(task, warm, monkeypatch):
    """Inputs are copied to where a captured step reads them, whoever the members are by then."""

    def record(step):
        calls.append("captured")

        def replay():
            calls.append("replayed")
            out.copy_(step())

        out = torch.zeros(rows[0])
        return replay, out

    calls, rows = [], [2]
    given = runs(
        task, "method=lora", "method.dropout=0", "seed=0,1,2", "size=32", "budget.steps=12"
    )
    plain = trained(given, 2, warm)
    monkeypatch.setitem(step_graphs.CAPTURE, "cpu", lambda: record)
    monkeypatch.setattr(batching, "STATIC_SHAPES", {"cpu"})
    replayed = trained(given, 2, warm)
    assert calls.count("replayed") > 5 > calls.count("captured") > 0
    for key, left in plain.items():
        scores = (one.end.predictions["scores"] for one in (left, replayed[key]))
        assert np.allclose(*scores, atol=1e-4)


def test_passes_of_a_few_are_filled_up_so_that_shapes_are_few(task, warm, monkeypatch):
    """Seven runs of eight that may be: passes of 1, 2, 4, 6 or 7, not of 3 and 5."""
    counts = set()
    given = runs(
        task, "method=bitfit", "seed=range(0,7)", "size=32,40", "budget.steps=4", "train.lr=1e-2"
    )[:7]
    plain = trained(given, 7, warm)
    record = step_graphs.StepGraphs.take

    def take(self, kind, step, inputs):
        counts.add(len(inputs["labels"]))
        return record(self, kind, step, inputs)

    monkeypatch.setattr(step_graphs.StepGraphs, "take", take)
    monkeypatch.setattr(batching, "STATIC_SHAPES", {"cpu"})
    monkeypatch.setattr(pack, "PARTS", 3)
    monkeypatch.setitem(pack.OVERHEAD, "cpu", 0)
    filled = trained(given, 7, warm)
    assert counts <= {1, 2, 4, 6, 7}
    assert len(counts) > 2
    for key, left in plain.items():
        scores = (one.end.predictions["scores"] for one in (left, filled[key]))
        assert np.allclose(*scores, atol=1e-4)


def test_a_step_that_cannot_be_captured_is_taken_as_it_is_and_told(task, warm, monkeypatch):
    def record(step):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setitem(step_graphs.CAPTURE, "cpu", lambda: record)
    monkeypatch.setattr(batching, "STATIC_SHAPES", {"cpu"})
    told = []
    given = runs(task, "method=lora", "method.dropout=0", "seed=0,1", "size=32", "budget.steps=8")
    waiting = ((r.key, requests_of(TrainingJob(r, CPU, warm, alike=True))) for r in given)
    left = list(Pack(torch.device("cpu"), 2, told.append).train(waiting))
    assert all(one.error is None and one.shared for one in left)
    assert told == [
        "steps are launched one kernel at a time: operation not permitted when stream is capturing"
    ]


def test_a_shape_without_memory_for_its_graph_leaves_the_others_theirs(task, monkeypatch):
    def record(step):
        shapes.append(step)
        if len(shapes) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        out = torch.zeros(1)
        return lambda: (replays.append(1), out.copy_(step())), out

    [run] = runs(task, "method=lora", "method.dropout=0", "size=40", "budget.steps=9")
    plain = execute(run, CPU)
    shapes, replays = [], []
    monkeypatch.setitem(step_graphs.CAPTURE, "cpu", lambda: record)
    monkeypatch.setattr(batching, "STATIC_SHAPES", {"cpu"})
    monkeypatch.setattr(batching, "BUCKETS", ((512, 4),))
    with pytest.warns(UserWarning, match="steps of a shape are launched .*: no memory for more"):
        done = execute(run, CPU)
    count = len(shapes)
    assert count > 2
    told = f"{count - 1} of {count} shapes captured, no memory for the rest"
    assert done.record.environment["graphs"] == told
    assert len(replays) > 2 * (count - 1)  # when they are compared, warmed up, and then in steps
    assert np.allclose(plain.predictions["scores"], done.predictions["scores"], atol=1e-5)


def test_a_replay_that_is_not_the_step_is_not_used(task, warm, monkeypatch):
    def record(step):
        return lambda: None, torch.zeros(2)

    given = runs(task, "method=lora", "method.dropout=0", "seed=0,1", "size=32", "budget.steps=8")
    plain = trained(given, 2, warm)
    monkeypatch.setitem(step_graphs.CAPTURE, "cpu", lambda: record)
    told = []
    waiting = ((r.key, requests_of(TrainingJob(r, CPU, warm, alike=True))) for r in given)
    left = {one.key: one for one in Pack(torch.device("cpu"), 2, told.append).train(waiting)}
    assert [text.partition(":")[0] for text in told] == ["steps are launched one kernel at a time"]
    assert "off the step" in told[0]
    for key, one in plain.items():
        scores = (side.end.predictions["scores"] for side in (one, left[key]))
        assert np.array_equal(*scores)


def test_a_run_alone_takes_captured_steps_of_shapes_warmed_up_before(task, monkeypatch):
    def record(step):
        out = torch.zeros(1)
        return lambda: (seen.append(phase[-1]), out.copy_(step())), out

    [run] = runs(task, "method=lora", "method.dropout=0", "size=40", "budget.steps=9")
    plain = execute(run, CPU)
    seen, phase = [], [""]
    around = measurement.Phases.phase

    @contextmanager
    def watched(self, name):
        phase.append(name)
        with around(self, name):
            yield
        phase.pop()

    monkeypatch.setattr(measurement.Phases, "phase", watched)
    monkeypatch.setitem(step_graphs.CAPTURE, "cpu", lambda: record)
    monkeypatch.setattr(batching, "STATIC_SHAPES", {"cpu"})
    replayed = execute(run, CPU)
    assert seen.count("train") == 9  # every step
    assert np.allclose(plain.predictions["scores"], replayed.predictions["scores"], atol=1e-5)
    assert replayed.record.environment["graphs"].endswith("shapes captured")
    assert [p["step"] for p in replayed.record.curve] == [p["step"] for p in plain.record.curve]


def test_memory_of_captured_steps_is_that_of_a_step_without_copies_of_the_state(task, monkeypatch):
    """Of what CUDA's allocator would say: a capture has a GB beside the MB of a step."""

    def record(step):
        def replay():
            replaying.append(True)
            out.copy_(step())
            replaying.pop()

        out = torch.zeros(1)
        return replay, out

    def allocate(count):
        peak[0] = max(peak[0], 0 if replaying else count)

    def gradients(stack, *args):
        allocate(10**6 + sum(tensor.nbytes for tensor in stack.graphs.state))
        return step(stack, *args)

    def apart(graphs, *args):
        allocate(10**9)
        return compared(graphs, *args)

    [run] = runs(task, "method=lora", "method.dropout=0", "size=40", "budget.steps=9")
    peak, replaying = [0], []
    step, compared = RunStack.gradients, step_graphs.StepGraphs._apart
    monkeypatch.setattr(RunStack, "gradients", gradients)
    monkeypatch.setattr(step_graphs.StepGraphs, "_apart", apart)
    monkeypatch.setattr(measurement, "_reset_peaks", lambda device: peak.__setitem__(0, 0))
    monkeypatch.setattr(
        measurement,
        "_peaks",
        lambda device: {"cpu_peak_rss_bytes": None, measurement.ALLOCATED: peak[0]},
    )
    monkeypatch.setitem(step_graphs.CAPTURE, "cpu", lambda: record)
    monkeypatch.setattr(batching, "STATIC_SHAPES", {"cpu"})
    done = execute(run, CPU).record
    assert done.environment["graphs"].endswith("shapes captured")
    found = done.memory[measurement.ALLOCATED]
    assert (found["train"], found["warmup"]) == (10**6, 10**9)


def test_a_run_alone_that_cannot_be_stacked_trains_as_ever(task, monkeypatch):
    def refuse(stack, predictor, inputs, micro):
        raise RuntimeError("no batching rule")

    [run] = runs(task, "method=lora", "method.dropout=0", "size=40", "budget.steps=5")
    monkeypatch.setattr(batching, "STATIC_SHAPES", {"cpu"})
    plain = execute(run, CPU)
    monkeypatch.setitem(step_graphs.CAPTURE, "cpu", lambda: lambda step: (lambda: None, step()))
    monkeypatch.setattr(RunStack, "gradients", refuse)
    with pytest.warns(UserWarning, match="one kernel at a time: no batching rule"):
        done = execute(run, CPU)
    assert np.array_equal(plain.predictions["scores"], done.predictions["scores"])
    assert done.record.environment["graphs"] == "no batching rule"
    assert plain.record.environment["graphs"] == "no graphs on cpu"


@pytest.mark.parametrize(
    "words",
    [
        ["method=bitfit"],
        [
            *("method=robust_partial", "method.base_method=bitfit"),
            *("method.choose=all", "method.penalty=none", "method.wise=0"),
        ],
    ],
)
def test_a_method_that_reads_gradients_gets_those_of_every_step(task, monkeypatch, words):
    """Also inside a wrapper."""
    [run] = runs(task, *words, "size=40", "budget.steps=5")
    assert build_method(run.method).supports_packing
    read = []
    monkeypatch.setattr(BitFit, "on_gradients", lambda self, model: read.append(model))
    monkeypatch.setitem(step_graphs.CAPTURE, "cpu", lambda: lambda step: (lambda: None, step()))
    monkeypatch.setattr(batching, "STATIC_SHAPES", {"cpu"})
    assert not build_method(run.method).supports_packing
    with pytest.warns(UserWarning, match="one kernel at a time: the method takes derivatives"):
        execute(run, CPU)
    assert len(read) == 5


# coming and going


def test_runs_leave_when_they_end_and_others_enter(task, warm):
    short = runs(task, "method=lora", "seed=0,1,2", "budget.steps=3")
    [long] = runs(task, "method=lora", "seed=7", "budget.steps=30")
    left = trained([long, *short], 2, warm)
    assert list(left) == [*(run.key for run in short), long.key]
    assert set(left[long.key].shared) == {run.key for run in short}
    assert all(left[run.key].shared == (long.key,) for run in short)


def test_a_run_that_diverges_leaves_alone(task, warm):
    good = runs(task, "method=lora", "method.dropout=0", "seed=0,1", "budget.steps=6")
    [bad] = runs(
        task,
        "method=lora",
        "method.dropout=0",
        "train.lr=1e30",
        "train.max_grad_norm=null",
        "budget.steps=6",
    )
    left = trained([good[0], bad, good[1]], 3, warm)
    assert isinstance(left[bad.key].error, FloatingPointError)
    assert "try a smaller train.lr" in str(left[bad.key].error)
    for run in good:
        alone = execute(run, CPU, warm=warm).predictions["scores"]
        assert np.allclose(left[run.key].end.predictions["scores"], alone, atol=1e-4)


def test_memory_that_runs_out_splits_the_pass(task, warm, monkeypatch):
    given = runs(task, "method=lora", "method.dropout=0", "seed=0,1,2,3,4", "budget.steps=3")
    sizes = []

    def tight(stack, predictor, inputs, micro):
        sizes.append(len(inputs["labels"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("too many")
        return gradients(stack, predictor, inputs, micro)

    gradients = RunStack.gradients
    monkeypatch.setattr(RunStack, "gradients", tight)
    left = trained(given, 5, warm)
    assert [size for size in sizes if size > 2] == [5, 3]  # it is not tried again and again
    assert 2 in sizes
    for run in given:
        alone = execute(run, CPU, warm=warm).predictions["scores"]
        assert np.allclose(left[run.key].end.predictions["scores"], alone, atol=1e-4)


@pytest.mark.parametrize("static", [False, True])
def test_memory_for_no_stack_of_all_makes_smaller_ones(task, warm, monkeypatch, static):
    """Full fine-tuning of four where rows for two fit: two stacks, and passes of two."""
    given = runs(task, "method=full", "seed=0,1,2,3", "size=32", "budget.steps=4")
    rows, passes, told = [], [], []

    def small(stack, first, size, *more):
        rows.append(size)
        if size > 2:
            raise torch.OutOfMemoryError("no memory for the stack")
        make(stack, first, size, *more)

    def counted(stack, predictor, inputs, micro):
        passes.append(len(inputs["labels"]))
        return gradients(stack, predictor, inputs, micro)

    make, gradients = RunStack.__init__, RunStack.gradients
    monkeypatch.setattr(RunStack, "__init__", small)
    monkeypatch.setattr(RunStack, "gradients", counted)
    monkeypatch.setattr(batching, "STATIC_SHAPES", {"cpu"} if static else set())
    left = trained(given, 4, warm, tell=told.append)
    assert rows == [4, 2, 2]
    assert passes == [2] * 8
    assert [one.notes for one in left.values()] == [
        "no memory for 4 runs in a stack, at most 3 now"
    ] * 4
    assert told == ["pack: no memory for 4 runs in a stack, at most 3 now"]
    for run in given:
        alone = execute(run, CPU, warm=warm).predictions["scores"]
        assert np.allclose(left[run.key].end.predictions["scores"], alone, atol=1e-4)


def test_memory_for_no_stack_at_all_trains_all_alone(task, warm, monkeypatch):
    def none(stack, *_):
        raise torch.OutOfMemoryError("no memory for the stack")

    monkeypatch.setattr(batching, "STATIC_SHAPES", {"cpu"})
    given = runs(task, "method=bitfit", "seed=0,1", "budget.steps=2")
    alone = {run.key: execute(run, CPU, warm=warm) for run in given}
    monkeypatch.setattr(RunStack, "__init__", none)
    left = trained(given, 2, warm)
    for key, one in left.items():
        assert one.notes.endswith("no memory for a stack of parameters")
        assert np.array_equal(one.end.predictions["scores"], alone[key].predictions["scores"])


def test_memory_for_no_stacked_pass_trains_all_alone(task, warm, monkeypatch):
    """Static shapes: a pass of one is stacked as well. What failed is let go of before the next."""
    held = []

    def tight(stack, predictor, inputs, micro):
        assert not any(ref() is not None for ref in held), "memory of the last pass is not free"
        whole = torch.zeros(3)
        held.append(weakref.ref(whole))
        raise torch.OutOfMemoryError(f"no memory for {len(inputs['labels'])}")

    monkeypatch.setattr(RunStack, "gradients", tight)
    monkeypatch.setattr(batching, "STATIC_SHAPES", {"cpu"})
    given = runs(task, "method=bitfit", "seed=0,1,2,3", "budget.steps=2")
    told = []
    left = trained(given, 4, warm, tell=told.append)
    assert told == [
        "pack: no memory for 4 runs in a pass, at most 3 now",
        "pack: no memory for 2 runs in a pass, at most 1 now",
        "pack: these runs cannot share passes: no memory for 1",
    ]
    assert all(one.shared == () and "no memory for 1" in one.notes for one in left.values())
    for run in given:
        alone = execute(run, CPU, warm=warm).predictions["scores"]
        assert np.array_equal(left[run.key].end.predictions["scores"], alone)


def test_no_memory_to_predict_for_one_example_starts_no_run_again(task, warm, monkeypatch):
    """Smaller micro-batches, of which each try would warn, predict for one example too."""

    def none(*_, **__):
        raise PredictionOutOfMemory("no memory to predict for one example")

    monkeypatch.setattr(Predictor, "outputs", none)
    left = trained(runs(task, "method=bitfit", "seed=0,1", "budget.steps=2"), 2, warm)
    assert [type(one.error) for one in left.values()] == [PredictionOutOfMemory] * 2


@pytest.mark.parametrize("static", [False, True])
def test_memory_for_few_examples_halves_the_micro_batch_in_a_pack(task, warm, monkeypatch, static):
    """Passes of more than eight examples, of however many runs, and alone as well, are refused."""

    def tight(stack, predictor, inputs, micro):
        if inputs["labels"].numel() > 8 and (micro is None or micro > 8):
            raise torch.OutOfMemoryError("too many")
        return stacked(stack, predictor, inputs, micro)

    def tight_alone(predictor, batch, micro):
        if micro is None or micro > 8:
            raise torch.OutOfMemoryError("too many")
        return alone(predictor, batch, micro)

    given = runs(task, "method=bitfit", "seed=0,1", "size=32", "budget.steps=3")
    plain = {run.key: execute(run, CPU, warm=warm) for run in given}
    stacked, alone = RunStack.gradients, Predictor.gradients
    monkeypatch.setattr(RunStack, "gradients", tight)
    monkeypatch.setattr(Predictor, "gradients", tight_alone)
    monkeypatch.setattr(batching, "STATIC_SHAPES", {"cpu"} if static else set())
    with pytest.warns(
        UserWarning, match=r"no memory for 16 examples in a pass; .*micro_batch_size=8"
    ):
        left = trained(given, 2, warm)
    for key, one in left.items():
        assert one.end.record.work["micro_batch_size"] == 8
        assert "at most 1 now" in one.notes
        scores = (end.predictions["scores"] for end in (one.end, plain[key]))
        assert np.allclose(*scores, atol=1e-4)


@pytest.mark.parametrize(
    ("row", "took", "size", "fit", "share"),
    [
        (1.3e9, 1.0e9, 3, 3, 28),  # BERT-base, full: all of a few
        (1.3e9, 1.0e9, 64, 13, 20),  # of many as many as half of the memory holds
        (3.6e6, 0.6e9, 64, 64, 51),  # LoRA: rows are nothing, passes are twice in memory
        (1e12, 1.0e9, 8, 1, 1),  # none fits: one at a time
    ],
)
def test_members_and_passes_share_a_gpu_of_80_gb(row, took, size, fit, share):
    found, passes = pack.fitting(int(77e9), int(took), int(row), size)
    assert found == fit
    assert int(passes) == share
    rows = found * row * 1.25
    assert found == 1 or rows + 2 * passes * took <= 0.8 * 77e9


def test_a_stack_has_rows_for_the_runs_and_for_what_fills_passes_up(task):
    model = AdaptedModel(tiny.backbone("distilbert"), classes=2, seed=0)
    method = build_method(tiny.one_run("method=bitfit").method)
    method.insert(model)
    one = tiny.training(model, method, tiny.batch(tiny.tokens(), "distilbert"), steps=1)
    rows = {
        (size, grain): len(RunStack(one, size, grain=grain).values)
        for size, grain in [(3, 1), (3, 16), (8, 2), (22, 5), (64, 16)]
    }
    assert rows == {(3, 1): 3, (3, 16): 4, (8, 2): 9, (22, 5): 26, (64, 16): 79}
    stack = RunStack(one, 2)
    held = [*stack.fixed.values(), stack.values, stack.exp_avg, stack.exp_avg_sq]
    own = model.own().values()
    assert run_stack.row_bytes(own) == sum(t.numel() * t.element_size() for t in held) // 2


def test_runs_whose_parts_rest_pass_alone_and_their_records_say_why(
    task, warm, monkeypatch, tmp_path
):
    def rest(self, model, step, steps):
        first = firsts.setdefault(model, next(iter(model.trained().values())))
        first.requires_grad_(step >= 3)

    firsts = {}
    monkeypatch.setattr(BitFit, "on_step_end", rest)
    told = []
    given = runs(task, "method=bitfit", "seed=0,1", "budget.steps=6")
    ends = shared_out(given, ResultsFolder(tmp_path), warm, told.append)
    why = "the method lets parameters rest for some steps"
    assert told == [f"pack: {why}"]
    for run, other in zip(given, reversed(given), strict=True):
        assert ends[run].record.environment["pack"] == why
        assert ends[run].record.work["packed_with"] == other.key  # from step 3 on


def test_what_cannot_share_a_pass_goes_on_one_by_one_and_is_told(task, warm, monkeypatch):
    def refuse(stack, predictor, inputs, micro):
        raise RuntimeError("no batching rule")

    monkeypatch.setattr(RunStack, "gradients", refuse)
    given = runs(task, "method=lora", "seed=0,1", "budget.steps=3")
    told = []
    left = trained(given, 2, warm, tell=told.append)
    assert told == ["pack: these runs cannot share passes: no batching rule"]
    for run in given:
        assert left[run.key].error is None
        assert left[run.key].shared == ()
        assert left[run.key].notes == "these runs cannot share passes: no batching rule"


def test_what_is_asked_to_leave_goes_on_from_its_checkpoint(task, warm, tmp_path):
    given = runs(task, "method=lora", "method.dropout=0", "seed=0,1", "budget.steps=8")
    results, asked = ResultsFolder(tmp_path), iter(range(1000))
    stopped = trained(given, 2, warm, results=results, stop=lambda: next(asked) >= 6)
    assert {str(one.error) for one in stopped.values()} == {"stopped at step 4"}
    left = trained(given, 2, warm, results=results)
    for run in given:
        assert left[run.key].end.record.work["resumed"]
        alone = execute(run, CPU, warm=warm).predictions["scores"]
        assert np.allclose(left[run.key].end.predictions["scores"], alone, atol=1e-4)


# what goes together


def test_groups_are_runs_that_differ_in_values_only(task):
    words = ("method=lora,bitfit", "seed=0,1", "train.lr=1e-3,1e-4", "size=24,40")
    units = packs.units(runs(task, *words), 64, 2)
    assert sorted(map(len, units)) == [4, 4, 4, 4]
    assert {len({run.method.name for run in unit}) for unit in units} == {1}
    assert [len(unit) for unit in packs.units(runs(task, *words), 1, 2)] == [1] * 16
    precise = plan(*task, "model=tiny", "train.precision=fp32,bf16", "train.batch_size=8,16").runs
    assert [len(unit) for unit in packs.units(precise, 64, 1)] == [1, 1, 1, 1]
    scaled = plan(*task, "model=tiny", "train.precision=fp16", "seed=0,1").runs
    assert [len(unit) for unit in packs.units(scaled, 64, 1)] == [1, 1]


def test_seconds_are_for_runs_alone_unless_calibrated(task):
    words = (*task, "model=tiny", "seed=0,1", "budget=seconds", "budget.seconds=5")
    alone, shared = plan(*words).runs, plan(*words, "budget.calibrated=true").runs
    assert [packs.together(run) for run in alone] == [None, None]
    assert len(packs.units(shared, 64, 1)) == 1
    assert not alone[0].budget.calibrated
    assert alone[0].key != shared[0].key
    with pytest.raises(ConfigError, match="calibrated=true is for budget=seconds alone"):
        Budget(steps=5, calibrated=True)


@pytest.mark.parametrize(
    ("asked", "gpus", "processes", "found"),
    [
        ("auto", True, 1, 64),
        ("auto", False, 1, 1),
        ("auto", True, 2, 1),
        ("off", True, 1, 1),
        ("8", False, 1, 8),
        ("1", True, 4, 1),
    ],
)
def test_the_size_of_a_pack(asked, gpus, processes, found):
    assert packs.size(asked, gpus, processes) == found


@pytest.mark.parametrize(("asked", "said"), [("0", "a number of runs"), ("many", "auto or off")])
def test_a_size_that_is_none_is_refused(asked, said):
    with pytest.raises(ConfigError, match=said):
        packs.size(asked, True, 1)
    with pytest.raises(ConfigError, match="has no room in it"):
        packs.size("4", True, 2)


# costs


def shared_out(given, results, warm, tell=print):
    """What a worker makes of runs that it got together."""
    return dict(
        runner.train(
            given,
            replace(CPU, pack=2),
            results,
            warm,
            enter=lambda run: True,
            report=lambda run, news: None,
            stop=lambda: False,
            tell=tell,
        )
    )


def test_what_does_not_pack_has_costs_of_its_own(task, warm, tmp_path):
    given = runs(task, "method=robust_partial", "seed=0,1", "budget.steps=2")
    ends = shared_out(given, ResultsFolder(tmp_path), warm)
    assert all("packed" not in ends[run].record.environment for run in given)
    assert not list(tmp_path.glob("cache/calibration-*"))


def test_costs_of_packed_runs_are_those_of_a_calibration(task, warm, tmp_path):
    results = ResultsFolder(tmp_path)
    given = runs(task, "method=lora", "seed=0,1", "budget.steps=5")
    ends = shared_out(given, results, warm)
    [kept] = (tmp_path / "cache").glob("calibration-*.json")
    known = cost_model.CostModel(**json.loads(kept.read_text()))
    for run, other in zip(given, reversed(given), strict=True):
        record = ends[run].record
        train = known.token * record.work["padded_tokens"]
        assert record.seconds["train"] == pytest.approx(train)
        assert record.seconds["evaluate"] == pytest.approx(2 * 24 * known.example)
        assert record.speed["examples_per_second"] == pytest.approx(record.work["examples"] / train)
        seconds = [point["seconds"] for point in record.curve]
        assert seconds == pytest.approx([3 / 5 * train, train])
        assert record.work["packed_with"] == other.key
        assert record.work["calibration"] == known.name == kept.stem.removeprefix("calibration-")
        assert record.environment["packed"] is True
        assert record.memory == known.memory


#: Holds a calibration, and keeps one after a word on its input.
HOLDER = """
import sys
from peftbench.results.store import ResultsFolder
folder, name = sys.argv[1:]
results = ResultsFolder(folder)
assert results.claim(name)
print("held", flush=True)
body = sys.stdin.buffer.read()
if body:
    results.write(results.cache(f"calibration-{name}.json"), body)
"""


@pytest.mark.parametrize("dies", [False, True])
def test_workers_wait_for_one_calibration(task, warm, tmp_path, dies):
    [run] = runs(task, "method=bitfit", "budget.steps=3")
    cpu = torch.device("cpu")

    def alone(short):
        return execute(short, CPU, warm=warm).record

    other = cost_model.known(run, cpu, None, alone)
    command = [sys.executable, "-c", HOLDER, str(tmp_path), other.name]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    kept = replace(other, step=42.0)
    body = b"" if dies else json.dumps(asdict(kept)).encode()
    threading.Timer(0.5, holder.communicate, [body]).start()
    asked = []
    found = cost_model.known(
        run, cpu, ResultsFolder(tmp_path), lambda r: asked.append(r) or alone(r)
    )
    assert len(asked) == dies
    assert (found == kept) is not dies


def test_calibrated_seconds_are_the_steps_that_they_buy(task, warm, tmp_path):
    results = ResultsFolder(tmp_path)
    words = (*task, *WORDS[:3], "method=lora", "budget=seconds", "budget.calibrated=true")
    [run] = plan(*words, "budget.seconds=0.5").runs
    record = execute(run, CPU, results=results, warm=warm).record
    [kept] = (tmp_path / "cache").glob("calibration-*.json")
    step = json.loads(kept.read_text())["step"]
    assert record.work["steps"] == max(1, round(0.5 / step))
    assert record.run.budget == Budget(seconds=0.5, calibrated=True)
