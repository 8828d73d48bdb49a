"""Scores of written texts, each against the one that was wanted, as predictions hold them."""

import warnings

import numpy as np

from peftbench.metrics.evaluate_metrics import evaluate_texts
from peftbench.metrics.task_metrics import text_metrics
from peftbench.metrics.word_tokens import ASCII, UNICODE, is_blank_in_ascii


def of_texts(texts: list[str], targets: list[str], rouge_tokens: str | None = None) -> np.ndarray:
    """Scores (texts, metrics), fp32, in the order of `text_metrics`.

    Args:
        texts, targets: text by text.
        rouge_tokens: of the task, see `TaskConfig`.
    """
    tokens = rouge_tokens or ASCII
    if tokens == ASCII and (blank := sum(map(is_blank_in_ascii, targets))):
        warnings.warn(
            f"{blank} of {len(targets)} targets have no letter of a to z, so that their ROUGE is 0 "
            f"whatever is generated; set task.rouge_tokens={UNICODE}",
            stacklevel=2,
        )
    columns = [
        evaluate_texts(one).compute(predictions=texts, references=targets, tokens=tokens)[
            "of_texts"
        ]
        for one in text_metrics()
    ]
    return np.stack(columns, axis=1).astype(np.float32)
