"""By simulation, with fixed seeds: nominal 95% intervals cover 93% to 97%, and tests of nothing reject 4% to 6% of the time."""

import numpy as np
import pytest
from scipy import stats

from research.ablation.report import statistics

TIMES = 4_000


def share(said) -> float:
    return float(np.mean(list(said)))


def covers(estimate: statistics.Estimate, truth: float) -> bool:
    return estimate.low <= truth <= estimate.high


@pytest.mark.parametrize("n", [3, 5, 10, 20])
def test_the_interval_over_seeds_covers(n):
    rng = np.random.default_rng(n)
    normal, skewed = rng.normal(90, 0.5, (TIMES, n)), 90 - rng.gamma(4, 0.5, (TIMES, n))  # the second has a long tail of bad seeds
    assert 0.93 < share(covers(statistics.interval(x), 90) for x in normal) < 0.97
    assert 0.92 < share(covers(statistics.interval(x), 88) for x in skewed) < 0.97
    assert share(covers(statistics.interval(x), 90.5) for x in normal) < 0.9, "it must not cover what is not there"


def test_the_bootstrap_does_not_cover_over_seeds_but_does_over_examples():
    rng = np.random.default_rng(0)
    few = stats.bootstrap((rng.normal(size=(1_000, 5)),), np.mean, axis=-1, n_resamples=500, batch=50, rng=rng)
    assert share((few.confidence_interval.low <= 0) & (few.confidence_interval.high >= 0)) < 0.88
    right = rng.random((1_500, 200)) < 0.8
    assert 0.93 < share(covers(statistics.bootstrap_interval(x, resamples=500), 0.8) for x in right) < 0.97


@pytest.mark.parametrize("n", [3, 5, 20])
def test_the_t_tests_of_nothing_reject_as_often_as_they_say(n):
    rng = np.random.default_rng(n)
    shared, a, b = rng.normal(0, 3, (TIMES, n)), rng.normal(size=(TIMES, n)), rng.normal(size=(TIMES, n))
    assert 0.04 < share(statistics.paired_difference(x, y).p < 0.05 for x, y in zip(a + shared, b + shared, strict=True)) < 0.06
    wide = 0.025 if n == 3 else 0.04  # Welch's test keeps below its level where seeds are very few
    assert wide < share(statistics.unpaired_difference(x, y).p < 0.05 for x, y in zip(a, 2 * b, strict=True)) < 0.06
    assert share(statistics.paired_difference(x + 4, y).p < 0.05 for x, y in zip(a, b, strict=True)) > 0.5


@pytest.mark.parametrize(("n", "published"), [(3, 1), (5, 1), (5, 5), (25, 1)])
def test_a_published_number_of_the_same_law_is_told_apart_as_seldom_as_it_says(n, published):
    rng = np.random.default_rng(n)
    scores, theirs = rng.normal(90, 0.5, (TIMES, n)), rng.normal(90, 0.5, (TIMES, published)).mean(1)
    tests = [statistics.published_difference(x, value, n=published) for x, value in zip(scores, theirs, strict=True)]
    assert 0.04 < share(test.p < 0.05 for test in tests) < 0.06
    assert share(covers(test, 0) for test in tests) == pytest.approx(1 - share(test.p < 0.05 for test in tests))
    exact = share(not covers(statistics.interval(x), value) for x, value in zip(scores, theirs, strict=True))
    assert exact > 0.12, "as if the published number had no spread"


def test_a_published_mean_with_its_deviation_is_told_apart_as_seldom_as_it_says():
    rng = np.random.default_rng(1)
    scores, theirs = rng.normal(90, 0.5, (TIMES, 5)), rng.normal(90, 2, (TIMES, 25))
    summaries = zip(scores, theirs.mean(1), theirs.std(1, ddof=1), strict=True)
    assert 0.04 < share(statistics.published_difference(x, mean, sd, 25).p < 0.05 for x, mean, sd in summaries) < 0.06


@pytest.mark.slow
def test_the_permutation_test_of_nothing_rejects_as_often_as_it_says():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 2_000, 10)) ** 3  # far from normal
    assert 0.04 < share(statistics.permutation_p(x, y) < 0.05 for x, y in zip(a, b, strict=True)) < 0.06
    assert share(statistics.permutation_p(x + 2, y, resamples=300) < 0.05 for x, y in zip(a[:200], b, strict=False)) > 0.2


def test_mcnemar_of_nothing_rejects_as_often_as_it_says():
    rng = np.random.default_rng(2)

    def rejected(examples: int, rate_a: float, rate_b: float) -> float:
        labels, a, b = np.ones(examples), rng.random((TIMES, examples)) < rate_a, rng.random((TIMES, examples)) < rate_b
        return share(statistics.mcnemar_p(labels, x, y) < 0.05 for x, y in zip(a, b, strict=True))

    assert 0.04 < rejected(300, 0.7, 0.7) < 0.06 and rejected(300, 0.8, 0.6) > 0.9
    assert rejected(30, 0.8, 0.8) < 0.05, "the exact test, of few, keeps below its level"


def test_holm_of_nothing_finds_anything_as_seldom_as_it_says():
    p = np.random.default_rng(3).random((TIMES, 8))
    assert 0.04 < share(min(statistics.holm(row)) < 0.05 for row in p) < 0.06
    assert share(row.min() < 0.05 for row in p) > 0.3, "without it a third of such tables would find something"


def test_almost_stochastic_order_seldom_finds_one_where_there_is_none():
    rng = np.random.default_rng(4)

    def bounds(mean: float) -> np.ndarray:
        pairs = zip(rng.normal(mean, 1, (1_000, 10)), rng.normal(0, 1, (1_000, 10)), strict=True)
        return np.array([statistics.almost_stochastic_order(x, y, resamples=200)[1] for x, y in pairs])

    nothing = bounds(0.0)
    assert share(nothing < 0.2) < 0.05 and share(bounds(2.0) < 0.2) > 0.9
    assert share(nothing < 0.5) > 0.1, "0.5 is too easy to stay under"


def test_the_seeds_needed_are_enough():
    rng, n = np.random.default_rng(5), statistics.seeds_needed(1.0, 1.2)
    assert 0.78 < share(statistics.paired_difference(x, np.zeros(n)).p < 0.05 for x in rng.normal(1.0, 1.2, (TIMES, n))) < 0.86
    assert share(statistics.paired_difference(x, np.zeros(n - 3)).p < 0.05 for x in rng.normal(1.0, 1.2, (TIMES, n - 3))) < 0.78
