"""Statistics against scikit-learn, scipy, published tables and closed forms."""

import itertools

import numpy as np
import pytest
from scipy import stats

from peftbench.analysis import bootstrap, significance
from peftbench.metrics import task_metrics

METRICS = [name for name, one in sorted(task_metrics.METRICS.items()) if one.column is None]


def outputs(metric: str, runs: int, examples: int, classes: int, generator: np.random.Generator):
    if "regression" in task_metrics.METRICS[metric].kinds:
        label = generator.integers(0, 6, examples) / 2  # values with ties
        value = label + generator.normal(size=(runs, examples))
        return label, np.round(value, 1)[..., None]
    label = generator.integers(0, classes, examples)
    return label, generator.normal(size=(runs, examples, classes)) + np.eye(classes)[label]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_on_many_resamples_is_that_on_each(metric, classes):
    if task_metrics.METRICS[metric].classes not in (None, classes):
        pytest.skip("of two classes only")
    generator = np.random.default_rng(0)
    label, scores = outputs(metric, 4, 60, classes, generator)
    counts = np.concatenate(list(bootstrap.draws(60, 30, generator)))
    found = bootstrap.score(metric, scores, label, counts)
    assert found.shape == (30, 4)
    for row, count in zip(found, counts, strict=True):
        items = np.repeat(np.arange(60), count.astype(int))
        each = [
            task_metrics.compute_scores([metric], one[items], label[items])[metric]
            for one in scores
        ]
        assert row == pytest.approx(each, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_a_constant_prediction_counts_and_constant_labels_are_not_a_number(metric):
    """Undefined scores are 0 on a resample whose labels vary, as scikit-learn's Matthews is."""
    generator = np.random.default_rng(0)
    label, scores = outputs(metric, 2, 4, 2, generator)
    scores[1] = scores[1, :1]
    resamples = itertools.combinations_with_replacement(range(4), 4)  # all that there are
    counts = np.array([np.bincount(items, minlength=4) for items in resamples], float)
    found = bootstrap.score(metric, scores, label, counts)
    for row, count in zip(found, counts, strict=True):
        items = np.repeat(np.arange(4), count.astype(int))
        each = [
            task_metrics.compute_scores([metric], one[items], label[items])[metric]
            for one in scores
        ]
        if np.ptp(label[items]):
            each = [0.0 if value is None else value for value in each]
        assert [None if np.isnan(v) else pytest.approx(v, abs=1e-9) for v in row] == each
    if metric in ("f1", "matthews", "pearson", "r2", "recall", "spearman"):
        assert np.isnan(found).any()


def test_resamples_come_in_pieces_and_are_the_same_ones(monkeypatch):
    whole = np.concatenate(list(bootstrap.draws(50, 20, np.random.default_rng(0))))
    monkeypatch.setattr(bootstrap, "_HELD", 150)
    pieces = list(bootstrap.draws(50, 20, np.random.default_rng(0)))
    assert [len(piece) for piece in pieces] == [3] * 6 + [2]
    assert np.array_equal(np.concatenate(pieces), whole)
    assert np.all(whole.sum(axis=1) == 50)


def resampled(differences: np.ndarray, times: int = 20_000, seed: int = 0) -> significance.Effect:
    """The effect of (seeds, examples) differences."""
    generator = np.random.default_rng(seed)
    examples = differences.shape[1]
    means = [
        counts @ differences.T / examples for counts in bootstrap.draws(examples, times, generator)
    ]
    return significance.effect(differences.mean(axis=1), np.concatenate(means))


def test_with_one_seed_the_interval_is_that_of_the_examples():
    """Of a mean of many examples: normal, with the standard error that everybody knows."""
    differences = np.random.default_rng(1).normal(0.05, 1, (1, 2000))
    found = resampled(differences)
    error = differences.std() / np.sqrt(2000)
    mean = differences.mean()
    assert (found.low, found.high) == pytest.approx(
        (mean - 1.96 * error, mean + 1.96 * error), abs=0.06 * error
    )
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(mean) / error), abs=0.01)
    assert np.isnan(found.detectable)  # nothing below three seeds


def test_with_equal_examples_the_interval_is_students():
    """Every example differs alike, so all that varies is the seed: a one-sample t test."""
    seeds = np.array([0.01, 0.03, 0.02, 0.05])
    found = resampled(np.repeat(seeds[:, None], 20, axis=1), times=200_000)
    theirs = stats.ttest_1samp(seeds, 0)
    low, high = theirs.confidence_interval()
    assert (found.low, found.high) == pytest.approx((low, high), rel=0.03, abs=3e-4)
    assert found.p == pytest.approx(theirs.pvalue, rel=0.05)
    freedom, error = 3, seeds.std(ddof=1) / 2
    reach = stats.t.ppf(0.975, freedom) + stats.t.ppf(0.8, freedom)
    assert found.detectable == pytest.approx(reach * error)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3, 1e5])
