"""Is a difference real? Tests and 95 % intervals for two models answering the same questions.

Random draws have a fixed seed: the same data give the same figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from fcdeploy.arrays import Float64

Z = 1.959963984540054  # the 97.5 % point of the normal distribution
RESAMPLES = 4999  # so that (hits + 1) / (RESAMPLES + 1) is a round number, and p is known to about 0.003 at 0.05
TOGETHER = 1 << 15  # numbers of resamples that are drawn and averaged at once
MOST_ROWS = 5_000  # half a second
NEAR = 0.15  # of what lies between chance and always right
SEED = 0
Statistic = Callable[[Float64], Float64]
"""Means of the columns (..., k) to a figure (...)."""


def compute_mcnemar_p(b: int, c: int) -> float:
    """Exact two-sided p-value of McNemar's test (1947) for b and c discordant pairs.

    2 P(X <= min(b, c)), X ~ Binomial(b + c, 1/2), and at most 1.
    The tail is summed in integers: it is exact however many pairs there are.
    """
    n, k = b + c, min(b, c)
    if b == c:
        return 1.0
    term = tail = math.comb(n, k)
    for i in range(k, 0, -1):
        term = term * i // (n - i + 1)  # C(n, i-1) from C(n, i)
        tail += term
    return float(min(1.0, 2 * tail / 2**n))


def estimate_paired_interval(b: int, c: int, n: int) -> tuple[float, float]:
    """95 % interval of the difference of two paired proportions, (b - c) / n.

    b of n pairs are right in the first only, c in the second only.  Bonett and Price (2012), "Adjusted Wald Confidence
    Interval for a Difference of Binomial Proportions Based on Paired Data": Laplace-adjusted shares, so that no
    discordant pair at all does not pretend to certainty.
    """
    p, q = (b + 1) / (n + 2), (c + 1) / (n + 2)
    half = Z * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return max(-1.0, p - q - half), min(1.0, p - q + half)


def estimate_share_interval(k: int, n: int) -> tuple[float, float]:
    """95 % score interval of a proportion k / n (Wilson, 1927)."""
    centre = (k + Z * Z / 2) / (n + Z * Z)
    half = Z / (n + Z * Z) * math.sqrt(k * (n - k) / n + Z * Z / 4)
    return (0.0 if k == 0 else centre - half), (1.0 if k == n else centre + half)


def is_near_chance(right: int, samples: int, classes: int | None) -> bool:
    """Whether so many right answers are not clearly more than guessing among the classes would give."""
    if not classes or classes < 2:
        return False
    return right / samples < 1 / classes + NEAR * (1 - 1 / classes)


def tail_of_binomial(k: int, n: int, share: float) -> float:
    """The probability of `k` events or more in `n` trials of probability `share` each."""
    if not 0 < share < 1 or k <= 0:
        return float(k <= 0 or (share >= 1 and k <= n))
    odds = math.log(share) - math.log1p(-share)
    whole = math.lgamma(n + 1) + n * math.log1p(-share)
    below = (math.exp(whole - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * odds) for i in range(min(k, n + 1)))
    return min(max(1.0 - math.fsum(below), 0.0), 1.0)


def bootstrap_interval(columns: Float64, statistic: Statistic) -> tuple[float, float]:
    """95 % percentile interval (Efron, 1979) of `statistic(mean of columns)`, rows (n, k) being independent samples."""
    rows = _average_groups(columns)
    draw = np.random.default_rng(SEED)
    means, together = [], max(1, TOGETHER // rows.size)
    for start in range(0, RESAMPLES, together):
        chosen = draw.integers(len(rows), size=(min(together, RESAMPLES - start), len(rows)))
        means.append(rows[chosen].mean(axis=1))
    low, high = np.quantile(statistic(np.concatenate(means)), [0.025, 0.975])
    return float(low), float(high)


def randomization_test(one: Float64, other: Float64, statistic: Statistic) -> float:
    """Two-sided p-value of `statistic(mean of one) - statistic(mean of other)`, rows (n, k) being paired samples.

    Fisher's randomization test: were there no difference, each pair could as well have come the other way round.
    """
    half, middle = _average_groups((one - other) / 2), _average_groups((one + other) / 2).mean(axis=0)
    observed = _compute_difference(half.mean(axis=0), middle, statistic)
    draw = np.random.default_rng(SEED)
    hits = 0
    for start in range(0, RESAMPLES, 100):
        signs = draw.integers(0, 2, size=(min(100, RESAMPLES - start), len(half)), dtype=np.int8) * 2.0 - 1.0
        chance = _compute_difference(signs @ half / len(half), middle, statistic)
        hits += int((np.abs(chance) >= abs(observed) * (1 - 1e-9)).sum())  # sums in another order count as equal
    return (hits + 1) / (RESAMPLES + 1)


def estimate_median_interval(values: Float64) -> tuple[float, float]:
    """An interval of at least 95 % for the median: between two order statistics, the sign test inverted.

    Fewer than 6 values cannot carry 95 %: then it is simply their range.
    """
    ordered, n = np.sort(values), len(values)
    tail, cut = 0.0, 0
    while cut < (n - 1) // 2:
        tail += math.comb(n, cut) / 2**n
        if 2 * tail > 0.05:
            break
        cut += 1
    cut = max(cut, 1)
    return float(ordered[cut - 1]), float(ordered[n - cut])


def _compute_difference(half: Float64, middle: Float64, statistic: Statistic) -> Float64:
    return statistic(middle + half) - statistic(middle - half)


def _average_groups(rows: Float64) -> Float64:
    """At most MOST_ROWS rows; more are averaged in groups of neighbours, which bounds the work and keeps the mean's variance.

    A remainder smaller than a group is left out.
    """
    size = -(-len(rows) // MOST_ROWS)
    if size == 1:
        return rows
    whole = len(rows) // size * size
    return np.asarray(rows[:whole].reshape(-1, size, rows.shape[1]).mean(axis=1))
