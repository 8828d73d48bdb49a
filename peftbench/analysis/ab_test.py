"""An A/B test of two models, planned beforehand and valid at every look.

Texts go to either model at random, half to each; the share of right answers is compared. A test
that is looked at again and again finds differences that are not there, so the interval here is a
confidence sequence: it holds at all looks together. It is the normal mixture of Robbins 1970, as
the mixture sequential probability ratio test of Johari, Pekelis and Walsh (arXiv 1512.04922), with
the variance from the data (asymptotic, Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2021, arXiv
2103.06476); `tests/analysis/test_ab_test.py` simulates its error.
"""

import math
from dataclasses import dataclass

from peftbench.analysis.proportions import Proportion
from peftbench.analysis.significance import ALPHA, POWER
from peftbench.core.errors import ConfigError

#: Texts of each arm before the first look: of fewer the variance is not known.
FIRST_LOOK = 100

#: What a look may come to.
CONTINUE, BETTER, WORSE, NO_DIFFERENCE = "continue", "better", "worse", "no difference found"


@dataclass(frozen=True)
class ABTest:
    """A planned comparison of the shares of right answers of two models.

    Attributes:
        baseline: expected share of the old model.
        effect: difference that is to be found.
        level: probability of an answer other than `NO_DIFFERENCE` where both are alike.
        power: probability to find the effect by the end.
        single_look: texts for each arm if one looked at the end alone.
        most: texts for each arm at which the test ends.
        texts_per_day: that come in for both arms; None is not known.
    """

    baseline: float
    effect: float
    level: float
    power: float
    single_look: int
    most: int
    texts_per_day: float | None

    @property
    def days(self) -> int | None:
        """Days until the end at the latest."""
        return None if self.texts_per_day is None else math.ceil(2 * self.most / self.texts_per_day)

    def reach(self, texts: int) -> float:
        """Half the interval after so many texts of each arm, as planned.

        A difference as large ends the test.
        """
        variance = _variance(self.baseline) + _variance(self.baseline + self.effect)
        return _reach(texts, variance, self.single_look, self.level)

    def looks(self) -> list[tuple[int, float]]:
        """Texts of each arm at some looks, and the differences that would end the test there."""
        at = sorted({FIRST_LOOK, *(math.ceil(self.most * part / 8) for part in (1, 2, 4, 6, 8))})
        return [(texts, self.reach(texts)) for texts in at if FIRST_LOOK <= texts <= self.most]

    def interval(self, new: Proportion, old: Proportion) -> tuple[float, float]:
        """The confidence sequence for the difference of the shares, new less old.

        Args:
            new, old: right answers of each arm so far; one text at least in each.

        Raises:
            ValueError: if an arm has no texts.
        """
        if new.value is None or old.value is None:
            raise ValueError("both arms need texts")
        texts = 2 / (1 / new.of + 1 / old.of)
        # a right and a wrong answer more: a share of 0 or 1 so far is not one for ever
        parts = [_variance((arm.count + 1) / (arm.of + 2)) / arm.of for arm in (new, old)]
        reach = _reach(texts, texts * sum(parts), self.single_look, self.level)
        value = new.value - old.value
        return max(-1.0, value - reach), min(1.0, value + reach)

    def decide(self, new: Proportion, old: Proportion) -> str:
        """What the texts so far allow: `BETTER` or `WORSE` end the test, as does its last text."""
        seen = min(new.of, old.of)
        if seen < FIRST_LOOK:
            return CONTINUE
        low, high = self.interval(new, old)
        if low > 0:
            return BETTER
        if high < 0:
            return WORSE
        return NO_DIFFERENCE if seen >= self.most else CONTINUE


def plan_ab_test(
    baseline: float,
    effect: float,
    level: float = ALPHA,
    power: float = POWER,
    texts_per_day: float | None = None,
) -> ABTest:
    """Plan an A/B test that finds a difference of so much with this power.

    Args:
        baseline: expected share of right answers of the old model, in (0, 1).
        effect: difference of the shares to find, above 0.
        level, power: see `ABTest`.
        texts_per_day: that come in for both arms; None is not known.

    Raises:
        ConfigError: if a rate is out of its range, or baseline and effect exceed 1 together.
    """
    from scipy.special import ndtri

    for name, value in (("baseline", baseline), ("level", level), ("power", power)):
        if not 0 < value < 1:
            raise ConfigError(f"A/B test: {name} is between 0 and 1, got {value!r}")
    if effect <= 0 or baseline + effect > 1:
        raise ConfigError(
            f"A/B test: effect is above 0 and at most {1 - baseline:g} with a baseline of "
            f"{baseline:g}, got {effect!r}"
        )
    if texts_per_day is not None and texts_per_day <= 0:
        raise ConfigError(f"A/B test: texts_per_day is above 0, got {texts_per_day!r}")
    variance = _variance(baseline) + _variance(baseline + effect)
    pooled = 2 * _variance(baseline + effect / 2)  # of both arms where there is no difference
    z, z_power = float(ndtri(1 - level / 2)), float(ndtri(power))
    single = math.ceil(((z * math.sqrt(pooled) + z_power * math.sqrt(variance)) / effect) ** 2)

    def found(texts: int) -> bool:
        spread = z_power * math.sqrt(variance / texts)
        return effect - spread >= _reach(texts, variance, single, level)

    few, most = max(FIRST_LOOK, single) - 1, max(FIRST_LOOK, single)
    while not found(most):
        few, most = most, 2 * most
    while most - few > 1:
        middle = (few + most) // 2
        few, most = (few, middle) if found(middle) else (middle, most)
    return ABTest(baseline, effect, level, power, single, most, texts_per_day)


def _variance(share: float) -> float:
    return share * (1 - share)


def _reach(texts: float, variance: float, tuned_for: int, level: float) -> float:
    """Half the width of the normal mixture's confidence sequence.

    Args:
        texts: of each arm.
        variance: of the difference of two answers, one of each arm.
        tuned_for: texts at which it is narrowest, nearly.
        level: one less the probability that it holds at all times.
    """
    mixing = (-2 * math.log(level) + math.log(1 - 2 * math.log(level))) / tuned_for
    wide = 1 + texts * mixing
    return math.sqrt(variance * 2 * wide / (texts**2 * mixing) * math.log(math.sqrt(wide) / level))
