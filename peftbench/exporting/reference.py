"""What the validation texts were like to a model, as numbers: to tell later whether texts drift.

No text is in it. Tokens are counted by their numbers, and only those that several texts hold, so
that a name or a number that one text has cannot be read off.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from peftbench.core.configs import ModelConfig
from peftbench.core.errors import ConfigError
from peftbench.core.run import Json
from peftbench.data import prompting
from peftbench.data.batching import Batch
from peftbench.data.tokenization import TokenizedSplit, tokenize_split
from peftbench.exporting.held_out_scores import HeldOutScores
from peftbench.exporting.kept_run import KeptRun
from peftbench.methods.base import Method
from peftbench.models.adapted_model import AdaptedModel
from peftbench.results.store import ResultsFolder
from peftbench.training.precision import build_accelerator
from peftbench.training.predictor import Predictor

#: The file in an exported folder.
NAME = "reference.json"

#: Texts whose embeddings are taken, evenly over the validation texts.
_SAMPLE = 2000

#: Texts that hold a token before it is counted by its number.
_SEVERAL = 5

_QUANTILES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


def describe(
    kept: KeptRun, results: ResultsFolder, root: str | None, held: HeldOutScores | None = None
) -> Json:
    """Confidence, lengths, tokens and embeddings of the validation texts.

    Args:
        kept: the run, nothing of it merged.
        results: where its predictions are.
        root: folders of data sets in the hub's layout, or None for the hub.
        held: in place of the record's predictions.

    Raises:
        ConfigError: if the texts are not at hand, or not those of the record.
    """
    run, split = kept.run, kept.run.task.splits["validation"]
    prompt = prompting.build_prompt(run, root)
    tokens = tokenize_split(run.task, split, kept.tokenizer, run.train.max_length, root, prompt)
    known = results.predictions(kept.record)
    if not np.array_equal(tokens.label, known["label"]):
        raise ConfigError(
            f"{run.title}: the {len(tokens)} validation texts are not the {len(known['label'])} of "
            "the record; give their data with --data-root, or --without-reference"
        )
    scores = known["scores"] if held is None else held.scores
    source = {} if held is None else {"source": held.source}
    return {
        "key": run.key,
        "task": run.task.name,
        "texts": len(tokens),
        "quantiles": list(_QUANTILES),
        "predictions": _predictions(scores, kept.labels) | source,
        "length": _summary(tokens.lengths) | {"truncated": int(tokens.truncated)},
        "tokens": _tokens(tokens, kept),
        "embedding": _embeddings(tokens, kept),
    }


def _summary(values: np.ndarray) -> Json:
    exact = values.astype(np.float64)
    return {
        "mean": float(exact.mean()),
        "std": float(exact.std()),
        "quantiles": np.quantile(exact, _QUANTILES).tolist(),
    }


def _predictions(scores: np.ndarray, labels: list[str] | None) -> Json:
    """Of the record: the probability of the predicted class, and how often each is; or values."""
    if labels is None:
        return {"value": _summary(scores[:, 0])}
    logits = torch.from_numpy(scores).double()
    confidence, chosen = (t.numpy() for t in logits.softmax(-1).max(-1))
    shares = np.bincount(chosen, minlength=len(labels)) / len(chosen)
    return {
        "confidence": _summary(confidence),
        "share": dict(zip(labels, shares.tolist(), strict=True)),
    }


def _tokens(tokens: TokenizedSplit, kept: KeptRun) -> Json:
    """Counts of tokens by number, special ones left out."""
    special = np.isin(tokens.ids, kept.tokenizer.all_special_ids)
    unknown = tokens.ids == kept.tokenizer.unk_token_id if kept.tokenizer.unk_token else special[:0]
    plain = np.where(special, -1, tokens.ids)
    texts = np.repeat(np.arange(len(tokens)), tokens.lengths)
    pairs = np.unique(np.stack([plain, texts]), axis=1)
    held = np.bincount(pairs[0][pairs[0] >= 0])
    counts = np.bincount(plain[plain >= 0], minlength=len(held))
    several = np.flatnonzero(held >= _SEVERAL)
    named = int(counts[several].sum())
    return {
        "total": int(counts.sum()),
        "distinct": int((counts > 0).sum()),
        "unknown": int(unknown.sum()),
        "counts": {str(number): int(counts[number]) for number in several},
        "others": int(counts.sum()) - named,
    }


def _embeddings(tokens: TokenizedSplit, kept: KeptRun) -> Json:
    """Summary of the embeddings of some texts."""
    rows = np.unique(np.linspace(0, len(tokens) - 1, _SAMPLE).astype(np.int64))
    found = text_embeddings(tokens, rows, kept.run.model, kept.model, kept.tokenizer)
    mean, std = found.mean(0), found.std(0)
    spread = np.where(std > 0, std, 1)
    distance = np.sqrt((((found - mean) / spread) ** 2).mean(1))
    return {
        "texts": len(rows),
        "mean": mean.tolist(),
        "std": std.tolist(),
        "distance": _summary(distance),
    }


def text_embeddings(
    tokens: TokenizedSplit,
    rows: np.ndarray,
    config: ModelConfig,
    model: AdaptedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> np.ndarray:
    """(rows, width) means over the tokens of a text of what the last block gives.

    Args:
        tokens: of all texts.
        rows: numbers of the texts, ascending.
        config: of the model.
        model: on the CPU, in eval mode.
        tokenizer: of the checkpoint.
    """
    seen: list[Tensor] = []

    def keep(module: nn.Module, given: object, output: Any) -> None:
        seen.append(output[0])

    def embed(batch: Batch) -> dict[str, Tensor]:
        seen.clear()
        model(batch)
        states = seen[-1].float()
        real = torch.arange(states.shape[1]) < batch["lengths"][:, None]
        mean = (states * real[..., None]).sum(1) / batch["lengths"][:, None]
        return {"embedding": mean[None]}

    cpu, mask = torch.device("cpu"), config.family_config.mask
    accelerator = build_accelerator(cpu, "fp32")
    view = Predictor(tokenizer.pad_token_id, mask, cpu, Method(), model, accelerator)
    hook = model.module.base_model.register_forward_hook(keep)
    try:
        return next(view.outputs(tokens, rows, embed))["embedding"].astype(np.float64)
    finally:
        hook.remove()
