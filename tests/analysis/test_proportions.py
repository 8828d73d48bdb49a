"""Exact intervals of shares."""

import pytest

from peftbench.analysis.proportions import Proportion


def test_intervals_of_clopper_and_pearson():
    none = Proportion(0, 100)
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 100))
    some = Proportion(7, 20)  # R: binom.test(7, 20)$conf.int
    assert (some.low, some.high) == (pytest.approx(0.1539, abs=1e-4), pytest.approx(0.5922, 1e-4))
    assert some.text() == "35.0 % [15.4, 59.2] (7 of 20)"


def test_nothing_is_known_of_no_rows():
    assert (Proportion(0, 0).value, Proportion(0, 0).low) == (None, None)
    assert Proportion(0, 0).text() == "– (n = 0)"
    with pytest.raises(ValueError, match="from 0 to 3, got 4"):
        Proportion(4, 3)
