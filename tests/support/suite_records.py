"""Findings of suites made by hand."""

from typing import Any

import numpy as np
import records

from peftbench.config.sweep import plan
from peftbench.core.evaluation import Evaluated, Evaluation
from peftbench.core.run import Json
from peftbench.reports.tables.markdown import Table
from peftbench.suites import base


def planned(*words: str, **changed: Any) -> list[Evaluation]:
    """Evaluations, their suites with these values changed."""
    return [Evaluation(e.run, e.suite | changed) for e in plan(*records.tiny(*words)).evaluations]


def found(evaluation: Evaluation, findings: Json) -> Evaluated:
    return Evaluated(evaluation, findings, {}, {}, records.ENVIRONMENT, None)


def trained(every: list[Evaluated]) -> dict[str, int]:
    return {e.evaluation.run.key: 2048 for e in every}


def lines(table: Table) -> list[dict[str, str]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def noisy(evaluation: Evaluation, clean: float) -> Evaluated:
    scores = [clean] * len(evaluation.suite["intensities"])
    kinds = {"typos": {"scores": scores, "drop": 0.1, "flips": [0.2]}}
    told = {"metric": "accuracy", "clean": clean, "area": clean, "worst": clean, "kinds": kinds}
    return found(evaluation, told | {"intensities": evaluation.suite["intensities"]})


def sure(evaluation: Evaluation, good: float) -> Evaluated:
    """What calibration finds of predictions that are right for a share of the labels."""
    label = np.arange(200) % 2
    said = np.where(np.arange(200) < 200 * good, label, 1 - label)
    known = {"label": label, "scores": 2.0 * np.eye(2)[said]}
    told = base.build_suite(evaluation.suite).findings(records.record(evaluation.run), known, {})
    del told["headline"]
    return found(evaluation, told)


def abroad(evaluation: Evaluation, score: float, untrained: float) -> Evaluated:
    target = {
        "metric": "accuracy",
        "scores": {"accuracy": score},
        "home": score + 0.1,
        "gap": 0.1,
        "trivial": 0.5,
    }
    target |= {"untrained": {"accuracy": untrained}}
    moved = {"relative": 0.01, "inserted_l2": 1.0}
    return found(evaluation, {"targets": {"away": target}, "moved": moved})
