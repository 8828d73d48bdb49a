"""Scores of written texts, each against the one that was wanted, as predictions hold them."""

import warnings
from itertools import islice

import numpy as np

from peftbench.metrics.evaluate_metrics import evaluate_texts
from peftbench.metrics.task_metrics import METRICS, text_metrics
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


#: Training texts of which the constant prediction is one, and those that it is compared with:
#: every text with every other one takes minutes where there are thousands.
CANDIDATES, OTHERS = 64, 128


def constant(targets: list[str], metric: str, rouge_tokens: str | None = None) -> str:
    """The one text that is most like the others, as the most frequent class is of labels.

    It is among the first `CANDIDATES` distinct ones, and scores best on the first `OTHERS`.

    Args:
        targets: of the training examples.
        metric: by which they are compared.
        rouge_tokens: of the task, see `TaskConfig`.
    """
    candidates = list(islice(dict.fromkeys(targets), CANDIDATES))
    others = targets[:OTHERS]
    scores = evaluate_texts(METRICS[metric]).compute(
        predictions=[text for text in candidates for _ in others],
        references=others * len(candidates),
        tokens=rouge_tokens or ASCII,
    )["of_texts"]
    means = np.asarray(scores, dtype=np.float64).reshape(len(candidates), len(others)).mean(axis=1)
    return candidates[int(means.argmax())]
