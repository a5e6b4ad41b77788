"""Each statistic against SciPy, a published worked example or a closed form; and errors on invalid input."""

import numpy as np
import pytest
from scipy import stats

from research.ablation.report import statistics
from research.errors import InputError

# Student's sleep data (1908): hours gained with two drugs by the same ten people; t = -4.0621, p = 0.002833, and 0.07939 by Welch's test
# (the examples of R's t.test).
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_the_interval_of_a_mean_is_students():
    interval, (mean, sd) = statistics.interval(FIRST), statistics.mean_and_sd(FIRST)
    assert (mean, sd) == pytest.approx((0.75, 1.789010), abs=1e-6)
    assert (interval.low, interval.high) == pytest.approx(stats.ttest_1samp(FIRST, 0).confidence_interval())
    assert interval.p is None and statistics.interval(FIRST, 0.99).low < interval.low
    for wrong in ([1.0], [1.0, np.nan], [[1.0, 2.0]]):
        with pytest.raises(InputError, match="2 or more finite scores"):
            statistics.interval(wrong)


def test_the_paired_test_detects_a_difference_that_welchs_test_does_not():
    paired, unpaired = statistics.paired_difference(FIRST, SECOND), statistics.unpaired_difference(FIRST, SECOND)
    assert paired.p == pytest.approx(0.002833, abs=1e-6) and unpaired.p == pytest.approx(0.07939, abs=1e-5)
    assert (paired.low, paired.high) == pytest.approx((-2.4598858, -0.7001142))
    assert (unpaired.low, unpaired.high) == pytest.approx((-3.3654832, 0.2054832))
    assert unpaired.p == pytest.approx(stats.ttest_ind(FIRST, SECOND, equal_var=False).pvalue)
    with pytest.raises(InputError, match="same length, not 10 and 9"):
        statistics.paired_difference(FIRST, SECOND[1:])


def test_equal_differences_have_no_interval_and_no_p():
    for shift in (0.0, 0.1, 30.0):
        estimate = statistics.paired_difference([0.3, 0.6, 0.7], [0.3 - shift, 0.6 - shift, 0.7 - shift])
        assert (estimate.p, estimate.low, estimate.high) == (None, -np.inf, np.inf)
    assert statistics.unpaired_difference([1, 1], [0, 0]).p is None
    assert not statistics.interval([90.0, 90.0, 90.0]).bounded and statistics.interval([90.0, 90.1]).bounded
    assert statistics.paired_difference([1, 2, 3.01], [0, 1, 2]).p < 1e-4, "a small spread gives a small p"


def test_the_permutation_test_counts_sign_changes():
    # By hand: of the 16 signs of (1, 2, 3, 4) one has the mean 2.5, one -2.5; of (1, 2, 3, -4), |sum| >= 2 has 14.
    assert statistics.permutation_p([1, 2, 3, 4], [0, 0, 0, 0]) == pytest.approx(2 / 16)
    sums = [abs(np.dot(signs, (1, 2, 3, 4))) for signs in np.array(np.meshgrid(*[[1, -1]] * 4)).reshape(4, -1).T]
    assert statistics.permutation_p([1, 2, 3, -4], [0, 0, 0, 0]) == pytest.approx(np.mean([total >= 2 for total in sums]))
    assert statistics.permutation_p(FIRST, SECOND) == pytest.approx(2 * 2 / 1024), "one person's difference is 0"
    long = np.random.default_rng(0).normal(size=(2, 60))
    assert statistics.permutation_p(long[0] + 1, long[1]) < 0.001 < 0.2 < statistics.permutation_p(*long)
    assert statistics.permutation_p([9, 8, 9, 8, 9], [1, 1, 2, 2, 1]) == 2**-4, "five seeds are too few for 0.05"


def test_the_bootstrap_interval_is_that_of_a_proportion_and_needs_many_examples():
    correct = np.arange(200) % 4 > 0
    interval, exact = statistics.bootstrap_interval(correct), stats.binomtest(150, 200).proportion_ci(method="wilson")
    assert interval.mean == 0.75 and (interval.low, interval.high) == pytest.approx(tuple(exact), abs=0.015)
    assert statistics.bootstrap_interval(correct, seed=1) != interval == statistics.bootstrap_interval(correct)
    assert statistics.bootstrap_interval(np.ones(60)) == statistics.Estimate(1, -np.inf, np.inf)
    with pytest.raises(InputError, match="50 or more"):
        statistics.bootstrap_interval(FIRST)


