"""How sure a model is, and whether it should be: from stored outputs, without training.

Everything takes `(examples, classes)` log odds or log probabilities, or `(examples,)` values with
variances, and gives plain numbers. Definitions: Guo et al. 2017 (arXiv 1706.04599) for calibration,
El-Yaniv and Wiener 2010 and Geifman and El-Yaniv 2017 (arXiv 1705.08500) for risk and coverage.
"""

import numpy as np
from numpy.typing import NDArray

AnyFloats = NDArray[np.floating]

#: Of the natural logarithm of a temperature.
_LOG_BOUND = 4

#: Bins of the calibration error.
BINS = 15


def log_probabilities(scores: AnyFloats) -> AnyFloats:
    """Normalise log odds; log probabilities stay what they are."""
    from scipy.special import log_softmax

    found: AnyFloats = log_softmax(scores.astype(np.float64), axis=1)
    return found


def nll(logs: AnyFloats, label: NDArray[np.int_]) -> float:
    """Mean negative log probability of the label, in nats."""
    return float(-np.mean(logs[np.arange(len(label)), label]))


def brier(logs: AnyFloats, label: NDArray[np.int_]) -> float:
    """Mean squared distance of the probabilities from the label, summed over classes (0 to 2)."""
    wanted = np.eye(logs.shape[1])[label]
    return float(np.mean(((np.exp(logs) - wanted) ** 2).sum(axis=1)))


def calibration_error(
    logs: AnyFloats, label: NDArray[np.int_], bins: int = BINS, equal_mass: bool = False
) -> float:
    """Expected calibration error of the predicted class (ECE).

    The mean over bins, weighted by their examples, of the distance between confidence and accuracy.

    Args:
        logs: log probabilities.
        label: classes.
        bins: how many, over [0, 1].
        equal_mass: bins of equal count instead of equal width.
    """
    return float(
        sum(bin_["share"] * abs(bin_["gap"]) for bin_ in reliability(logs, label, bins, equal_mass))
    )


def calibration_errors(logs: AnyFloats, label: NDArray[np.int_], counts: AnyFloats) -> AnyFloats:
    """The calibration error on each of many resamples, (resamples,); in bins of equal width.

    Args:
        logs: log probabilities, (examples, classes).
        label: classes.
        counts: (resamples, examples), how often each example is in a resample.
    """
    sure = np.exp(logs.max(axis=1).astype(np.float64))
    gap = (logs.argmax(axis=1) == label) - sure
    place = _bins(sure, BINS, False)
    member = place[:, None] == np.unique(place)
    found: AnyFloats = np.abs(counts @ (member * gap[:, None])).sum(axis=1) / counts.sum(axis=1)
    return found


def calibration_error_by_chance(
    logs: AnyFloats, draws: int = 200, bins: int = BINS, equal_mass: bool = False
) -> dict[str, float]:
    """The calibration error that such a model would have if its probabilities were right.

    A finite number of labels leaves gaps in every bin. Labels are drawn from the model's own
    probabilities, with a seed; examples stay in their bins.

    Args:
        logs: log probabilities, (examples, classes).
        draws: how often all labels are drawn.
        bins, equal_mass: as for `calibration_error`.

    Returns:
        `mean`, and `low` and `high`, between which 95 % of the draws lie.
    """
    sure = np.exp(logs.max(axis=1).astype(np.float64))
    place = _bins(sure, bins, equal_mass)
    member = (place == np.unique(place)[:, None]).astype(np.float64)
    right = np.random.default_rng(0).random((len(sure), draws)) < sure[:, None]
    errors = np.abs(member @ (right - sure[:, None])).sum(axis=0) / len(sure)
    low, high = np.quantile(errors, (0.025, 0.975))
    return {"mean": float(errors.mean()), "low": float(low), "high": float(high)}


def _bins(sure: AnyFloats, bins: int, equal_mass: bool) -> NDArray[np.int64]:
    """The bin of each example's confidence."""
    if equal_mass:
        place = np.empty(len(sure), dtype=np.int64)
        place[np.argsort(sure, kind="stable")] = np.arange(len(sure)) * bins // len(sure)
        return place
    return np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)


def _ties_averaged(values: AnyFloats, by: AnyFloats) -> AnyFloats:
    """Values of examples, each the mean over those that are equal in what orders them.

    Cumulative sums in that order are then the expected ones over orders of equals, which the order
    of the file would decide otherwise.
    """
    _, group, count = np.unique(by, return_inverse=True, return_counts=True)
    sums = np.bincount(group, weights=values.astype(np.float64))
    found: AnyFloats = (sums / count)[group]
    return found


