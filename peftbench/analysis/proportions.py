"""Shares of things that were counted, with exact intervals."""

from dataclasses import dataclass
from functools import cached_property

from peftbench.analysis.significance import ALPHA


def clopper_pearson(count: float, of: float, level: float = ALPHA) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson 1934); counts need not be whole numbers.

    Args:
        count: how many have the property.
        of: how many there are, above 0.
        level: one less the probability of the interval.
    """
    from scipy.special import betaincinv  # `scipy.stats` takes longer to load than most tables

    rest = of - count
    low = float(betaincinv(count, rest + 1, level / 2)) if count > 0 else 0.0
    high = float(betaincinv(count + 1, rest, 1 - level / 2)) if rest > 1e-12 else 1.0
    return low, high


@dataclass(frozen=True)
class Proportion:
    """A count out of so many, with the interval of Clopper and Pearson 1934.

    Attributes:
        count: how many have the property.
        of: how many there are; where none are, share and interval are not known.
    """

    count: int
    of: int

    def __post_init__(self) -> None:
        if not 0 <= self.count <= self.of:
            raise ValueError(f"a share counts from 0 to {self.of}, got {self.count}")

    @property
    def value(self) -> float | None:
        """The share."""
        return self.count / self.of if self.of else None

    @property
    def low(self) -> float | None:
        """Lower end of the interval of 95 %."""
        return self._interval[0]

    @property
    def high(self) -> float | None:
        """Upper end of the interval of 95 %."""
        return self._interval[1]

    @cached_property
    def _interval(self) -> tuple[float, float] | tuple[None, None]:
        return clopper_pearson(self.count, self.of) if self.of else (None, None)

    def text(self) -> str:
        """Percent with interval, and the count; a dash where there is nothing to count."""
        if self.value is None or self.low is None or self.high is None:
            return "– (n = 0)"
        return (
            f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}] "
            f"({self.count:,} of {self.of:,})"
        )