def test_the_bootstrap_by_counts_equals_scipys():
    rng = np.random.default_rng(0)
    differences = rng.choice([-1.0, -1 / 3, 0.0, 0.0, 1 / 3, 1.0], 2_000)
    for x in (rng.random(200) < 0.9, rng.gamma(0.5, size=60), differences):
        interval = statistics.bootstrap_interval(x, resamples=20_000)
        bca = stats.bootstrap((np.asarray(x, float),), np.mean, n_resamples=20_000, batch=500, rng=rng).confidence_interval
        assert (interval.low, interval.high) == pytest.approx(tuple(bca), abs=0.03 * (bca.high - bca.low))
    skewed = rng.gamma(0.5, size=60) ** 2
    interval = statistics.bootstrap_interval(skewed, resamples=20_000)
    percentile = stats.bootstrap((skewed,), np.mean, n_resamples=20_000, method="percentile", rng=rng).confidence_interval
    assert interval.high - percentile.high > 0.05 * (percentile.high - percentile.low), "the correction for skewness"
    assert statistics.bootstrap_interval(np.arange(25_000) % 7 > 0).low > 0.85, "as many examples as IMDb's test split"


def predictions(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[int], list[int], list[int]]:
    a = [1] * (both + only_a) + [0] * (only_b + neither)
    b = [1] * both + [0] * only_a + [1] * only_b + [0] * neither
    return [1] * len(a), a, b


def test_mcnemars_test_is_exact_for_few_discordant_examples():
    # Agresti (2002), table 10.1, approval of the prime minister: (150 - 86)^2 / 236 = 17.36.
    assert statistics.mcnemar_p(*predictions(794, 150, 86, 570)) == pytest.approx(stats.chi2.sf(17.3559, 1), rel=1e-4)
    assert statistics.mcnemar_p(*predictions(50, 1, 9, 3)) == pytest.approx(22 / 1024)  # 2 (1 + 10) / 2^10
    assert statistics.mcnemar_p(*predictions(50, 5, 5, 3)) == statistics.mcnemar_p([1, 2], [1, 2], [1, 2]) == 1.0
    assert statistics.mcnemar_p(["x", "y", "x"], ["x", "y", "x"], ["y", "x", "y"]) == 0.25
    with pytest.raises(InputError, match="not 2, 1 and 2"):
        statistics.mcnemar_p([1, 2], [1], [1, 2])


def test_almost_stochastic_order_is_the_violation_ratio():
    order = statistics.almost_stochastic_order
    assert order([3, 4, 5], [0, 1, 2]) == (0, 0) and order([0, 1, 2], [3, 4, 5])[0] == 1
    assert order([0, 4], [1, 2])[0] == pytest.approx(1 / (1 + 4))  # the quantiles differ by -1, then by +2
    assert order([1, 2], [0, 4])[0] == pytest.approx(4 / 5), "the ratios of both directions sum to 1"
    # Unequal lengths: quantiles of (0, 3) and (1, 1, 1) differ by -1 and +2 on a half each, quantiles of (2) and (0, 3) by 2 and -1.
    assert order([0, 3], [1, 1, 1])[0] == pytest.approx(1 / 5) and order([2, 2], [0, 3, 0, 3])[0] == pytest.approx(1 / 5)
    assert order([1, 2, 3], [1, 2, 3])[0] == 0.5
    # del Barrio et al. (2018), section 2: for normal distributions the ratio depends on (mean difference) / (sd difference).
    x, y = (np.asarray(stats.norm.ppf((np.arange(4000) + 0.5) / 4000)) * sd + mean for mean, sd in ((1, 1), (0, 2)))
    z = stats.norm.expect(lambda t: np.minimum(1 - t, 0) ** 2) / stats.norm.expect(lambda t: (1 - t) ** 2)
    assert order(x, y, resamples=2)[0] == pytest.approx(z, abs=2e-3)
    rng = np.random.default_rng(0)
    ratio, bound = order(rng.normal(0.5, 1, 50), rng.normal(0, 1, 50))
    assert ratio < bound < 0.5 < order(rng.normal(0, 1, 50), rng.normal(0, 1, 50))[1]


def test_holm_corrects_step_by_step():
    # Holm (1979) by hand: 4 * 0.005, 3 * 0.01, 2 * 0.03, and the last value is at least the one before it.
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.04]) == [0.04] and statistics.holm([]) == [] and statistics.holm([0.6, 0.9]) == [1, 1]


