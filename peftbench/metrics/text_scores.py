"""Scores of written texts, each against the one that was wanted, as predictions hold them."""

import numpy as np

from peftbench.metrics.evaluate_metrics import evaluate_texts
from peftbench.metrics.task_metrics import text_metrics


def of_texts(texts: list[str], targets: list[str]) -> np.ndarray:
    """Scores (texts, metrics), fp32, in the order of `text_metrics`."""
    columns = [
        evaluate_texts(one).compute(predictions=texts, references=targets)["of_texts"]
        for one in text_metrics()
    ]
    return np.stack(columns, axis=1).astype(np.float32)
