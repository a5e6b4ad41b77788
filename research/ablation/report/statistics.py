"""How sure a difference is: intervals, tests, corrections and power. Pure functions of arrays, with SciPy under them.

A score here is a number of a run (one a seed) or of an example (one a text); higher is better. What depends on chance takes a `seed`.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its parts are loaded where they are first used: they take half a second
from numpy.typing import ArrayLike

from research.errors import InputError

FEW_DISCORDANT = 25  # below it the chi-square approximation of McNemar's test is not to be trusted (Edwards 1948 and after)
MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean in the scores' unit, its interval, and, of a difference, the two-sided p value before any correction.

    Where there is no spread at all, nothing is known of chance: the interval is unbounded and there is no p."""

    mean: float
    low: float
    high: float
    p: float | None = None

    @property
    def bounded(self) -> bool:
        """Whether there is an interval."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    def cut(self, low: float, high: float) -> "Estimate":
        """Return it with an interval that ends where the scale ends: no mean of scores lies beyond."""
        return dataclasses.replace(self, low=max(self.low, low), high=min(self.high, high)) if self.bounded else self


def mean_and_sd(scores: ArrayLike) -> tuple[float, float]:
    """Mean of scores [n] and their standard deviation, with n - 1 below. Raises InputError where n < 2."""
    x = _sample(scores)
    return float(x.mean()), float(x.std(ddof=1))


def interval(scores: ArrayLike, level: float = 0.95) -> Estimate:
    """Student's t interval of the mean of scores [n], the one for means over 3 to 20 seeds (Student 1908).

    Chosen by simulation (tests/ablation/report/coverage_test): of normal scores it covers 95% at n = 3, 5, 10 and 20, where BCa covers 84%,
    91% and 92% from n = 5 on, and the studentised bootstrap 85% at 3, 94% at 5 with intervals a third wider. Of scores with a long tail
    (gamma of shape 4) it covers 93% to 94%. Raises InputError where n < 2.
    """
    x = _sample(scores)
    return _student(float(x.mean()), float(scipy.stats.sem(x)), len(x) - 1, level)


def bootstrap_interval(scores: ArrayLike, level: float = 0.95, seed: int = 0, resamples: int = 2_000) -> Estimate:
    """BCa interval of the mean of scores [n] (Efron 1987): for examples, of whose scores no normal law may be assumed, n >= 50.

    For the difference of two systems give the differences of their scores, example by example (Berg-Kirkpatrick et al. 2012). Examples
    are redrawn by how often each value comes, which is the same law and, as they take few values, as quick for 25,000 of them. Raises
    InputError where n < 50: use `interval` there.
    """
    x = _sample(scores, 50)
    values, counts = np.unique(x, return_counts=True)
    mean, rng = float(counts @ values / len(x)), np.random.default_rng(seed)
    if len(values) == 1:
        return Estimate(mean, -np.inf, np.inf)
    redrawn = rng.multinomial(len(x), counts / len(x), resamples) @ values / len(x)
    bias = scipy.special.ndtri(((redrawn < mean).mean() + (redrawn <= mean).mean()) / 2)
    skew = counts @ (values - mean) ** 3 / (6 * (counts @ (values - mean) ** 2) ** 1.5)  # what the jackknife gives for a mean
    ends = bias + scipy.special.ndtri([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(redrawn, scipy.special.ndtr(bias + ends / (1 - skew * ends)))
    return Estimate(mean, float(low), float(high))


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean of a - b, [n] each, pair by pair, by the paired t test.

    Raises InputError where the lengths differ or n < 2.
    """
    d = _differences(a, b)
    return _student(float(d.mean()), float(scipy.stats.sem(d)), len(d) - 1, level, tested=True)


