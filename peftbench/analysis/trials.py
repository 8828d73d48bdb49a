"""What the trials of a choice tell: scores by rate, sensitivity, the expected best of more."""

import math
from collections.abc import Sequence
from statistics import fmean

from peftbench.core.tuning import Choice, Trial
from peftbench.metrics import task_metrics


def mean_scores(metric: str, trials: Sequence[Trial]) -> dict[float, float]:
    """The mean of each rate's trials, larger for better; smaller rates first."""
    sign = _sign(metric)
    return {
        rate: fmean(float("-inf") if trial.score is None else sign * trial.score for trial in made)
        for rate, made in by_rate(trials).items()
    }


def _sign(metric: str) -> float:
    return 1.0 if task_metrics.factor(metric) == 100 else -1.0  # of an error less is better


def by_rate(trials: Sequence[Trial]) -> dict[float, list[Trial]]:
    """The trials of each rate, smaller rates first."""
    found: dict[float, list[Trial]] = {}
    for trial in sorted(trials, key=lambda one: one.rate):
        found.setdefault(trial.rate, []).append(trial)
    return found


def failed_rates(choice: Choice) -> int:
    """How many rates collapsed or diverged in any trial."""
    every = by_rate(choice.trials).values()
    return sum(any(one.collapsed or one.score is None for one in made) for made in every)


def near_scores(choice: Choice) -> list[float]:
    """Mean scores of the rates within a decade of the chosen one, those that diverged left out."""
    sign = _sign(choice.metric)
    return [
        sign * mean
        for rate, mean in mean_scores(choice.metric, choice.trials).items()
        if abs(math.log10(rate / choice.rate)) <= 1 + 1e-9 and math.isfinite(mean)
    ]


def expected_best(choice: Choice) -> list[float]:
    """Expected best score of 1, 2, … rates, each tried with one seed.

    With the first round's scores v₁ ≤ … ≤ v_N, of rates drawn independently, the best of n is

        Σᵢ vᵢ (P(v ≤ vᵢ)ⁿ - P(v < vᵢ)ⁿ)

    in expectation, P the share among the N (Dodge et al. 2019, arXiv 1909.03004, section 3.1). A
    rate that diverged counts as the worst of the others.

    Returns:
        Up to n = N; empty if all diverged.
    """
    sign = _sign(choice.metric)
    first = mean_scores(choice.metric, [trial for trial in choice.trials if trial.rung == 1])
    known = [score for score in first.values() if math.isfinite(score)]
    if not known:
        return []
    values = sorted(max(score, min(known)) for score in first.values())
    total = len(values)
    return [
        sign * sum(v * (i**n - (i - 1) ** n) for i, v in enumerate(values, 1)) / total**n
        for n in range(1, total + 1)
    ]
