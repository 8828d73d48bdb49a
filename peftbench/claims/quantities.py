"""What may be compared of runs beside their score: figures that evaluations found.

Each is a number of one run, oriented so that more is better; some are differences within the run
and need nothing to be compared with.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from peftbench.core.run import UNTRAINED, Json

#: Values by what they are of, such as the target of a shift; "" where there is but one.
Values = dict[str, float | None]

#: By target of a shift: the metric that a claim wants in place of the one that is compared.
Metrics = Mapping[str, str]


@dataclass(frozen=True)
class Quantity:
    """A figure of an evaluation, a share or a difference of shares.

    Attributes:
        suite: the class of the suite that finds it, see `Evaluation.kind`.
        pick: from its findings; None where the run has no such thing, an undefined value is None.
        less: whether less is better, so that signs are turned.
        about: in words.
        reference: of a shift: `UNTRAINED` or "trivial", which predictions on each set the score is
            compared with, so that examples can be resampled; None of other suites.
        degenerate: whether one class throughout gives the best value there is: runs that collapsed
            decide nothing then.
        undefined: when a value is, in words.
    """

    suite: str
    pick: Callable[[Json, Metrics], Values | None]
    less: bool
    about: str
    reference: str | None = None
    degenerate: bool = False
    undefined: str = ""


def _calibration(
    pick: Callable[[Json], float | None], about: str, *, less: bool = True
) -> Quantity:
    """Of tasks with classes: the findings of values have no `before`."""
    return Quantity(
        "Calibration",
        lambda told, _: {"": pick(told)} if "before" in told else None,
        less,
        about,
        degenerate=less,
    )


def _shift(reference: str, about: str, *, less: bool = False) -> Quantity:
    return Quantity(
        "Shift",
        lambda told, metrics: _differences(told, metrics, reference),
        less,
        about,
        reference=reference,
    )


def _differences(told: Json, metrics: Metrics, reference: str) -> Values:
    """Scores on each target less what they are compared with."""
    found: Values = {}
    for name, target in told["targets"].items():
        metric = metrics.get(name, target["metric"])
        here, there = target["scores"].get(metric), target[reference]
        if reference == UNTRAINED:
            there = there.get(metric)
        elif metric != target["metric"]:
            there = None
        found[name] = None if here is None or there is None else here - there
    return found


def _demonstrations(told: Json, _: Metrics) -> Values:
    """Scores behind demonstrations less that without any, by their number.

    None where all texts get one answer behind them: a model that they break gains nothing by them,
    which is not what is asked.
    """
    constant = told.get("constant", [False] * len(told["counts"]))
    behind = zip(told["counts"][1:], told["differences"][1:], constant[1:], strict=True)
    return {f"{count} demonstrations": None if one else gain for count, gain, one in behind}


def _rounds(
    pick: Callable[[Json], float | None],
    about: str,
    *,
    less: bool = False,
    degenerate: bool = False,
) -> Quantity:
    return Quantity(
        "Continual", lambda told, _: {"": pick(told)}, less, about, degenerate=degenerate
    )


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
        lambda told, _: {"": None if None in (told["clean"], told["area"]) else _drop(told)},
        True,
        "score on clean texts less the area under the scores from there to the strongest noise",
        degenerate=True,
    ),
    "noisy_score": Quantity(
        _NOISE,
        lambda told, _: {"": told["area"]},
        False,
        "area under the scores from clean texts to the strongest noise, mean over kinds",
    ),
    "over_untrained": _shift(
        UNTRAINED, "score on another set less that of the model before training"
    ),
    "below_untrained": _shift(
        UNTRAINED, "score on another set before training less that after it", less=True
    ),
    "over_majority": _shift("trivial", "score on another set less that of its majority class"),
    "demonstration_loss": Quantity(
        "InContext",
        _demonstrations,
        True,
        "score without demonstrations less that behind some",
        undefined="all texts get one answer behind the demonstrations",
    ),
    "forgetting": _rounds(
        lambda told: told["forgetting"],
        "loss of earlier rounds since their best",
        less=True,
        degenerate=True,
    ),
    "after_rounds": _rounds(
        lambda told: (told["validation"] or told["scores"][-1])[-1], "score after the last round"
    ),
}


def _drop(told: Json) -> float:
    return float(told["clean"] - told["area"])


def value(quantity: Quantity, findings: Json, metrics: Metrics) -> Values | None:
    """Its values, turned so that more is better."""
    found = quantity.pick(findings, metrics)
    if found is None or not quantity.less:
        return found
    return {name: None if one is None else -one for name, one in found.items()}
