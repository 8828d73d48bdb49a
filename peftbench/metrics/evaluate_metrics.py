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
        value = datasets.Value("float64" if "regression" in self.metric.kinds else "int64")
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


@cache
def evaluate_metric(metric: Metric) -> TaskMetric:
    """The metric of the evaluate library; one for each process."""
    return TaskMetric(metric)