def unpaired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean of a [n] less that of b [m], of unequal variances (Welch 1947). Raises InputError below two."""
    x, y = _sample(a), _sample(b)
    u, v = x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)
    return _student(float(x.mean() - y.mean()), float(np.sqrt(u + v)), _welch_freedom(u, v, len(x), len(y)), level, tested=True)


def published_difference(scores: ArrayLike, value: float, sd: float | None = None, n: int | None = None, level: float = 0.95) -> Estimate:
    """Mean of scores [k] less a published mean `value` over `n` runs with deviation `sd`, by Welch's test from summaries.

    Where no deviation is published, it is taken to be that of the scores; where no number of runs, to be one: then the interval is that
    of a further run's distance from the mean of these. A value taken as exact instead would differ from five runs of its own law in a
    third of all cases (tests/ablation/report/coverage_test). Raises InputError below two scores, and where `sd` is given without an `n` of
    at least two.
    """
    x = _sample(scores)
    u = x.var(ddof=1) / len(x)
    if sd is None:
        v, freedom = x.var(ddof=1) / (n or 1), len(x) - 1
    elif n is None or n < 2:
        raise InputError(f"a published deviation of {sd:g} needs the number of runs that it is of, at least 2")
    else:
        v = sd**2 / n
        freedom = _welch_freedom(u, v, len(x), n)
    return _student(float(x.mean() - value), float(np.sqrt(u + v)), freedom, level, tested=True)


def permutation_p(a: ArrayLike, b: ArrayLike, seed: int = 0, resamples: int = 9_999) -> float:
    """Two-sided p of the mean of a - b, [n] each, under exchange within pairs (Fisher 1935): exact where 2^n <= `resamples`.

    It cannot be under 2^(1 - n): five seeds never give p < 0.05. Raises InputError where the lengths differ or n < 2.
    """
    d = _differences(a, b)
    return float(
        scipy.stats.permutation_test(
            (d,), np.mean, permutation_type="samples", vectorized=True, n_resamples=resamples, rng=np.random.default_rng(seed)
        ).pvalue
    )


def mcnemar_p(labels: Sequence, a: Sequence, b: Sequence) -> float:
    """Two-sided p that predictions a and b, [n] each, are right equally often, from the examples where one alone is right.

    McNemar 1947: the exact binomial for fewer than 25 such examples, else chi-square without correction for continuity (Fagerland et
    al. 2013). Raises InputError where the lengths differ.
    """
    if not len(labels) == len(a) == len(b):
        raise InputError(f"McNemar's test is over the same examples, not over {len(labels)}, {len(a)} and {len(b)}")
    right_a, right_b = (np.asarray(one) == np.asarray(labels) for one in (a, b))
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    discordant = only_a + only_b
    if discordant < FEW_DISCORDANT:
        return float(scipy.stats.binomtest(only_a, discordant).pvalue) if discordant else 1.0
    return float(scipy.stats.chi2.sf((only_a - only_b) ** 2 / discordant, 1))


def almost_stochastic_order(a: ArrayLike, b: ArrayLike, level: float = 0.95, seed: int = 0, resamples: int = 1_000) -> tuple[float, float]:
    """How far scores a [n] are from being stochastically larger than b [m], and an upper bound of it: 0 not at all, 1 wholly.

    The violation ratio of del Barrio et al. 2018 (squared distance of the quantile functions where a's is the lower, by that
    everywhere), and its bound by the bootstrap's deviation (Dror et al. 2019, section 4). Call a dominant where the bound is under 0.2
    (Ulmer et al. 2022): of equal laws that is said of 1.5% to 4% of samples of 5 to 200, but "under 0.5" of 17% to 21%. Equal samples
    give 0.5. Raises InputError below two scores.
    """
    x, y, rng = _sample(a), _sample(b), np.random.default_rng(seed)
    ratio = float(_violation(x[None], y[None])[0])
    redrawn = _violation(rng.choice(x, (resamples, len(x))), rng.choice(y, (resamples, len(y))))
    return ratio, float(np.clip(ratio + scipy.stats.norm.ppf(level) * redrawn.std(ddof=1), 0, 1))


def holm(ps: Sequence[float]) -> list[float]:
    """p values [k] of one table, corrected so that any false rejection in it has the level's probability (Holm 1979)."""
    p = np.asarray(ps, float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted.tolist()


def expected_maximum(scores: ArrayLike, trials: int) -> float:
    """Mean of the best of `trials` scores drawn from the empirical distribution of scores [n] (Dodge et al. 2019, section 3.1).

    Sum of v (P(V <= v)^trials - P(V < v)^trials). Raises InputError unless 1 <= trials <= n: beyond, it only repeats the best seen.
    """
    x = np.sort(_sample(scores, 1))
    if not 1 <= trials <= len(x):
        raise InputError(f"the expected maximum of {trials} trials cannot be told from {len(x)} scores; use 1 to {len(x)}")
    return float(x @ np.diff((np.arange(len(x) + 1) / len(x)) ** trials))


def seeds_needed(difference: float, *sds: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Seeds (of each setting) with which a two-sided test finds `difference` with probability `power` (Cohen 1988, chapter 2).

    One sd, of the differences by seed: the paired t test; two, of the settings' own scores: Welch's. All in one unit. Raises InputError
    where no sd, or more than two, or no difference is given, or where 10,000 seeds would not do.
    """
    if len(sds) not in (1, 2) or not difference or not all(sd > 0 for sd in sds):
        raise InputError(f"a difference of {difference} with deviations {sds}: give a difference and one or two sds over 0")
    n = np.arange(2, MOST_SEEDS + 1)
    variances = np.array(sds)[:, None] ** 2 / n
    freedom = n - 1.0 if len(sds) == 1 else _welch_freedom(*variances, n, n)
    critical = scipy.stats.t.isf(alpha / 2, freedom)
    shift = np.minimum(abs(difference) / np.sqrt(variances.sum(0)), 100)  # 100 is sure enough
    enough = scipy.stats.nct.sf(critical, freedom, shift) + scipy.stats.nct.cdf(-critical, freedom, shift) >= power
    if not enough.any():
        raise InputError(f"a difference of {difference:g} would need more than {MOST_SEEDS:,} seeds")
    return int(n[enough.argmax()])


def _sample(scores: ArrayLike, least: int = 2) -> np.ndarray:
    x = np.asarray(scores, float)
    if x.ndim != 1 or len(x) < least or not np.isfinite(x).all():
        raise InputError(f"{least} or more finite scores in a row are needed, not {x.size} in the shape {x.shape}")
    return x


def _differences(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    x, y = _sample(a), _sample(b)
    if len(x) != len(y):
        raise InputError(f"scores come in pairs here, not {len(x)} and {len(y)}")
    return x - y


def _student(mean: float, error: float, freedom: float, level: float, tested: bool = False) -> Estimate:
    if error <= 1e-12 * max(1.0, abs(mean)):  # what rounding leaves of equal scores is not their spread
        return Estimate(mean, -np.inf, np.inf)
    half = float(scipy.special.stdtrit(freedom, (1 + level) / 2)) * error
    return Estimate(mean, mean - half, mean + half, float(2 * scipy.special.stdtr(freedom, -abs(mean) / error)) if tested else None)


def _welch_freedom(u, v, n, m):
    """Welch-Satterthwaite's degrees of freedom, for squared errors of the mean u, v from n, m scores."""
    return (u + v) ** 2 / np.maximum(u**2 / (n - 1) + v**2 / (m - 1), np.finfo(float).tiny)


def _violation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The violation ratio [k] of samples [k, n] and [k, m]: both quantile functions are steps, so the integrals are sums."""
    n, m = x.shape[-1], y.shape[-1]
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)  # in units of 1 / (n m), so that equal ends are equal
    widths = np.diff(ends, prepend=0)
    apart = np.sort(x)[:, (ends - 1) // m] - np.sort(y)[:, (ends - 1) // n]
    total, violated = apart**2 @ widths, np.minimum(apart, 0) ** 2 @ widths
    return np.divide(violated, total, out=np.full(len(total), 0.5), where=total > 0)
