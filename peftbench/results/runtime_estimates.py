"""How long runs will take: from the speeds of records, else from shipped step times."""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path

from peftbench.core.configs import ModelConfig
from peftbench.core.run import Record, Run, canonical
from peftbench.system.hardware import bf16_on_cpu, cores

Near = tuple[str, ...]

#: A step's time over that of a forward and backward pass through frozen weights, by method: what
#: scripts/bench_step.py measured on one thread of a CPU, with MiniLM.
STEP_COSTS = Path(__file__).with_name("step_costs.json")

#: What such a pass costs, in forward passes.
_PLAIN = 2

#: Seconds of a forward pass of one text through MiniLM on one core, from the same measurement, and
#: the mean tokens of its texts.
_PASS_SECONDS, _PASS_TOKENS = 0.283 / 16 / _PLAIN, 50

#: Mean tokens of a training example by task, with MiniLM's tokenizer, of the whole training split.
TEXT_TOKENS = Path(__file__).with_name("text_tokens.json")

#: What a pass costs beside its tokens, in tokens: of a line through the seconds of cola, stsb and
#: mrpc (11, 28 and 53 tokens) in results/reference and in runs over data sizes.
_TOKENS_ASIDE = 11

#: Forward passes of a text that writing one costs beside the first: SmolLM2-135M took 0.6 CPU
#: seconds in bf16 for 47 tokens and 3.5 for a step of 16 texts, 0.07 for a pass of one.
_WRITTEN = 8

#: Seconds of a run beside its passes (loading, tokenising, warm-up): the mean of the same records.
_ASIDE_SECONDS = 2.0

#: A pass in fp32 over one in bf16: on a CPU with bf16 instructions (results/benchmarks/train.md),
#: and on one without, against one with them: a quickstart took 503 seconds, and 168.
_FP32 = {True: 1.5, False: 3.0}

#: Blocks, width and inner width of packaged models whose files leave them to the config class.
_SIZES = {
    "bert_base": (12, 768, 3072),
    "distilbert": (6, 768, 3072),
    "electra_small": (12, 256, 1024),
    "mpnet_base": (12, 768, 3072),
    "roberta_base": (12, 768, 3072),
}


class Forecast:
    """Seconds of a run: measured on the nearest records, None where nothing is near.

    Nearest are those of the same model, method and task; then the same model and method; then the
    same model.

    Args:
        records: that say how long runs took.
        rows: see `core.plan.Plan`.
    """

    def __init__(self, records: Iterable[Record], rows: Mapping[str, dict[str, int]] | None = None):
        self._rows = rows or {}
        self._pace: dict[Near, list[float]] = defaultdict(list)
        self._rest: dict[Near, list[float]] = defaultdict(list)
        for record in records:
            if not record.work["examples"]:  # untrained: no pace
                continue
            spent = sum(record.seconds.values()) - record.seconds["train"]
            for near in _near(record.run):
                self._pace[near].append(record.seconds["train"] / record.work["examples"])
                self._rest[near].append(spent)

    def seconds(self, run: Run) -> float | None:
        """Wall-clock seconds of the run on the machine of the records."""
        run = self._counted(run)
        for near in _near(run):
            if near in self._pace:
                train = self._train(run, _mean(self._pace[near]))
                return None if train is None else train + _mean(self._rest[near])
        return None

    def rough(self, run: Run) -> float | None:
        """Seconds of the run where nothing was measured: all cores of this CPU, shipped step times.

        A budget of seconds takes as long on any number of cores, and as many such runs go side by
        side as there are cores. None for a model or an amount of data of unknown size.
        """
        if run.budget.seconds is not None:
            return (run.budget.seconds + _ASIDE_SECONDS) / self._cores
        run = self._counted(run)
        passes, size = _passes(run), _relative_size(run.model)
        if passes is None or size is None:
            return None
        tokens = _tokens(run) + _TOKENS_ASIDE
        seconds = _PASS_SECONDS * tokens / (_PASS_TOKENS + _TOKENS_ASIDE)
        work = passes * size * seconds * _slowness(run.train.precision)
        return (work + _ASIDE_SECONDS) / self._cores

    @cached_property
    def _cores(self) -> float:
        """Asked once: the answer is in files of the system, and runs are many."""
        return cores()

    def weights(self, runs: list[Run]) -> dict[str, float]:
        """How much of the whole each run is, by key.

        Seconds where all are known, else forward passes, else each run counts alike.
        """
        for measure in (self.seconds, _passes):
            found = {run.key: measure(self._counted(run)) for run in runs}
            if all(found.values()):
                return {key: known or 0.0 for key, known in found.items()}
        return {run.key: 1.0 for run in runs}

    def _counted(self, run: Run) -> Run:
        """The run with the examples of a user's own file; its key is another one."""
        if run.task.examples or "file" not in run.task.source:
            return run
        known = self._rows.get(canonical(run.task))
        return run if known is None else replace(run, task=replace(run.task, examples=known))

    def _train(self, run: Run, pace: float) -> float | None:
        if run.budget.seconds is not None:
            return float(run.budget.seconds)
        examples = _examples(run)
        return None if examples is None else examples * pace


