"""Six methods against a plain loop over transformers and peft, loss by loss.

The reference shares no code with peftbench: transformers' own model from the same folder, its
tokenizer, peft's LoRA and IA3, adapters and prefixes written out here, torch's AdamW. From our run
it gets the values that it starts from and which examples meet in a batch.

CPU, fp32, no dropout; what is left is the order of sums.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from peft import IA3Config, LoraConfig, get_peft_model
from tiny import one_run
from torch import Tensor, nn
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel

from peftbench.config.sweep import plan
from peftbench.core.configs import MethodConfig
from peftbench.core.runtime import RuntimeConfig
from peftbench.data.tokenizer import load_tokenizer
from peftbench.methods.base import WrapperMethod
from peftbench.models.adapted_model import AdaptedModel
from peftbench.training.trainer import execute
from peftbench.training.warm_cache import WarmCache

# peft 0.21.2 asks transformers 5.23 a question by its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

STEPS, BATCH, WARMUP, DECAY, CLIP = 20, 8, 0.1, 0.05, 1.0

#: Learning rates at which the loss of the tiny model moves in a few steps.
RATES = {"full": 1e-3, "bitfit": 1e-2, "lora": 1e-2, "adapter": 3e-3, "ia3": 3e-2, "prefix": 1e-2}

WORDS = {
    "lora": ("method.rank=4", "method.alpha=8", "method.dropout=0"),
    "adapter": ("method.width=4",),
    "prefix": ("method.length=3", "method.width=5"),
}


@dataclass(frozen=True, kw_only=True)
class Noted(WrapperMethod):
    """A method whose start and batches are noted."""

    starts: ClassVar[list[dict[str, Tensor]]] = []
    batches: ClassVar[list[list[tuple[int, ...]]]] = []

    def on_step_end(self, model: AdaptedModel, step: int, steps: int | None) -> None:
        """Note the values before the first step; what came before were passes to warm up."""
        super().on_step_end(model, step, steps)
        if step == 0:
            self.starts.append({name: t.clone() for name, t in model.state().items()})
            self.batches.clear()

    def compute_loss(self, model: AdaptedModel, batch: dict[str, Tensor]) -> Tensor:
        """Note which examples are in the batch, by their tokens."""
        rows = zip(batch["input_ids"].tolist(), batch["lengths"].tolist(), strict=True)
        self.batches.append([tuple(ids[:length]) for ids, length in rows])
        return super().compute_loss(model, batch)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A folder with a small random BERT without dropout, and its tokenizer."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    tokenizer = load_tokenizer(one_run().model)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.1,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Data:
    """A task's words, its training texts and labels."""

    words: tuple[str, ...]
    texts: list[tuple[str, str]]
    labels: list[float]

    @property
    def regression(self) -> bool:
        """Whether the labels are values."""
        return "task.kind=regression" in self.words


