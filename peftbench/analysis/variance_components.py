"""Variance components of scores by the roles of a seed, from a crossed set of seeds.

The model is a random main effect of each role: a score is a mean, an effect of each role's level,
and a rest, which holds the interactions. Sets in which every two roles meet in every pair of levels
equally often (crossed, or an orthogonal array of strength 2) are balanced; others are allowed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peftbench.analysis.significance import ALPHA
from peftbench.core.arrays import Floats

#: How the rest is called.
REST = "rest"


@dataclass(frozen=True)
class Component:
    """The variance that one role brings.

    Attributes:
        name: of the role, of roles that always move together, or `REST`.
        levels: of the role; 0 for the rest.
        freedom: degrees of freedom.
        variance: unbiased, so that it may be below 0; None where the role is not told apart from
            others.
        low, high: the interval of 1 - ALPHA; its ends are 0 at the least.
        p: of the F test that the role brings nothing; None for the rest.
    """

    name: str
    levels: int
    freedom: int
    variance: float | None
    low: float | None
    high: float | None
    p: float | None


class FactorDesign:
    """Levels of roles in a set of runs.

    Args:
        levels: by role, those of the runs. Roles of one level are left out, roles whose levels
            always change together are one.
    """

    def __init__(self, levels: Mapping[str, Sequence[int]]):
        parts: dict[tuple[int, ...], list[str]] = {}
        for role, found in levels.items():
            seen = {level: number for number, level in enumerate(dict.fromkeys(found))}
            if len(seen) > 1:
                parts.setdefault(tuple(seen[level] for level in found), []).append(role)
        self.runs = len(next(iter(levels.values())))
        self._of = {" and ".join(roles): np.eye(max(p) + 1)[list(p)] for p, roles in parts.items()}
        self._whole, rank = _projection([*self._of.values()], self.runs)
        #: Degrees of freedom of the rest; without any nothing can be estimated.
        self.left = self.runs - rank
        self._without = {
            name: _projection([z for other, z in self._of.items() if other != name], self.runs)
            for name in self._of
        }
        self._freedom = {name: rank - less for name, (_, less) in self._without.items()}

    def estimate(self, scores: Floats) -> list[Component]:
        """The variance of each role and of the rest.

        Henderson's method 3 (1953): the mean square of a role, adjusted for all others, less that
        of the rest, over its expected multiple of the variance. In a balanced set this is the
        analysis of variance. Intervals are those of Ting, Burdick, Graybill, Jeyaratnam and Lu
        (1990), for the rest by chi-square; both take effects to be normal.

        Args:
            scores: (runs,).

        Raises:
            ValueError: if no degree of freedom is left for the rest.
        """
        from scipy.stats import chi2, f

        if self.left < 1:
            raise ValueError("no run is left to tell roles from the rest")
        rest = float(np.sum((scores - self._whole @ scores) ** 2)) / self.left
        found = []
        for name, z in self._of.items():
            freedom, without = self._freedom[name], self._without[name][0]
            if not freedom:
                found.append(Component(name, z.shape[1], 0, None, None, None, None))
                continue
            own = self._whole - without
            square = float(scores @ own @ scores) / freedom
            multiple = float(np.trace(z.T @ own @ z)) / freedom
            low, high = _difference(square, rest, freedom, self.left)
            found.append(
                Component(
                    name=name,
                    levels=z.shape[1],
                    freedom=freedom,
                    variance=(square - rest) / multiple,
                    low=max(0.0, low / multiple),
                    high=max(0.0, high / multiple),
                    p=float(f.sf(square / rest, freedom, self.left)) if rest else None,
                )
            )
        low, high = (
            float(self.left * rest / chi2.ppf(q, self.left)) for q in (1 - ALPHA / 2, ALPHA / 2)
        )
        return [*found, Component(REST, 0, self.left, rest, low, high, None)]


def _projection(parts: list[NDArray[np.float64]], runs: int) -> tuple[NDArray[np.float64], int]:
    """The projection on a mean and the columns of these parts, and its rank."""
    columns = np.hstack([np.ones((runs, 1)), *parts])
    basis, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    kept = basis[:, sizes > sizes.max() * max(columns.shape) * np.finfo(float).eps]
    return kept @ kept.T, kept.shape[1]


def _difference(first: float, second: float, one: int, two: int) -> tuple[float, float]:
    """The interval of the difference of two expected mean squares (Ting et al. 1990).

    Burdick and Graybill, Confidence Intervals on Variance Components (1992), section 3.3.

    Args:
        first, second: mean squares.
        one, two: their degrees of freedom.
    """
    from scipy.stats import chi2, f

    half = ALPHA / 2
    upper = [chi2.ppf(1 - half, freedom) / freedom for freedom in (one, two)]
    lower = [chi2.ppf(half, freedom) / freedom for freedom in (one, two)]
    g = [1 - 1 / quantile for quantile in upper]
    h = [1 / quantile - 1 for quantile in lower]
    above, below = (f.ppf(q, one, two) for q in (1 - half, half))
    cross_low = ((above - 1) ** 2 - (g[0] * above) ** 2 - h[1] ** 2) / above
    cross_high = ((1 - below) ** 2 - (h[0] * below) ** 2 - g[1] ** 2) / below
    to_low = (g[0] * first) ** 2 + (h[1] * second) ** 2 + cross_low * first * second
    to_high = (h[0] * first) ** 2 + (g[1] * second) ** 2 + cross_high * first * second
    gap = first - second
    return gap - float(np.sqrt(max(0.0, to_low))), gap + float(np.sqrt(max(0.0, to_high)))
