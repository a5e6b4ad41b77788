"""Simulations with fixed seeds: nominal 95% intervals cover 93% to 97%, and tests reject a true null hypothesis in 4% to 6% of cases."""

import numpy as np
import pytest
from scipy import stats

from research.ablation.report import statistics

TIMES = 4_000


def share(outcomes) -> float:
    return float(np.mean(list(outcomes)))


def covers(estimate: statistics.Estimate, truth: float) -> bool:
    return estimate.low <= truth <= estimate.high


@pytest.mark.parametrize("n", [3, 5, 10, 20])
def test_the_interval_over_seeds_covers(n):
    rng = np.random.default_rng(n)
    normal, skewed = rng.normal(90, 0.5, (TIMES, n)), 90 - rng.gamma(4, 0.5, (TIMES, n))  # the second has a long tail of bad seeds
    assert 0.93 < share(covers(statistics.interval(x), 90) for x in normal) < 0.97
    assert 0.92 < share(covers(statistics.interval(x), 88) for x in skewed) < 0.97
    assert share(covers(statistics.interval(x), 90.5) for x in normal) < 0.9, "the interval must not cover a wrong value as often"


def test_the_bootstrap_covers_over_examples_but_not_over_few_seeds():
    rng = np.random.default_rng(0)
    few = stats.bootstrap((rng.normal(size=(1_000, 5)),), np.mean, axis=-1, n_resamples=500, batch=50, rng=rng)
    assert share((few.confidence_interval.low <= 0) & (few.confidence_interval.high >= 0)) < 0.88
    correct = rng.random((1_500, 200)) < 0.8
    assert 0.93 < share(covers(statistics.bootstrap_interval(x, resamples=500), 0.8) for x in correct) < 0.97


@pytest.mark.parametrize("n", [3, 5, 20])
def test_the_t_tests_have_their_nominal_level(n):
    rng = np.random.default_rng(n)
    shared, a, b = rng.normal(0, 3, (TIMES, n)), rng.normal(size=(TIMES, n)), rng.normal(size=(TIMES, n))
    assert 0.04 < share(statistics.paired_difference(x, y).p < 0.05 for x, y in zip(a + shared, b + shared, strict=True)) < 0.06
    lowest = 0.025 if n == 3 else 0.04  # Welch's test is conservative with very few seeds
    assert lowest < share(statistics.unpaired_difference(x, y).p < 0.05 for x, y in zip(a, 2 * b, strict=True)) < 0.06
    assert share(statistics.paired_difference(x + 4, y).p < 0.05 for x, y in zip(a, b, strict=True)) > 0.5


@pytest.mark.parametrize(("n", "published"), [(3, 1), (5, 1), (5, 5), (25, 1)])
def test_the_difference_to_a_published_mean_of_the_same_distribution_has_the_nominal_level(n, published):
    rng = np.random.default_rng(n)
    scores, values = rng.normal(90, 0.5, (TIMES, n)), rng.normal(90, 0.5, (TIMES, published)).mean(1)
    tests = [statistics.published_difference(x, value, n=published) for x, value in zip(scores, values, strict=True)]
    assert 0.04 < share(test.p < 0.05 for test in tests) < 0.06
    assert share(covers(test, 0) for test in tests) == pytest.approx(1 - share(test.p < 0.05 for test in tests))
    exact = share(not covers(statistics.interval(x), value) for x, value in zip(scores, values, strict=True))
    assert exact > 0.12, "treating the published number as exact rejects too often"


def test_the_difference_to_a_published_mean_with_standard_deviation_has_the_nominal_level():
    rng = np.random.default_rng(1)
    scores, published = rng.normal(90, 0.5, (TIMES, 5)), rng.normal(90, 2, (TIMES, 25))
    summaries = zip(scores, published.mean(1), published.std(1, ddof=1), strict=True)
    assert 0.04 < share(statistics.published_difference(x, mean, sd, 25).p < 0.05 for x, mean, sd in summaries) < 0.06


@pytest.mark.slow
def test_the_permutation_test_has_its_nominal_level():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 2_000, 10)) ** 3  # far from normal
    assert 0.04 < share(statistics.permutation_p(x, y) < 0.05 for x, y in zip(a, b, strict=True)) < 0.06
    assert share(statistics.permutation_p(x + 2, y, resamples=300) < 0.05 for x, y in zip(a[:200], b, strict=False)) > 0.2


def test_mcnemars_test_has_its_nominal_level():
    rng = np.random.default_rng(2)

    def rejected(examples: int, rate_a: float, rate_b: float) -> float:
        labels, a, b = np.ones(examples), rng.random((TIMES, examples)) < rate_a, rng.random((TIMES, examples)) < rate_b
        return share(statistics.mcnemar_p(labels, x, y) < 0.05 for x, y in zip(a, b, strict=True))

    assert 0.04 < rejected(300, 0.7, 0.7) < 0.06 and rejected(300, 0.8, 0.6) > 0.9
    assert rejected(30, 0.8, 0.8) < 0.05, "the exact test for few examples is conservative"


def test_holms_correction_has_its_nominal_level():
    p = np.random.default_rng(3).random((TIMES, 8))
    assert 0.04 < share(min(statistics.holm(row)) < 0.05 for row in p) < 0.06
    assert share(row.min() < 0.05 for row in p) > 0.3, "without the correction a third of such tables has a false rejection"


def test_almost_stochastic_order_is_rarely_claimed_for_equal_distributions():
    rng = np.random.default_rng(4)

    def bounds(mean: float) -> np.ndarray:
        pairs = zip(rng.normal(mean, 1, (1_000, 10)), rng.normal(0, 1, (1_000, 10)), strict=True)
        return np.array([statistics.almost_stochastic_order(x, y, resamples=200)[1] for x, y in pairs])

    equal = bounds(0.0)
    assert share(equal < 0.2) < 0.05 and share(bounds(2.0) < 0.2) > 0.9
    assert share(equal < 0.5) > 0.1, "a threshold of 0.5 has too many false claims"


def test_the_computed_number_of_seeds_reaches_the_power():
    rng, n = np.random.default_rng(5), statistics.seeds_needed(1.0, 1.2)
    assert 0.78 < share(statistics.paired_difference(x, np.zeros(n)).p < 0.05 for x in rng.normal(1.0, 1.2, (TIMES, n))) < 0.86
    assert share(statistics.paired_difference(x, np.zeros(n - 3)).p < 0.05 for x in rng.normal(1.0, 1.2, (TIMES, n - 3))) < 0.78
