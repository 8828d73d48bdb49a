"""Uncertainty: is the model as sure as it should be, and what should a person check?

One number is fitted on training examples that the run did not train on: the temperature of the
log odds (Guo et al. 2017), or for values the variance of the noise. Everything else comes from the
stored predictions of the reporting split.
"""

from dataclasses import dataclass

import numpy as np

from peftbench.core.arrays import Arrays
from peftbench.core.errors import at_least, is_number, listed
from peftbench.core.run import Json, Record, Run
from peftbench.data import loading, splitting
from peftbench.data.loading import LabelledTexts
from peftbench.metrics import uncertainty as sure
from peftbench.suites.base import Suite

#: Held-out examples with fewer of which nothing is fitted: a handful that is answered without a
#: mistake would make every answer certain.
LEAST = 50


@dataclass(frozen=True, kw_only=True)
class Calibration(Suite):
    """Calibration error, likelihood, risk and coverage, before and after one fitted number.

    Attributes:
        examples: held-out training examples to fit on, at most; at least `LEAST`.
        review: shares of the reporting split that a person checks, least sure first.
        levels: probabilities of the intervals of values.
    """

    examples: int
    review: list[float]
    levels: list[float]

    def __post_init__(self) -> None:
        at_least("suite.examples", self.examples, LEAST, whole=True)
        for name, values in (("review", self.review), ("levels", self.levels)):
            listed(f"suite.{name}", values)
            if not values or not all(is_number(value) and 0 < value < 1 for value in values):
                raise ValueError(f"suite.{name} holds numbers between 0 and 1, got {values}")

    def check_run(self, run: Run) -> None:
        """Refuse a run that writes texts."""
        self.refuse_texts(run)

    def sets(self, run: Run, root: str | None) -> dict[str, LabelledTexts]:
        """Training examples that the run did not train on; no set where it used (almost) all."""
        train = loading.load_split(run.task, run.task.splits["train"], root)
        held = splitting.split_training(run, train.label).held
        return {"held": train.take(held[: self.examples])} if len(held) >= LEAST else {}

    def findings(self, record: Record, known: Arrays, found: dict[str, Arrays]) -> Json:
        """Figures before and after; the fitted number is None where nothing was held out."""
        held = found.get("held")
        told: Json = {"held": 0 if held is None else len(held["label"])}
        if held is None:
            told["nothing_held"] = NOTHING_HELD
        elif record.run.task.classes > 1 and sure.at_bound(held["scores"], held["label"]):
            told["at_bound"] = True
        told |= {name: float(known[name].mean()) for name in _SPREADS if name in known}
        if record.run.task.classes == 1:
            return told | self._values(known, held)
        return told | self._classes(known, held)

    def _classes(self, known: Arrays, held: Arrays | None) -> Json:
        label = known["label"]
        fitted = None if held is None else sure.temperature(held["scores"], held["label"])
        before = sure.log_probabilities(known["scores"])
        after = None if fitted is None else sure.log_probabilities(known["scores"] / fitted)
        wrong = (before.argmax(axis=1) != label).astype(np.float64)
        doubts = {"confidence": -before.max(axis=1)}
        doubts |= {name: known[name] for name in _SPREADS if name in known}
        risk = sure.risks(wrong, doubts["confidence"])
        told: Json = {
            "temperature": fitted,
            "before": _figures(before, label),
            "after": None if after is None else _figures(after, label),
            "reliability": sure.reliability(before, label),
            "risk": {
                f"{part:g}": float(risk[max(1, round(part * len(label))) - 1]) for part in PARTS
            },
            "aurc": {name: sure.aurc(wrong, doubt) for name, doubt in doubts.items()},
            "review": {
                f"{share:g}": sure.review(wrong, doubts["confidence"], share)
                for share in self.review
            },
            "to_check": {
                f"{goal:g}": sure.to_check(wrong, doubts["confidence"], goal) for goal in GOALS
            },
        }
        headline = {"ece": told["before"]["ece"]}
        if after is not None:
            headline["ece, tempered"] = told["after"]["ece"]
        return told | {"headline": headline | {"aurc": told["aurc"]["confidence"]}}

    def _values(self, known: Arrays, held: Arrays | None) -> Json:
        if held is None:
            return {"noise": None, "nll": None, "coverage": None, "headline": {"nll": None}}
        label = known["label"].astype(np.float64)
        value, own = _value(known)
        noise = sure.noise_variance(
            *_value(held)[:1], held["label"].astype(np.float64), _value(held)[1]
        )
        variance = own + noise
        wrong = np.abs(value - label)
        told: Json = {
            "noise": noise,
            "nll": sure.gaussian_nll(value, label, variance),
            "coverage": {
                f"{level:g}": sure.coverage(value, label, variance, level) for level in self.levels
            },
            "rmse": float(np.sqrt(np.mean((value - label) ** 2))),
            "aurc": {"variance": sure.aurc(wrong, own)} if "variance" in known else {},
        }
        widest = f"{max(self.levels):g}"
        return told | {"headline": {f"coverage of {widest}": told["coverage"][widest]}}


#: Why nothing was fitted.
NOTHING_HELD = (
    f"the run left fewer than {LEAST} training examples to fit on; choose a smaller size, "
    "or size=full with a selection"
)

#: What a method that samples stores beside its scores.
_SPREADS = ("variance", "mutual_information")

#: Accuracies for which `to_check` says how much a person must look at.
GOALS = (0.9, 0.95, 0.99)


#: Coverages at which the risk is told.
PARTS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def _figures(logs: np.ndarray, label: np.ndarray) -> dict[str, float]:
    return {
        "ece": sure.calibration_error(logs, label),
        "ece_equal_mass": sure.calibration_error(logs, label, equal_mass=True),
        "nll": sure.nll(logs, label),
        "brier": sure.brier(logs, label),
    }


def _value(arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Values and their own variances, 0 where the method does not sample."""
    value = arrays["scores"][:, 0].astype(np.float64)
    return value, arrays["variance"].astype(np.float64) if "variance" in arrays else 0 * value
