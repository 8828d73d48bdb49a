"""Metrics of tasks under the interface of the evaluate library, which takes seconds to import.

`evaluate.load` fetches a script from the hub; these are made from the functions of this package and
need no network.
"""

from functools import cache
from typing import Any

import datasets
import evaluate
import numpy as np
import pyarrow as pa

from peftbench.metrics.base import Metric
from peftbench.metrics.word_tokens import ASCII


class _Numbers(datasets.Features):
    """Columns of numbers, which need no encoding one by one."""

    def encode_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        return batch


class TaskMetric(evaluate.Metric):
    """A metric of this package; its `compute` returns a score by name, None where undefined.

        TaskMetric(METRICS["f1"]).compute(predictions=[1, 0], references=[1, 1])

    Predictions stay in memory.
    """

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        super().__init__(config_name=metric.name, keep_in_memory=True)

    def _build_data_dir(self) -> str:
        """The folder of the cache, which evaluate 0.4.6 creates although nothing is kept in it."""
        return str(self._data_dir_root)

    def _info(self) -> evaluate.MetricInfo:
        numbers = self.metric.kinds != ("classification",)
        value = datasets.Value("float64" if numbers else "int64")
        return evaluate.MetricInfo(
            description=self.metric.about,
            citation="",
            features=_Numbers({"predictions": value, "references": value}),
            format="arrow",  # lists are slower, numpy arrays are rounded to 32 bits
        )

    def _compute(
        self, *, predictions: pa.ChunkedArray, references: pa.ChunkedArray, **kwargs: Any
    ) -> dict[str, float | None]:
        predicted, label = np.asarray(predictions), np.asarray(references)
        return {self.metric.name: self.metric.compute(predicted, label)}


class TextMetric(evaluate.Metric):
    """A metric of texts; its `compute` returns a score by name, and `of_texts`, of each text.

    TextMetric(METRICS["rouge_l"]).compute(predictions=["a b"], references=["a c"])
    """

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        super().__init__(config_name=metric.name, keep_in_memory=True)

    def _build_data_dir(self) -> str:
        """As of `TaskMetric`."""
        return str(self._data_dir_root)

    def _info(self) -> evaluate.MetricInfo:
        value = datasets.Value("string")
        return evaluate.MetricInfo(
            description=self.metric.about,
            citation="",
            features=datasets.Features({"predictions": value, "references": value}),
        )

    def _compute(
        self, *, predictions: list[str], references: list[str], tokens: str = ASCII, **kwargs: Any
    ) -> dict[str, Any]:
        assert self.metric.of_text is not None
        pairs = zip(predictions, references, strict=True)
        found = [self.metric.of_text(*pair, tokens) for pair in pairs]
        return {self.metric.name: float(np.mean(found)), "of_texts": found}


@cache
def evaluate_texts(metric: Metric) -> TextMetric:
    """The metric of texts of the evaluate library; one for each process."""
    return TextMetric(metric)


@cache
def evaluate_metric(metric: Metric) -> TaskMetric:
    """The metric of the evaluate library; one for each process."""
    return TaskMetric(metric)
