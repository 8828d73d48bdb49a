"""Greedy decoding of batches of texts with a key-value cache, and what was written as scores.

Texts of a batch are padded behind their last token: what is written comes after the padding, which
no token sees, and its positions go on from the text's own.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from peftbench.core.configs import TaskConfig
from peftbench.core.run import Run
from peftbench.data import prompting
from peftbench.data.batching import Batch
from peftbench.metrics import text_scores
from peftbench.models.adapted_model import AdaptedModel

#: In the place of tokens after the end of a text.
AFTER = -1


@dataclass(frozen=True)
class Decoding:
    """How texts are written.

    Attributes:
        most: tokens of each.
        end: the token that ends one.
        stopped: whether a text of these tokens has ended without that one; None if none does.
    """

    most: int
    end: int
    stopped: Callable[[list[int]], bool] | None = None


def of_run(run: Run, tokenizer: PreTrainedTokenizerBase) -> Decoding | None:
    """How a run writes; None where it wants no texts."""
    if not run.task.generation:
        return None
    end, stop = prompting.end_of_text(tokenizer), run.task.stop
    if stop is None:
        return Decoding(run.task.new_tokens, end)

    def stopped(ids: list[int]) -> bool:
        return stop in str(tokenizer.decode(ids, skip_special_tokens=True)).lstrip()

    return Decoding(run.task.new_tokens, end, stopped)


def greedy(model: AdaptedModel, batch: Batch, how: Decoding) -> Tensor:
    """The likeliest next token again and again, (batch, most); `AFTER` behind the end of a text.

    Args:
        model: a language model in eval mode, whose method treats each token by itself.
        batch: of texts without what is wanted.
        how: when to stop.
    """
    count, width = batch["input_ids"].shape
    lengths = batch["lengths"]
    known = model.past(count)
    past = DynamicCache() if known is None else known
    before = past.get_seq_length()
    device = lengths.device
    rows = torch.arange(count, device=device)
    states = model.hidden(batch, past)[rows, lengths - 1]
    real = torch.arange(width, device=device) < lengths[:, None]
    seen = F.pad(real, (before, how.most), value=True)[:, None, None, :]
    head = model.module.get_output_embeddings()
    found = torch.full((count, how.most), AFTER, device=device)
    writing = torch.ones(count, dtype=torch.bool, device=device)
    for step in range(how.most):
        token = head(states).argmax(-1)
        found[rows, step] = torch.where(writing, token, AFTER)
        writing &= token != how.end
        if how.stopped is not None:
            for row in writing.nonzero()[:, 0].tolist():
                writing[row] = not how.stopped(found[rows[row], : step + 1].tolist())
        left = int(writing.sum())
        if step + 1 == how.most or not left:
            break
        if 2 * left <= len(rows):  # a few long texts are not worth the passes of all
            kept = writing.nonzero()[:, 0]
            past.batch_select_indices(kept)
            rows, token, lengths = rows[kept], token[kept], lengths[kept]
            seen, writing = seen[kept], writing[kept]
        following = {
            "input_ids": token[:, None],
            "attention_mask": seen[..., : before + width + step + 1],
            "position_ids": (before + lengths + step)[:, None],
        }
        states = model.hidden(following, past)[:, 0]
    return found


def texts_of(
    written: np.ndarray, tokenizer: PreTrainedTokenizerBase, stop: str | None = None
) -> list[str]:
    """The texts of (texts, most) tokens, each until `stop` where it has it."""
    ids = [[int(token) for token in row if token != AFTER] for row in written]
    texts = [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
    return texts if stop is None else [text.partition(stop)[0].rstrip() for text in texts]


def digests(texts: list[str]) -> np.ndarray:
    """Hashes of texts (texts, 32) bytes, which records hold in their place."""
    found = [hashlib.sha256(text.encode()).digest() for text in texts]
    return np.stack([np.frombuffer(one, np.uint8) for one in found])


def scored(
    outputs: dict[str, np.ndarray],
    targets: list[str],
    tokenizer: PreTrainedTokenizerBase,
    task: TaskConfig,
) -> dict[str, np.ndarray]:
    """Outputs of `greedy`, as `written`, with the scores of each text in its place.

    Args:
        outputs, targets: text by text.
        tokenizer: of the model.
        task: that wants them.

    Returns:
        Also `scores` (texts, metrics), see `text_scores`; `text_sha256` (texts, 32) bytes;
        `new_tokens` (texts,), that which ends a text among them.
    """
    written = outputs["written"].astype(np.int64)
    texts = texts_of(written, tokenizer, task.stop)
    return {name: array for name, array in outputs.items() if name != "written"} | {
        "scores": text_scores.of_texts(texts, targets, task.rouge_tokens),
        "text_sha256": digests(texts),
        "new_tokens": (written != AFTER).sum(axis=1).astype(np.int32),
    }