@pytest.fixture(scope="module", params=["classification", "regression"])
def data(request, tmp_path_factory) -> Data:
    """Pairs of words, whether they begin alike; or how much they do, from 0 to 5 as in STS-B."""
    folder, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    rows: list[tuple[str, str, float]] = []
    for number in range(40 + 4):
        first, other = ("".join(generator.choice(list("abcdefg"), 9)) for _ in range(2))
        alike = int(generator.integers(0, 6))
        second = first[:alike] + other[: 4 + number % 5]  # texts of several lengths
        rows.append((first, second, float(alike) if request.param == "regression" else alike > 2))
    for name, part in (("train", rows[:40]), ("validation", rows[40:])):
        with open(folder / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([("sentence1", "sentence2", "label"), *part])
    words = (
        *("task=file", "task.texts=[sentence1,sentence2]", f"task.kind={request.param}"),
        *(f"task.{key}='{folder}/{name}.csv'" for key, name in PATHS),
    )
    return Data(words, [row[:2] for row in rows[:40]], [float(row[2]) for row in rows[:40]])


@pytest.fixture(scope="module")
def warm() -> WarmCache:
    """What a worker keeps from run to run."""
    return WarmCache()


PATHS = (("path", "train"), ("validation_path", "validation"))


@pytest.mark.parametrize("method", RATES)
def test_every_loss_is_that_of_a_plain_loop(checkpoint, data, method, warm):
    words = [
        *(f"method={method}", f"train.lr={RATES[method]}", "size=full"),
        *("budget=steps", f"budget.steps={STEPS}", f"train.num_evals={STEPS}"),
        *(f"train.batch_size={BATCH}", "train.precision=fp32", "train.lr_scheduler_type=linear"),
        *(f"train.warmup_steps={WARMUP}", f"train.weight_decay={DECAY}"),
        f"train.max_grad_norm={CLIP}",
    ]
    where = ("model=auto", f"model.checkpoint='{checkpoint}'")
    (run,) = plan(*data.words, *words, *WORDS.get(method, ()), *where).runs
    noted = MethodConfig(name="noted", target=f"{__name__}.Noted", base_method=run.method)
    Noted.starts.clear()
    record = execute(replace(run, method=noted), RuntimeConfig(device="cpu"), warm=warm).record
    ours = [point["loss"] for point in record.curve]
    theirs = plain_loop(checkpoint, data, method, Noted.starts[0], Noted.batches)
    assert len(ours) == len(theirs) == STEPS
    assert min(ours) < 0.9 * ours[0]  # something was learnt
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


# the reference


def plain_loop(
    checkpoint: Path,
    data: Data,
    method: str,
    start: dict[str, Tensor],
    batches: list[list[tuple[int, ...]]],
) -> list[float]:
    """The losses of a plain loop on batches of these examples, which are told by their tokens."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    labels = torch.tensor(data.labels)
    if data.regression:  # on z-scores, so that the unit does not count
        labels = (labels - labels.mean()) / labels.std(correction=0)
    number = {tuple(tokenizer(*pair)["input_ids"]): i for i, pair in enumerate(data.texts)}
    assert len(number) == len(data.texts)
    model = BertForSequenceClassification.from_pretrained(
        checkpoint, num_labels=1 if data.regression else 2
    )
    model.requires_grad_(False)
    start = dict(start)
    with torch.no_grad():
        for name in ("classifier.weight", "classifier.bias"):
            model.get_parameter(name).copy_(start.pop(name))
    model.classifier.requires_grad_(True)
    model = INSERT[method](model, start)
    model.train()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}

    def decays(name: str) -> bool:
        return trained[name].ndim > 1 and "ia3_l" not in name  # peft writes vectors as matrices

    groups = [
        {"params": [p for n, p in trained.items() if decays(n)], "weight_decay": DECAY},
        {"params": [p for n, p in trained.items() if not decays(n)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.0)
    losses = []
    for step, batch in enumerate(batches):
        rows = [number[ids] for ids in batch]
        pairs = [list(texts) for texts in zip(*(data.texts[row] for row in rows), strict=True)]
        logits = model(**tokenizer(*pairs, padding=True, return_tensors="pt")).logits
        if data.regression:
            loss = ((logits[:, 0] - labels[rows]) ** 2).mean()
        else:
            loss = F.cross_entropy(logits, labels[rows].long())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), CLIP)
        done = (step + 0.5) / STEPS  # the schedule is read in the middle of a step
        for group in optimizer.param_groups:
            group["lr"] = RATES[method] * min(done / WARMUP, (1 - done) / (1 - WARMUP))
        optimizer.step()
        losses.append(loss.item())
    return losses


Insert = Callable[[BertForSequenceClassification, dict[str, Tensor]], nn.Module]


def full(model: BertForSequenceClassification, start: dict[str, Tensor]) -> nn.Module:
    """Train everything; the start is that of the folder."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(True)
        assert name.startswith("classifier") or torch.equal(parameter, start[name])
    return model


def bitfit(model: BertForSequenceClassification, start: dict[str, Tensor]) -> nn.Module:
    """Train what is called bias."""
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.requires_grad_(True)
    return model


def lora(model: BertForSequenceClassification, start: dict[str, Tensor]) -> nn.Module:
    """LoRA of the library from the same A; B is 0."""
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"])
    return _by_peft(model, config, start, {"down.weight": "lora_A", "up.weight": "lora_B"})


def ia3(model: BertForSequenceClassification, start: dict[str, Tensor]) -> nn.Module:
    """IA3 of the library at the places of its paper: keys, values, inner activations."""
    inner = r".*layer\.\d+\.output\.dense"
    config = IA3Config(
        target_modules=rf".*\.key|.*\.value|{inner}",
        feedforward_modules=inner,
        init_ia3_weights=True,
    )
    return _by_peft(model, config, start, {"scale": "ia3_l"})


def _by_peft(
    model: BertForSequenceClassification,
    config: LoraConfig | IA3Config,
    start: dict[str, Tensor],
    names: dict[str, str],
) -> nn.Module:
    """The library's model, its tensors copied from ours, which have other names and shapes."""
    made = get_peft_model(model, config)
    made.base_model.model.classifier.requires_grad_(True)
    with torch.no_grad():
        for name, value in start.items():
            place, _, end = next(name.partition("." + our) for our in names if name.endswith(our))
            assert not end
            theirs = names[name.removeprefix(f"{place}.")]
            part = getattr(made.base_model.model.get_submodule(place), theirs)["default"]
            tensor = part if isinstance(part, nn.Parameter) else part.weight
            tensor.copy_(value.view_as(tensor))
    return made


class Bottleneck(nn.Module):
    """h + U gelu(D h) behind a linear, and the values of ours."""

    def __init__(self, linear: nn.Linear, start: dict[str, Tensor], place: str):
        super().__init__()
        self.linear = linear
        parts = [("down", "weight"), ("down", "bias"), ("up", "weight"), ("up", "bias")]
        values = [start[f"{place}.bottleneck.{one}.{kind}"] for one, kind in parts]
        self.matrices = nn.ParameterList([nn.Parameter(value.clone()) for value in values])

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, in) to (batch, tokens, dim)."""
        h = self.linear(x)
        down, down_bias, up, up_bias = self.matrices
        return h + F.gelu(h @ down.T + down_bias) @ up.T + up_bias


def adapter(model: BertForSequenceClassification, start: dict[str, Tensor]) -> nn.Module:
    """Houlsby's two bottlenecks a block, with the norms of the blocks."""
    for number, block in enumerate(model.bert.encoder.layer):
        for part in ("attention.output", "output"):
            place = block.get_submodule(part)
            name = f"bert.encoder.layer.{number}.{part}.dense"
            place.dense = Bottleneck(place.dense, start, name)
            place.LayerNorm.requires_grad_(True)
    return model


