"""Confidence intervals, significance tests, corrections and power analysis: pure functions of arrays, based on SciPy.

A score is a number of a run (one per seed) or of an example (one per text); higher is better. Randomised functions take a `seed`.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # submodules are loaded on first use, because they take half a second
from numpy.typing import ArrayLike

from research.errors import InputError

FEW_DISCORDANT = 25  # with fewer, the chi-square approximation of McNemar's test is unreliable (Edwards 1948 and later authors)
MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean in the unit of the scores, its interval, and for a difference the two-sided p value before correction.

    Without any spread in the scores, the interval is unbounded and there is no p value."""

    mean: float
    low: float
    high: float
    p: float | None = None

    @property
    def bounded(self) -> bool:
        """Return whether the interval is finite."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    def cut(self, low: float, high: float) -> "Estimate":
        """Return the estimate with a finite interval clipped to the scale from `low` to `high`, which no mean of scores can leave."""
        return dataclasses.replace(self, low=max(self.low, low), high=min(self.high, high)) if self.bounded else self


def mean_and_sd(scores: ArrayLike) -> tuple[float, float]:
    """Return the mean of scores [n] and their standard deviation, with denominator n - 1. Raises InputError if n < 2."""
    x = _sample(scores)
    return float(x.mean()), float(x.std(ddof=1))


def interval(scores: ArrayLike, level: float = 0.95) -> Estimate:
    """Return Student's t interval of the mean of scores [n], meant for means over 3 to 20 seeds (Student 1908).

    Chosen by simulation (tests/ablation/report/coverage_test). For normal scores it covers 95% at n = 3, 5, 10 and 20. BCa covers 84%, 91%
    and 92% at n = 5, 10 and 20. The studentised bootstrap covers 85% at n = 3, and 94% at n = 5 with intervals a third wider. For
    scores with a long tail (gamma of shape 4) the t interval covers 93% to 94%. Raises InputError if n < 2.
    """
    x = _sample(scores)
    return _student(float(x.mean()), float(scipy.stats.sem(x)), len(x) - 1, level)


def bootstrap_interval(scores: ArrayLike, level: float = 0.95, seed: int = 0, resamples: int = 2_000) -> Estimate:
    """Return the BCa bootstrap interval of the mean of scores [n] (Efron 1987), for n >= 50 examples with scores that are not normal.

    To compare two systems, pass the differences of their scores on each example (Berg-Kirkpatrick et al. 2012). Resampling draws the
    counts of the distinct values, which has the same distribution as drawing examples and is fast for 25,000 examples with few distinct
    values. Raises InputError if n < 50: use `interval` instead.
    """
    x = _sample(scores, 50)
    values, counts = np.unique(x, return_counts=True)
    mean, rng = float(counts @ values / len(x)), np.random.default_rng(seed)
    if len(values) == 1:
        return Estimate(mean, -np.inf, np.inf)
    redrawn = rng.multinomial(len(x), counts / len(x), resamples) @ values / len(x)
    bias = scipy.special.ndtri(((redrawn < mean).mean() + (redrawn <= mean).mean()) / 2)
    skew = counts @ (values - mean) ** 3 / (6 * (counts @ (values - mean) ** 2) ** 1.5)  # jackknife acceleration of a mean
    ends = bias + scipy.special.ndtri([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(redrawn, scipy.special.ndtr(bias + ends / (1 - skew * ends)))
    return Estimate(mean, float(low), float(high))


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Estimate:
    """Return the mean of a - b, [n] each, with interval and p from the paired t test. Raises InputError if the lengths differ or n < 2."""
    d = _differences(a, b)
    return _student(float(d.mean()), float(scipy.stats.sem(d)), len(d) - 1, level, tested=True)


def unpaired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Estimate:
    """Return the mean of a [n] minus the mean of b [m], for unequal variances (Welch 1947). Raises InputError if n < 2 or m < 2."""
    x, y = _sample(a), _sample(b)
    u, v = x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)
    return _student(float(x.mean() - y.mean()), float(np.sqrt(u + v)), _welch_freedom(u, v, len(x), len(y)), level, tested=True)


def published_difference(scores: ArrayLike, value: float, sd: float | None = None, n: int | None = None, level: float = 0.95) -> Estimate:
    """Return the mean of scores [k] minus a published mean `value` over `n` runs with standard deviation `sd`, by Welch's test.

    Without a published `sd`, the standard deviation of the scores is used for both. Without `n`, one run is assumed; the interval is then
    that of the difference between the mean of the scores and one further run. Treating the published value as exact would reject equality
    for five runs of the same distribution in a third of all cases (tests/ablation/report/coverage_test). Raises InputError if k < 2, or if
    `sd` is given without `n` of at least 2.
    """
    x = _sample(scores)
    u = x.var(ddof=1) / len(x)
    if sd is None:
        v, freedom = x.var(ddof=1) / (n or 1), len(x) - 1
    elif n is None or n < 2:
        raise InputError(f"a published standard deviation of {sd:g} needs its number of runs, at least 2")
    else:
        v = sd**2 / n
        freedom = _welch_freedom(u, v, len(x), n)
    return _student(float(x.mean() - value), float(np.sqrt(u + v)), freedom, level, tested=True)


def permutation_p(a: ArrayLike, b: ArrayLike, seed: int = 0, resamples: int = 9_999) -> float:
    """Return the two-sided p of the mean of a - b, [n] each, by permutation within pairs (Fisher 1935); exact if 2^n <= `resamples`.

    The smallest possible p is 2^(1 - n): five seeds never give p < 0.05. Raises InputError if the lengths differ or n < 2.
    """
    d = _differences(a, b)
    return float(
        scipy.stats.permutation_test(
            (d,), np.mean, permutation_type="samples", vectorized=True, n_resamples=resamples, rng=np.random.default_rng(seed)
        ).pvalue
    )


def mcnemar_p(labels: Sequence, a: Sequence, b: Sequence) -> float:
    """Return the two-sided p of McNemar's test (1947) that predictions a and b, [n] each, have equal accuracy.

    The test uses the examples that only one of the two predicts correctly: the exact binomial test if they are fewer than 25, otherwise
    chi-square without continuity correction (Fagerland et al. 2013). Raises InputError if the lengths differ.
    """
    if not len(labels) == len(a) == len(b):
        raise InputError(f"McNemar's test needs labels and predictions of the same examples, not {len(labels)}, {len(a)} and {len(b)}")
    correct_a, correct_b = (np.asarray(predictions) == np.asarray(labels) for predictions in (a, b))
    only_a, only_b = int((correct_a & ~correct_b).sum()), int((correct_b & ~correct_a).sum())
    discordant = only_a + only_b
    if discordant < FEW_DISCORDANT:
        return float(scipy.stats.binomtest(only_a, discordant).pvalue) if discordant else 1.0
    return float(scipy.stats.chi2.sf((only_a - only_b) ** 2 / discordant, 1))


def almost_stochastic_order(a: ArrayLike, b: ArrayLike, level: float = 0.95, seed: int = 0, resamples: int = 1_000) -> tuple[float, float]:
    """Return how much scores a [n] violate stochastic dominance over b [m], from 0 (not at all) to 1 (completely), and an upper bound.

    The violation ratio (del Barrio et al. 2018) is the squared distance between the quantile functions where that of a is lower, divided by
    the squared distance everywhere. The upper bound uses the bootstrap standard deviation (Dror et al. 2019, section 4). Call a dominant
    if the bound is under 0.2 (Ulmer et al. 2022): for equal distributions, that happens for 1.5% to 4% of samples of size 5 to 200, but a
    bound under 0.5 for 17% to 21%. Equal samples give 0.5. Raises InputError if n < 2 or m < 2.
    """
    x, y, rng = _sample(a), _sample(b), np.random.default_rng(seed)
    ratio = float(_violation(x[None], y[None])[0])
    redrawn = _violation(rng.choice(x, (resamples, len(x))), rng.choice(y, (resamples, len(y))))
    return ratio, float(np.clip(ratio + scipy.stats.norm.ppf(level) * redrawn.std(ddof=1), 0, 1))


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values [k] of one table, corrected to control the probability of any false rejection in the table (Holm 1979)."""
    p = np.asarray(ps, float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted.tolist()


def expected_maximum(scores: ArrayLike, trials: int) -> float:
    """Return the expected best of `trials` draws from the empirical distribution of scores [n] (Dodge et al. 2019, section 3.1).

    Computed as the sum of v (P(V <= v)^trials - P(V < v)^trials) over values v. Raises InputError unless 1 <= trials <= n: with more
    trials the expectation only approaches the best score.
    """
    x = np.sort(_sample(scores, 1))
    if not 1 <= trials <= len(x):
        raise InputError(f"the expected maximum of {trials} trials cannot be estimated from {len(x)} scores; use 1 to {len(x)}")
    return float(x @ np.diff((np.arange(len(x) + 1) / len(x)) ** trials))


def seeds_needed(difference: float, *sds: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Return the number of seeds per setting with which a two-sided test detects `difference` with `power` (Cohen 1988, chapter 2).

    With one sd, that of the differences by seed, the test is the paired t test; with two, those of the scores of the two settings, it is
    Welch's test. All values have the same unit. Raises InputError unless one or two sds are given and they and the difference are not 0,
    and if more than 10,000 seeds would be needed.
    """
    if len(sds) not in (1, 2) or not difference or not all(sd > 0 for sd in sds):
        raise InputError(f"difference {difference} with standard deviations {sds}: give a non-zero difference and one or two sds over 0")
    n = np.arange(2, MOST_SEEDS + 1)
    variances = np.array(sds)[:, None] ** 2 / n
    freedom = n - 1.0 if len(sds) == 1 else _welch_freedom(*variances, n, n)
    critical = scipy.stats.t.isf(alpha / 2, freedom)
    shift = np.minimum(abs(difference) / np.sqrt(variances.sum(0)), 100)  # the power is 1 long before 100
    enough = scipy.stats.nct.sf(critical, freedom, shift) + scipy.stats.nct.cdf(-critical, freedom, shift) >= power
    if not enough.any():
        raise InputError(f"a difference of {difference:g} would need more than {MOST_SEEDS:,} seeds")
    return int(n[enough.argmax()])


def _sample(scores: ArrayLike, least: int = 2) -> np.ndarray:
    x = np.asarray(scores, float)
    if x.ndim != 1 or len(x) < least or not np.isfinite(x).all():
        raise InputError(f"{least} or more finite scores in one dimension are needed, not {x.size} of shape {x.shape}")
    return x


def _differences(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    x, y = _sample(a), _sample(b)
    if len(x) != len(y):
        raise InputError(f"a paired test needs scores of the same length, not {len(x)} and {len(y)}")
    return x - y


def _student(mean: float, error: float, freedom: float, level: float, tested: bool = False) -> Estimate:
    if error <= 1e-12 * max(1.0, abs(mean)):  # rounding errors of equal scores are not spread
        return Estimate(mean, -np.inf, np.inf)
    half = float(scipy.special.stdtrit(freedom, (1 + level) / 2)) * error
    return Estimate(mean, mean - half, mean + half, float(2 * scipy.special.stdtr(freedom, -abs(mean) / error)) if tested else None)


def _welch_freedom(u, v, n, m):
    """Return the Welch-Satterthwaite degrees of freedom, for squared standard errors u and v of means of n and m scores."""
    return (u + v) ** 2 / np.maximum(u**2 / (n - 1) + v**2 / (m - 1), np.finfo(float).tiny)


def _violation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the violation ratios [k] of samples x [k, n] and y [k, m]; the quantile functions are steps, so the integrals are sums."""
    n, m = x.shape[-1], y.shape[-1]
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)  # integers, in units of 1 / (n m), so that equal ends compare equal
    widths = np.diff(ends, prepend=0)
    differences = np.sort(x)[:, (ends - 1) // m] - np.sort(y)[:, (ends - 1) // n]
    total, violated = differences**2 @ widths, np.minimum(differences, 0) ** 2 @ widths
    return np.divide(violated, total, out=np.full(len(total), 0.5), where=total > 0)
