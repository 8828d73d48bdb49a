"""What the trials of a choice tell: scores by rate, sensitivity, the expected best of more."""

import math
from collections.abc import Iterable
from statistics import fmean

from peftbench.core.tuning import Choice, Trial


def by_rate(trials: Iterable[Trial]) -> dict[float, list[Trial]]:
    """The trials of each rate, smaller rates first."""
    found: dict[float, list[Trial]] = {}
    for trial in sorted(trials, key=lambda one: one.rate):
        found.setdefault(trial.rate, []).append(trial)
    return found


def _means(trials: Iterable[Trial]) -> dict[float, float | None]:
    """The mean score of each rate, smaller rates first; None where a trial diverged."""
    found = {}
    for rate, made in by_rate(trials).items():
        known = [trial.score for trial in made if trial.score is not None]
        found[rate] = fmean(known) if len(known) == len(made) else None
    return found


def failed_rates(choice: Choice) -> int:
    """How many rates collapsed or diverged in any trial."""
    every = by_rate(choice.trials).values()
    return sum(any(one.collapsed or one.score is None for one in made) for made in every)


def near_scores(choice: Choice) -> list[float]:
    """Mean scores of the rates within a decade of the chosen one, those that diverged left out."""
    return [
        mean
        for rate, mean in _means(choice.trials).items()
        if abs(math.log10(rate / choice.rate)) <= 1 + 1e-9 and mean is not None
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
    first = _means([trial for trial in choice.trials if trial.rung == 1]).values()
    known = [score for score in first if score is not None]
    if not known:
        return []
    values = sorted([*known, *[min(known)] * (len(first) - len(known))])
    total = len(values)
    return [
        sum(v * (i**n - (i - 1) ** n) for i, v in enumerate(values, 1)) / total**n
        for n in range(1, total + 1)
    ]
