"""What may be compared of runs beside their score: figures that evaluations found.

Each is a number of one run, oriented so that more is better; some are differences within the run
and need nothing to be held against.
"""

from collections.abc import Callable
from dataclasses import dataclass

from peftbench.core.run import Json

#: Values by what they are of, such as the target of a shift; "" where there is but one.
Values = dict[str, float | None]


@dataclass(frozen=True)
class Quantity:
    """A figure of an evaluation, a share or a difference of shares.

    Attributes:
        suite: the class of the suite that finds it, see `Evaluation.kind`.
        pick: from its findings; None where the run has no such thing, an undefined value is None.
        less: whether less is better, so that signs are turned.
        about: in words.
    """

    suite: str
    pick: Callable[[Json], Values | None]
    less: bool
    about: str


def _calibration(
    pick: Callable[[Json], float | None], about: str, *, less: bool = True
) -> Quantity:
    """Of tasks with classes: the findings of values have no `before`."""
    return Quantity(
        "Calibration",
        lambda told: {"": pick(told)} if "before" in told else None,
        less,
        about,
    )


def _shift(reference: Callable[[Json], float | None], about: str) -> Quantity:
    return Quantity("Shift", lambda told: _differences(told, reference), False, about)


def _differences(told: Json, reference: Callable[[Json], float | None]) -> Values:
    """Scores on each target less what they are compared with."""
    found: Values = {}
    for name, target in told["targets"].items():
        here, there = target["scores"][target["metric"]], reference(target)
        found[name] = None if here is None or there is None else here - there
    return found


def _rounds(pick: Callable[[Json], float | None], about: str, *, less: bool = False) -> Quantity:
    return Quantity("Continual", lambda told: {"": pick(told)}, less, about)


_NOISE = "Noise"

#: By the word that a claim says for it.
QUANTITIES: dict[str, Quantity] = {
    "ece": _calibration(lambda told: told["before"]["ece"], "expected calibration error"),
    "selective_gain": _calibration(
        lambda told: told["risk"]["1"] - told["aurc"].get("variance", told["aurc"]["confidence"]),
        "mean error saved by leaving out what the method is least sure of",
        less=False,
    ),
    "noise_drop": Quantity(
        _NOISE,
        lambda told: {"": None if None in (told["clean"], told["area"]) else _drop(told)},
        True,
        "score on clean texts less that under noise, mean over kinds and intensities",
    ),
    "noisy_score": Quantity(
        _NOISE,
        lambda told: {"": told["area"]},
        False,
        "score under noise, mean over kinds and intensities",
    ),
    "over_untrained": _shift(
        lambda target: target["untrained"][target["metric"]],
        "score on another set less that of the model before training",
    ),
    "below_untrained": Quantity(
        "Shift",
        lambda told: _differences(told, lambda target: target["untrained"][target["metric"]]),
        True,
        "score on another set before training less that after it",
    ),
    "over_majority": _shift(
        lambda target: target["trivial"],
        "score on another set less that of its majority class",
    ),
    "forgetting": _rounds(
        lambda told: told["forgetting"], "loss of earlier rounds since their best", less=True
    ),
    "after_rounds": _rounds(
        lambda told: (told["validation"] or told["scores"][-1])[-1], "score after the last round"
    ),
}


def _drop(told: Json) -> float:
    return float(told["clean"] - told["area"])


def value(quantity: Quantity, findings: Json) -> Values | None:
    """Its values, turned so that more is better."""
    found = quantity.pick(findings)
    if found is None or not quantity.less:
        return found
    return {name: None if one is None else -one for name, one in found.items()}