def _slowness(precision: str) -> float:
    """Seconds of a pass over those of the shipped step times, which are in bf16."""
    native = bool(bf16_on_cpu())
    return 1.0 if native and precision in ("auto", "bf16") else _FP32[native]


def _relative_size(model: ModelConfig) -> float | None:
    """Multiplications of a token in the blocks, over MiniLM's; None where sizes are unknown."""
    shape = model.shape
    if model.checkpoint is None:
        shape = model.family_config.tiny | shape
    names = ("num_hidden_layers", "hidden_size", "intermediate_size")
    if all(name in shape for name in names):
        blocks, width, inner = (shape[name] for name in names)
    elif model.name in _SIZES and not shape.keys() & set(names):
        blocks, width, inner = _SIZES[model.name]
    else:
        return None
    minilm = 6 * (4 * 384**2 + 2 * 384 * 1536)
    return float(blocks * (4 * width**2 + 2 * width * inner) / minilm)


def _subset(run: Run) -> float | None:
    """How many examples a run has to train on, where that can be known before."""
    total = run.task.examples.get("train")
    if total is not None:
        return float(run.train_size(total))
    return float(run.size) if isinstance(run.size, int) else None


def _examples(run: Run) -> float | None:
    """How many examples a run will train on, repeats counted, where that can be known before."""
    if run.budget.steps is not None:
        return float(run.budget.steps * run.train.batch_size)
    subset = _subset(run)
    return None if run.budget.epochs is None or subset is None else run.budget.epochs * subset


def _passes(run: Run) -> float | None:
    """How many forward passes a run costs, evaluations included, where that can be known before."""
    trained, subset = _examples(run), _subset(run)
    if trained is None:
        return None
    reported = run.task.examples.get("validation", 0)
    held = run.checkpoint_selection.fraction * (subset or 0)
    scored = run.train.num_evals * held + reported if held else run.train.num_evals * reported
    costs = _step_costs()
    step = costs.get(run.method.name, statistics.median(costs.values()))
    each = 1 + _WRITTEN if run.task.generation else 1
    return _PLAIN * step * trained + each * scored


def _tokens(run: Run) -> float:
    """Mean tokens of an example; of a task that was not measured those of the step times."""
    known: dict[str, float] = _text_tokens()
    return min(known.get(run.task.name, _PASS_TOKENS), run.train.max_length)


@cache
def _text_tokens() -> dict[str, float]:
    found: dict[str, float] = json.loads(TEXT_TOKENS.read_text(encoding="utf-8"))
    return found


@cache
def _step_costs() -> dict[str, float]:
    found: dict[str, float] = json.loads(STEP_COSTS.read_text(encoding="utf-8"))
    return found


def _near(run: Run) -> list[Near]:
    model, method, task = run.model.name, run.method.name, run.task.name
    return [(model, method, task), (model, method), (model,)]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
