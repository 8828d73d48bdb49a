"""Calibration, risk and coverage equal independent implementations."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from peftbench.metrics import uncertainty as sure

RANDOM = np.random.default_rng(0)
SCORES = RANDOM.normal(size=(500, 3)) * 2
LABEL = np.where(RANDOM.random(500) < 0.6, SCORES.argmax(1), RANDOM.integers(0, 3, 500))
LOGS = sure.log_probabilities(SCORES)
WRONG = (LOGS.argmax(1) != LABEL).astype(float)
DOUBT = -LOGS.max(1)


@pytest.mark.parametrize("bins", [5, 15])
def test_calibration_error_is_that_of_torchmetrics(bins):
    theirs = multiclass_calibration_error(
        torch.from_numpy(np.exp(LOGS)), torch.from_numpy(LABEL), 3, n_bins=bins, norm="l1"
    )
    assert sure.calibration_error(LOGS, LABEL, bins) == pytest.approx(float(theirs), abs=1e-6)


def test_calibration_error_on_resamples_is_that_of_each():
    counts = np.random.default_rng(1).integers(0, 3, (5, 500)).astype(float)
    found = sure.calibration_errors(LOGS, LABEL, counts)
    for value, count in zip(found, counts, strict=True):
        items = np.repeat(np.arange(500), count.astype(int))
        assert value == pytest.approx(sure.calibration_error(LOGS[items], LABEL[items]))


def test_calibration_error_of_a_calibrated_model_is_small_and_of_a_boaster_large():
    confidence = RANDOM.uniform(0.5, 1, 20_000)
    label = (RANDOM.random(20_000) > confidence).astype(int)  # class 0 is as likely as it says
    logs = np.log(np.stack([confidence, 1 - confidence], 1))
    assert sure.calibration_error(logs, label) < 0.02
    assert sure.calibration_error(logs, label, equal_mass=True) < 0.02
    boast = sure.log_probabilities(logs * 20)
    gap = np.exp(boast.max(1)).mean() - (label == 0).mean()
    assert sure.calibration_error(boast, label) == pytest.approx(gap, abs=0.01)


def test_equal_mass_bins_hold_equal_counts():
    shares = [bin_["share"] for bin_ in sure.reliability(LOGS, LABEL, 10, equal_mass=True)]
    assert shares == [0.1] * 10


def test_nll_and_brier_are_those_of_scikit_learn():
    assert sure.nll(LOGS, LABEL) == pytest.approx(log_loss(LABEL, np.exp(LOGS)))
    two = sure.log_probabilities(SCORES[:, :2])
    label = (LABEL > 0).astype(int)
    theirs = brier_score_loss(label, np.exp(two[:, 1]))
    assert sure.brier(two, label) == pytest.approx(2 * theirs)  # summed over both classes


def test_temperature_is_found_again():
    true = sure.log_probabilities(SCORES)
    draws = RANDOM.random((500, 1))
    label = (np.exp(true).cumsum(1) < draws).sum(1)
    found = sure.temperature(SCORES * 3.0, label)
    assert found == pytest.approx(3.0, rel=0.15)
    tempered = sure.log_probabilities(SCORES * 3.0 / found)
    for other in (0.9, 1.1):
        assert sure.nll(tempered, label) <= sure.nll(
            sure.log_probabilities(SCORES * 3.0 / (found * other)), label
        )


def test_risk_at_full_coverage_is_the_error_and_chance_doubt_gives_it_everywhere():
    assert sure.risks(WRONG, DOUBT)[-1] == pytest.approx(WRONG.mean())
    perfect = sure.aurc(WRONG, WRONG)
    blurred = WRONG + RANDOM.normal(size=500)
    assert (
        perfect < sure.aurc(WRONG, blurred) < sure.aurc(WRONG, -blurred) < sure.aurc(WRONG, -WRONG)
    )
    error = WRONG.mean()  # the area of a perfect order, Geifman, Uziel and El-Yaniv 2019
    assert perfect == pytest.approx(error + (1 - error) * np.log(1 - error), abs=0.003)
    chance = np.mean([sure.aurc(WRONG, RANDOM.random(500)) for _ in range(200)])
    assert chance == pytest.approx(error, abs=0.01)


def test_review_by_hand():
    wrong = np.array([0.0, 1, 0, 1, 0, 0, 0, 0, 0, 0])
    doubt = np.array([0.1, 0.9, 0.2, 0.8, 0.0, 0.3, 0.7, 0.1, 0.2, 0.1])
    assert sure.review(wrong, doubt, 0.1) == {"kept": pytest.approx(8 / 9), "all": 0.9}
    assert sure.review(wrong, doubt, 0.2) == {"kept": 1.0, "all": 1.0}
    assert sure.to_check(wrong, doubt, 0.8) == 0.0
    assert sure.to_check(wrong, doubt, 0.9) == 0.1
    assert sure.to_check(wrong, doubt, 0.95) == 0.2


def test_values():
    value = RANDOM.normal(size=4000)
    label = value + RANDOM.normal(size=4000) * 0.7
    none = np.zeros(4000)
    noise = sure.noise_variance(value, label, none)
    assert noise == pytest.approx(np.mean((value - label) ** 2), rel=1e-3)
    own = np.full(4000, 0.2)
    assert sure.noise_variance(value, label, own) == pytest.approx(noise - 0.2, rel=1e-2)
    theirs = -stats.norm.logpdf(label, value, np.sqrt(noise)).mean()
    assert sure.gaussian_nll(value, label, none + noise) == pytest.approx(theirs)
    for level in (0.5, 0.95):
        assert sure.coverage(value, label, none + noise, level) == pytest.approx(level, abs=0.02)


def test_the_calibration_error_of_a_perfect_model_is_its_chance_level():
    """Against labels drawn from the probabilities, by the error itself."""
    generator = np.random.default_rng(0)
    logs = np.log(np.clip(generator.dirichlet([2, 2], 408), 1e-12, 1))
    drawn = [
        sure.calibration_error(logs, (generator.random(408) < np.exp(logs[:, 1])).astype(int))
        for _ in range(300)
    ]
    found = sure.calibration_error_by_chance(logs)
    assert found["mean"] == pytest.approx(np.mean(drawn), abs=0.002)
    assert found["low"] == pytest.approx(np.quantile(drawn, 0.025), abs=0.006)
    assert found["high"] == pytest.approx(np.quantile(drawn, 0.975), abs=0.006)
    assert found == sure.calibration_error_by_chance(logs)  # seeded


def test_equally_sure_examples_count_the_same_in_any_order():
    """One confidence throughout: the risk is the error at every coverage, whatever the file has."""
    wrong = np.arange(100) < 32
    same = np.full(100, 0.5)
    for order in (np.arange(100), np.arange(100)[::-1]):
        here = wrong[order].astype(float)
        assert sure.aurc(here, same) == pytest.approx(0.32)
        assert sure.review(here, same, 0.5)["kept"] == pytest.approx(0.68)
        assert sure.to_check(here, same, 0.84) == pytest.approx(0.5)
    logs = np.log(np.tile([0.3, 0.7], (100, 1)))
    label = np.where(wrong, 0, 1)
    errors = [
        sure.calibration_error(logs, label[order], equal_mass=True)
        for order in (np.arange(100), np.arange(100)[::-1])
    ]
    assert errors == pytest.approx([0.02, 0.02])


def test_a_perfect_fit_has_a_noise():
    value = np.linspace(0, 5, 20)
    noise = sure.noise_variance(value, value, 0 * value)
    assert 0 < noise < 1e-10
    assert np.isfinite(sure.gaussian_nll(value, value, noise + 0 * value))