def test_the_expected_maximum_is_that_of_the_empirical_distribution():
    scores = np.random.default_rng(0).normal(size=5)
    grids = np.array(np.meshgrid(*[scores] * 3)).reshape(3, -1)  # every draw of three, with replacement
    assert statistics.expected_maximum(scores, 3) == pytest.approx(grids.max(0).mean())
    assert statistics.expected_maximum(scores, 1) == pytest.approx(scores.mean())
    assert statistics.expected_maximum([1, 1, 2, 2], 2) == pytest.approx(1.75) and statistics.expected_maximum([7], 1) == 7
    for trials in (0, 6):
        with pytest.raises(InputError, match=f"of {trials} trials cannot be estimated from 5 scores; use 1 to 5"):
            statistics.expected_maximum(scores, trials)


def test_the_seeds_that_detect_a_difference():
    # Half a deviation, power 0.8: 34 pairs and 64 a group (Cohen 1988, table 2.4.1; G*Power 3's manual).
    assert statistics.seeds_needed(0.5, 1.0) == statistics.seeds_needed(-5.0, 10.0) == 34
    assert statistics.seeds_needed(0.5, 1.0, 1.0) == 64 and statistics.seeds_needed(0.8, 1.0, 1.0) == 26
    assert statistics.seeds_needed(1000.0, 1.0) == 2 and statistics.seeds_needed(0.5, 1.0, power=0.95) == 54
    assert {statistics.seeds_needed(1.0, sd) for sd in (1e-14, 1e-4, 0.01)} == {2}
    assert statistics.seeds_needed(1.0, 30.0) == 7_066  # (1.960 + 0.842)^2 30^2 + 1.960^2 / 2 = 7065.9
    for wrong in ((0.0, 1.0), (1.0,), (1.0, 0.0), (1.0, 1.0, 1.0, 1.0)):
        with pytest.raises(InputError, match="one or two sds"):
            statistics.seeds_needed(*wrong)
    with pytest.raises(InputError, match="more than 10,000 seeds"):
        statistics.seeds_needed(0.01, 1.0)


@pytest.mark.parametrize(("sd", "n"), [(0.8, 25), (3.9, 5), (0.0, 5)])
def test_a_published_difference_is_welchs_test_from_summaries(sd, n):
    scores = [90.1, 91.0, 89.7, 90.4]
    estimate = statistics.published_difference(scores, 89.0, sd, n)
    expected = stats.ttest_ind_from_stats(np.mean(scores), np.std(scores, ddof=1), 4, 89.0, sd, n, equal_var=False)
    assert estimate.mean == pytest.approx(1.3) and estimate.p == pytest.approx(expected.pvalue)
    u, v = np.var(scores, ddof=1) / 4, sd**2 / n
    half = stats.t.ppf(0.975, (u + v) ** 2 / (u**2 / 3 + v**2 / (n - 1))) * np.sqrt(u + v)
    assert (estimate.low, estimate.high) == pytest.approx((1.3 - half, 1.3 + half))


def test_without_a_published_standard_deviation_that_of_the_scores_is_used():
    scores = np.array([90.1, 91.0, 89.7, 90.4])
    sd = scores.std(ddof=1)
    for n, error in ((None, sd * np.sqrt(1 / 4 + 1)), (1, sd * np.sqrt(1 / 4 + 1)), (5, sd * np.sqrt(1 / 4 + 1 / 5))):
        estimate = statistics.published_difference(scores, 89.0, n=n)
        half = stats.t.ppf(0.975, 3) * error
        assert (estimate.low, estimate.high) == pytest.approx((1.3 - half, 1.3 + half))
    assert statistics.published_difference([90.0, 90.0], 89.0).p is None, "without spread there is no p"
    for sd, n in ((0.5, None), (0.5, 1)):
        with pytest.raises(InputError, match="needs its number of runs"):
            statistics.published_difference(scores, 89.0, sd, n)
    with pytest.raises(InputError, match="2 or more finite scores"):
        statistics.published_difference([90.0], 89.0)


def test_an_interval_ends_where_the_scale_ends():
    interval = statistics.interval([99.0, 100.0, 97.0])
    assert interval.high > 100 and interval.cut(0, 100) == statistics.Estimate(interval.mean, interval.low, 100)
    assert interval.cut(0, 200) == interval and statistics.interval([1.0, 1.0]).cut(0, 100) == statistics.interval([1.0, 1.0])
