"""The scores of peftbench as one `evaluate.Metric`, which needs no network and no module script."""

from typing import Any

import datasets
import evaluate
import numpy as np

from peftbench.metrics import task_metrics


class Scores(evaluate.Metric):
    """GLUE's metrics under the interface of the evaluate library.

    `evaluate.load("glue", …)` wants the hub even offline (evaluate 0.4.6); this does not:

        Scores("mrpc", metrics=["accuracy", "f1"]).compute(predictions=[1, 0], references=[1, 1])

    Args:
        config_name: a name for the cache, such as the task's.
        metrics: names out of `task_metrics.METRICS`; predictions are classes or values.
    """

    def __init__(self, config_name: str = "default", *, metrics: list[str], **kwargs: Any):
        self.names = metrics
        super().__init__(config_name=config_name, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        value = datasets.Value("float64")
        return evaluate.MetricInfo(
            description="The metrics of GLUE; undefined ones are None.",
            citation="",
            features=datasets.Features({"predictions": value, "references": value}),
        )

    def _compute(self, *, predictions: Any, references: Any) -> dict[str, float | None]:
        predicted, label = np.asarray(predictions), np.asarray(references)
        return {name: task_metrics.METRICS[name](predicted, label) for name in self.names}
