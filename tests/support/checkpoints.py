"""Small checkpoints as people have them, made by code, and what is done to them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, PreTrainedTokenizerFast

from peftbench.models import pretrained

#: The words that the tokenizer knows.
WORDS = [
    *("a", "the", "film", "is", "was", "not", "good", "bad", "dull", "fine"),
    *("very", "it", "so", "and", "cat", "dog", "sat", "ran", "on", "in"),
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROWS = 48


def checkpoint(folder: Path, family: str = "bert", whole: bool = False, **shape: Any) -> Path:
    """A folder as `save_pretrained` writes it: base model or `whole` classifier, tokenizer."""
    model = tiny.one_run(f"model.family={family}").model
    config = pretrained.skeleton_config(model)
    for name, value in {"vocab_size": ROWS, **shape}.items():
        setattr(config, name, value)
    if whole:
        made: Any = pretrained.skeleton(model, config=config)
    else:
        torch.manual_seed(0)
        made = AutoModel.from_config(config)
    made.save_pretrained(folder)
    segments = getattr(config, "type_vocab_size", 0) > 1
    tokenizer(segments).save_pretrained(folder)
    return folder


def tokenizer(segments: bool, count: int = ROWS, **settings: Any) -> PreTrainedTokenizerFast:
    """One that knows WORDS, filled up to `count` tokens."""
    words = [*SPECIAL, *WORDS]
    words += [f"w{number}" for number in range(count - len(words))]
    inner = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = ["input_ids", *["token_type_ids"] * segments, "attention_mask"]
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]"}
    special |= {"sep_token": "[SEP]", "mask_token": "[MASK]"}
    given = {"model_max_length": 128, "model_input_names": names, **special, **settings}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **given)


def table(folder: Path, pairs: bool = False) -> tuple[str, ...]:
    """Overrides for twenty rows of known words in a file of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"the {a} is {b}" for a in ("film", "cat") for b in WORDS[:10]]
    head = "s1,s2,label" if pairs else "sentence,label"
    lines = [f"{row}{',it was so' if pairs else ''},{n % 2}" for n, row in enumerate(rows)]
    path = folder / ("pairs.csv" if pairs else "base.csv")
    path.write_text("\n".join([head, *lines]) + "\n")
    return ("task=file", f"task.path='{path}'", *(["task.texts=[s1,s2]"] if pairs else []))


def words_of(folder: Path, *more: str) -> tuple[str, ...]:
    """Overrides of two steps on the checkpoint."""
    return (
        *("model=auto", f"model.checkpoint='{folder}'", "budget=steps", "budget.steps=2"),
        *("train.precision=fp32", "train.num_evals=1", "train.max_length=32", "method=bitfit"),
        *(() if any(word.startswith("task=") for word in more) else table(folder.parent)),
        *more,
    )


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change the tensors in model.safetensors: `change` returns new ones, or alters them."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    changed = change(tensors)
    save_file(tensors if changed is None else changed, path, metadata={"format": "pt"})


def renamed(folder: Path, prefix: str) -> None:
    """Put something in front of every name."""
    rewrite(folder, lambda tensors: {prefix + name: t for name, t in tensors.items()})


def edit(path: Path, **changes: Any) -> None:
    """Change values in a JSON file; None takes one away."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
