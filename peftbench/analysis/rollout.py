"""Roll-out of a model in stages, with a rule for each to stop, go back or proceed.

In each stage people check some of the automatic answers, drawn at random. The rule is Wald's
sequential probability ratio test (1945) of the tolerated error rate against one that is too high:
by Ville's inequality (1939) both of its limits hold however often and whenever somebody looks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from peftbench.core.errors import ConfigError

#: Probability of a roll-back, in any stage, of a model with the tolerated error rate.
LEVEL = 0.05

#: Probability that a model whose error rate is too high proceeds from a stage.
MISS = 0.05

#: An error rate of so many times the tolerated one is too high.
TOO_HIGH = 2.0

#: Stages by name: the share of texts that the model answers, and the least days, whole weeks so
#: that each day of the week is in them.
STAGES = (
    ("shadow", 0.0, 7),
    ("first", 0.05, 7),
    ("fifth", 0.2, 7),
    ("half", 0.5, 7),
    ("all", 1.0, 14),
)


@dataclass(frozen=True)
class ErrorLimits:
    """Wrong answers among checked ones at which a stage ends.

    Attributes:
        tolerated: error rate that is accepted.
        too_high: error rate at which the model must go back.
        level: probability to go back with the tolerated rate or less.
        miss: probability to proceed with the rate that is too high or more.
    """

    tolerated: float
    too_high: float
    level: float
    miss: float

    @property
    def _steps(self) -> tuple[float, float]:
        """What a wrong and a right answer add to the log of the likelihood ratio."""
        wrong = math.log(self.too_high / self.tolerated)
        return wrong, math.log((1 - self.too_high) / (1 - self.tolerated))

    def decide(self, wrong: int, checked: int) -> str:
        """`roll back`, `proceed` or `continue` after so many checked answers."""
        if wrong >= self.roll_back_from(checked):
            return "roll back"
        most = self.proceed_up_to(checked)
        return "proceed" if most is not None and wrong <= most else "continue"

    def roll_back_from(self, checked: int) -> int:
        """Wrong answers among so many checked ones from which on the model goes back."""
        up, down = self._steps
        return math.ceil((-math.log(self.level) - checked * down) / (up - down) - 1e-9)

    def proceed_up_to(self, checked: int) -> int | None:
        """Wrong answers among so many checked ones up to which it may proceed; None is not yet."""
        up, down = self._steps
        most = math.floor((math.log(self.miss) - checked * down) / (up - down) + 1e-9)
        return most if most >= 0 else None

    @property
    def least(self) -> int:
        """Checked answers, none of them wrong, after which it may proceed."""
        return math.ceil(math.log(self.miss) / self._steps[1])

    @property
    def expected(self) -> int:
        """Checked answers that it takes to proceed with the tolerated rate, on average.

        Wald's approximation; better models take fewer, `least` if none is wrong.
        """
        up, down = self._steps
        drift = self.tolerated * up + (1 - self.tolerated) * down
        ends = self.level * -math.log(self.level) + (1 - self.level) * math.log(self.miss)
        return math.ceil(ends / drift)


@dataclass(frozen=True)
class Stage:
    """A stage of a roll-out.

    Attributes:
        name: of `STAGES`.
        share: of the texts that the model answers; 0 is in the shadow of people, who answer all.
        least_days: that it lasts at least.
        days: until as many answers are there as are probably checked, or the least; None where the
            texts a day are not known.
    """

    name: str
    share: float
    least_days: int
    days: int | None


@dataclass(frozen=True)
class RollOut:
    """A roll-out plan.

    Attributes:
        stages: one after the other.
        limits: of each stage.
    """

    stages: tuple[Stage, ...]
    limits: ErrorLimits

    @property
    def days(self) -> int | None:
        """Days of all stages together."""
        found = [stage.days for stage in self.stages if stage.days is not None]
        return sum(found) if len(found) == len(self.stages) else None

    def looks(self) -> list[tuple[int, int | None, int]]:
        """Checked answers; wrong ones up to which a stage may proceed, and goes back from."""
        limits, most = self.limits, self.limits.expected
        at = sorted({limits.least, *(math.ceil(most * part / 4) for part in (1, 2, 3, 4, 6, 8))})
        return [
            (n, limits.proceed_up_to(n), limits.roll_back_from(n)) for n in at if n >= limits.least
        ]


def plan_rollout(
    error: float,
    texts_per_day: float | None = None,
    answered: float = 1.0,
    stages: Sequence[tuple[str, float, int]] = STAGES,
    too_high: float | None = None,
    level: float = LEVEL,
    miss: float = MISS,
) -> RollOut:
    """Plan the stages of a roll-out.

    Args:
        error: tolerated error rate among the texts that are answered automatically, in (0, 1).
        texts_per_day: that come in; None is not known.
        answered: share of them whose confidence reaches the cut-off, in (0, 1].
        stages: name, share of texts and least days of each, shares rising.
        too_high: error rate at which the model must go back; by default `TOO_HIGH` times the
            tolerated one.
        level: probability of a roll-back in any stage with the tolerated rate.
        miss: probability that a model with the rate that is too high proceeds from a stage.

    Raises:
        ConfigError: if a number is out of its range.
    """
    high = min(TOO_HIGH * error, (1 + error) / 2) if too_high is None else too_high
    for name, value in (("error", error), ("level", level), ("miss", miss)):
        if not 0 < value < 1:
            raise ConfigError(f"roll-out: {name} is between 0 and 1, got {value!r}")
    if not error < high < 1:
        raise ConfigError(f"roll-out: too_high is between error={error:g} and 1, got {high!r}")
    if not 0 < answered <= 1:
        raise ConfigError(f"roll-out: answered is above 0 and at most 1, got {answered!r}")
    if texts_per_day is not None and texts_per_day <= 0:
        raise ConfigError(f"roll-out: texts_per_day is above 0, got {texts_per_day!r}")
    shares = [share for _, share, _ in stages]
    if not stages or shares != sorted(set(shares)) or shares[0] < 0 or shares[-1] > 1:
        raise ConfigError(f"roll-out: shares of stages rise from 0 to 1 at most, got {shares}")
    limits = ErrorLimits(error, high, level / len(stages), miss)
    made = []
    for name, share, least in stages:
        days = None
        if texts_per_day is not None:  # in the shadow every text that would be answered counts
            rate = texts_per_day * answered * (share or 1.0)
            days = max(least, math.ceil(limits.expected / rate))
        made.append(Stage(name, share, least, days))
    return RollOut(tuple(made), limits)
