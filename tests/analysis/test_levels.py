"""Procedures at their nominal level, simulated small: one that leaves its band fails the build.

The bands are four standard errors of the simulation around what `scripts/simulate_paired.py` and
`scripts/simulate_advice.py` find with many repeats; the seeds are fixed.
"""

import importlib
import sys

import numpy as np
import pytest
from paths import ROOT

sys.path.append(str(ROOT / "scripts"))
paired, advice = map(importlib.import_module, ("simulate_paired", "simulate_advice"))


@pytest.mark.parametrize(
    ("seeds", "low", "high"),
    [(3, 1.0, 7.0), (5, 1.2, 7.5)],  # 0.6 and 1.2 where seeds and examples count twice
)
def test_the_level_of_the_paired_test(seeds, low, high):
    """Gaussian differences whose largest part is that of seed and example."""
    assert low < paired.gaussian((0.0, 0.2, 1.0), seeds, 400, draws=200) < high


def test_the_level_with_answers_and_coverage():
    found = paired.pair(paired.Setting(seeds=3), 150, draws=250)
    assert found["rejected"] <= 10
    assert found["covered"] >= 91
    assert found["undefined"] == 0


def test_a_promised_difference_is_found_four_times_in_five():
    setting = paired.Setting(seeds=5)
    gap = paired.pair(setting, 40, draws=250)["detectable"]
    found = paired.pair(paired.Setting(seeds=5, gap=gap), 100, draws=250)
    assert 66 <= found["rejected"] <= 94
    assert np.isnan(paired.pair(paired.Setting(seeds=2), 5, draws=50)["detectable"])


def test_bold_has_no_more_errors_than_it_says_and_finds_the_best():
    equal = paired.column(paired.Setting(seeds=3), 80, draws=250)
    assert equal["best"] <= 12
    best = paired.column(paired.Setting(seeds=5, rows=5, gap=6.0), 25, draws=250)
    assert best["best"] >= 50
    assert best["best"] >= best["best_holm"]


def test_seeds_that_fail_leave_nothing_undefined_and_make_no_favourite():
    both = paired.pair(paired.Setting("matthews", 408, 3, failing=(0.3, 0.3)), 50, draws=250)
    assert both["undefined"] == 0
    assert both["rejected"] <= 12
    setting = advice.Setting(failing=0.3, unsteady=1)
    found = advice.summary(*advice.chances(setting, 100))
    mean, _, best = found["failed"]
    assert mean <= best + 3
    assert abs(found["said"] - found["right"]) < 20