def test_students_interval_is_in_the_unit_of_its_values(unit):
    found = significance.student(unit * np.array([0.2, 0.5, 0.3]))
    reach = stats.t.ppf(0.975, 2) + stats.t.ppf(0.8, 2)
    assert found.detectable == pytest.approx(reach * unit * 0.1527525 / 3**0.5, rel=1e-3)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_interval_covers_as_often_as_it_says(seeds):
    """The truth lies inside in 95 of 100 at least, up to chance; with two seeds far more often."""
    generator = np.random.default_rng(seeds)
    inside, repeats = 0, 400
    for number in range(repeats):
        items = generator.normal(0, 0.3, 100)  # what is hard for one side is so for all its seeds
        own = generator.normal(0, 0.1, (seeds, 100))
        found = resampled(
            generator.normal(0, 0.03, (seeds, 1)) + items + own, times=400, seed=number
        )
        inside += found.low <= 0 <= found.high
    assert inside / repeats >= 0.93


def test_no_difference_has_a_p_of_one():
    found = resampled(np.zeros((3, 50)))
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


@pytest.mark.parametrize("seeds", [5, 20])
def test_what_is_detectable_is_found_four_times_in_five(seeds):
    """By the power of the t test, from the noncentral distribution."""
    between = 0.02**2 / seeds
    true = significance.detectable(0.0, between, seeds)
    shift = true / np.sqrt(between)
    critical = stats.t.ppf(0.975, seeds - 1)
    power = stats.nct.sf(critical, seeds - 1, shift) + stats.nct.cdf(-critical, seeds - 1, shift)
    assert power == pytest.approx(0.8, abs=0.03)
    assert significance.detectable(between, 0.0, seeds) < true  # of the examples nothing is guessed


def test_mcnemar_by_hand():
    ours = np.array([True] * 10 + [False] * 2 + [True] * 50 + [False] * 5)
    theirs = np.array([False] * 10 + [True] * 2 + [True] * 50 + [False] * 5)
    assert significance.mcnemar(ours, theirs) == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert significance.mcnemar(theirs, ours) == significance.mcnemar(ours, theirs)
    assert significance.mcnemar(ours, ours) == 1


def test_superiority_is_the_u_statistic():
    generator = np.random.default_rng(0)
    ours, theirs = generator.integers(0, 9, 7) / 9, generator.integers(0, 9, 5) / 9
    u = stats.mannwhitneyu(ours, theirs).statistic
    assert significance.superiority(ours, theirs) == pytest.approx(u / 35)
    assert significance.superiority(theirs, ours) == pytest.approx(1 - u / 35)


def test_holm_by_hand():
    assert significance.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert significance.holm([0.5, 0.9]) == pytest.approx([1, 1])
    assert significance.holm([]) == []


def test_ranks_are_friedmans_and_the_difference_nemenyis():
    scores = np.random.default_rng(0).normal([0, 0.5, 1, 1.5], 1, (14, 4))
    found = significance.ranks(scores)
    assert found.mean == pytest.approx(stats.rankdata(-scores, axis=1).mean(axis=0))
    # equation of Friedman without ties, and Demsar 2006, section 3.2.2: four on 14 data sets
    square = 12 * 14 / 20 * (np.sum(found.mean**2) - 4 * 25 / 4)
    assert found.p == pytest.approx(stats.chi2.sf(square, 3))
    assert found.critical == pytest.approx(1.25, abs=0.005)


@pytest.mark.parametrize(("treatments", "q"), [(3, 2.343), (5, 2.728), (7, 2.949), (10, 3.164)])
def test_critical_values_are_the_published_ones(treatments, q):
    """Demsar 2006, table 5a."""
    found = significance.ranks(np.random.default_rng(0).normal(size=(6, treatments)))
    assert found.critical / np.sqrt(treatments * (treatments + 1) / 36) == pytest.approx(
        q, abs=0.001
    )


def test_ranks_of_equals_and_of_too_few():
    found = significance.ranks(np.ones((4, 3)))
    assert (found.mean.tolist(), found.p) == ([2, 2, 2], 1)
    with pytest.raises(ValueError, match="3 treatments and 2 blocks"):
        significance.ranks(np.ones((4, 2)))
