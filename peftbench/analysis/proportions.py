"""Shares of things that were counted, with exact intervals."""

from dataclasses import dataclass
from functools import cached_property

from peftbench.analysis.significance import ALPHA


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
        if not self.of:
            return None, None
        from scipy.stats import binomtest

        found = binomtest(self.count, self.of).proportion_ci(1 - ALPHA, method="exact")
        return float(found.low), float(found.high)

    def text(self) -> str:
        """Percent with interval, and the count; a dash where there is nothing to count."""
        if self.value is None or self.low is None or self.high is None:
            return "– (n = 0)"
        return (
            f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}] "
            f"({self.count:,} of {self.of:,})"
        )