def reliability(
    logs: AnyFloats, label: NDArray[np.int_], bins: int = BINS, equal_mass: bool = False
) -> list[dict[str, float]]:
    """Filled bins of confidence: share of examples, confidence, accuracy, the gap of the two."""
    sure = np.exp(logs.max(axis=1))
    right = (logs.argmax(axis=1) == label).astype(np.float64)
    if equal_mass:  # of equally sure examples any may fall on either side of an edge
        right = _ties_averaged(right, sure)
    place = _bins(sure, bins, equal_mass)
    found = []
    for number in np.unique(place):
        here = place == number
        confidence, accuracy = float(sure[here].mean()), float(right[here].mean())
        found.append(
            {
                "share": float(here.mean()),
                "confidence": confidence,
                "accuracy": accuracy,
                "gap": accuracy - confidence,
            }
        )
    return found


def temperature(scores: AnyFloats, label: NDArray[np.int_]) -> float:
    """The number by which to divide log odds so that the NLL of the labels is least.

    Between e^-4 and e^4: a model that knows nothing has its best temperature at the upper end, one
    that makes no mistake at the lower end.
    """
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda t: nll(log_probabilities(scores / np.exp(t)), label),
        bounds=(-_LOG_BOUND, _LOG_BOUND),
        method="bounded",
    )
    return float(np.exp(found.x))


def at_bound(scores: AnyFloats, label: NDArray[np.int_]) -> bool:
    """Whether no temperature is better than an end of the range, so that the range decides it."""
    tried = (temperature(scores, label), *np.exp([-_LOG_BOUND, _LOG_BOUND]))
    best, *ends = (nll(log_probabilities(scores / one), label) for one in tried)
    return min(ends) <= best + 1e-6


def risks(wrong: AnyFloats, doubt: AnyFloats) -> AnyFloats:
    """Mean error of the surest 1, 2, … n examples; the k-th is the risk at coverage k / n.

    Over all orders of equally sure examples, as everything here that goes by doubt.
    """
    order = np.argsort(doubt, kind="stable")
    found: AnyFloats = np.cumsum(_ties_averaged(wrong, doubt)[order]) / np.arange(1, len(wrong) + 1)
    return found


def aurc(wrong: AnyFloats, doubt: AnyFloats) -> float:
    """Area under the risk-coverage curve: the mean risk over all coverages."""
    return float(np.mean(risks(wrong, doubt)))


def review(wrong: AnyFloats, doubt: AnyFloats, share: float) -> dict[str, float]:
    """What comes of a person checking the least sure `share` of the examples, and mending them.

    Returns:
        The accuracy of what the model keeps, and of all in the end.
    """
    checked = round(share * len(wrong))
    order = np.argsort(-doubt, kind="stable")
    kept = 1 - _ties_averaged(wrong, doubt)[order][checked:]
    return {
        "kept": float(kept.mean()) if len(kept) else 1.0,
        "all": float((kept.sum() + checked) / len(wrong)),
    }


def to_check(wrong: AnyFloats, doubt: AnyFloats, accuracy: float) -> float:
    """The least share that a person must check, least sure first, for this accuracy of all."""
    order = np.argsort(-doubt, kind="stable")
    corrected = np.concatenate([[0.0], np.cumsum(_ties_averaged(wrong, doubt)[order])])
    reached = 1 - (wrong.sum() - corrected) / len(wrong)
    return float(np.flatnonzero(reached >= accuracy - 1e-12)[0] / len(wrong))


# values


def noise_variance(value: AnyFloats, label: AnyFloats, variance: AnyFloats) -> float:
    """The variance to add to each prediction's own so that the Gaussian NLL is least.

    Of a perfect fit, whose NLL has no least, a millionth of the labels' spread, squared.
    """
    from scipy.optimize import minimize_scalar

    floor = 1e-12 * max(float(np.var(label)), 1e-12)
    residual = float(np.mean((value - label) ** 2))
    if residual <= floor:
        return floor
    found = minimize_scalar(
        lambda log: gaussian_nll(value, label, variance + np.exp(log)),
        bounds=(np.log(residual) - 12, np.log(residual) + 2),
        method="bounded",
    )
    return float(np.exp(found.x))


def gaussian_nll(value: AnyFloats, label: AnyFloats, variance: AnyFloats) -> float:
    """Mean negative log density of the labels under N(value, variance), in nats."""
    return float(np.mean(0.5 * (np.log(2 * np.pi * variance) + (value - label) ** 2 / variance)))


def coverage(value: AnyFloats, label: AnyFloats, variance: AnyFloats, level: float) -> float:
    """Share of labels inside the central interval of N(value, variance) with this probability."""
    from scipy.stats import norm

    reach = norm.ppf(0.5 + level / 2) * np.sqrt(variance)
    return float(np.mean(np.abs(value - label) <= reach))