class Prefixed(nn.Module):
    """Self-attention written out, with keys and values in front that an MLP makes."""

    def __init__(self, attention: nn.Module, mlp: nn.ParameterDict, number: int):
        super().__init__()
        self.attention, self.mlp, self.number = attention, mlp, number

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: object
    ) -> tuple[Tensor, None]:
        """(batch, tokens, dim) to the same."""
        batch, tokens, dim = hidden_states.shape
        mlp = self.mlp
        made = torch.tanh(mlp["start"] @ mlp["down"].T + mlp["down_bias"])
        made = made @ mlp["up"].T + mlp["up_bias"]
        keys, values = made.view(len(made), -1, 2, dim)[:, self.number].unbind(1)

        def heads(x: Tensor) -> Tensor:
            return x.reshape(batch, -1, 4, dim // 4).transpose(1, 2)

        query = heads(self.attention.query(hidden_states))
        front = (one.expand(batch, -1, -1) for one in (keys, values))
        own = (part(hidden_states) for part in (self.attention.key, self.attention.value))
        key, value = (heads(torch.cat(two, dim=1)) for two in zip(front, own, strict=True))
        scores = query @ key.transpose(2, 3) / (dim // 4) ** 0.5
        if attention_mask is not None:
            real = attention_mask if attention_mask.dtype == torch.bool else attention_mask == 0
            scores = scores.masked_fill(~F.pad(real, (len(keys), 0), value=True), -torch.inf)
        return (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, tokens, dim), None


def prefix(model: BertForSequenceClassification, start: dict[str, Tensor]) -> nn.Module:
    """Li and Liang's prefix with its MLP."""
    names = ("start", "down.weight", "down.bias", "up.weight", "up.bias")
    mlp = nn.ParameterDict(
        {
            name.replace(".weight", "").replace(".", "_"): start[f"prefix.{name}"].clone()
            for name in names
        }
    )
    model.mlp = mlp
    for number, block in enumerate(model.bert.encoder.layer):
        block.attention.self = Prefixed(block.attention.self, mlp, number)
    return model


INSERT: dict[str, Insert] = {
    "full": full,
    "bitfit": bitfit,
    "lora": lora,
    "adapter": adapter,
    "ia3": ia3,
    "prefix": prefix,
}
