"""Tests and intervals against scipy, exact enumeration and simulation."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fcdeploy.arithmetic import significance


def share(means: np.ndarray) -> np.ndarray:
    return means[..., 0]


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test(b, c) -> None:
    expected = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert significance.compute_mcnemar_p(b, c) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("b", "c"), [(1400, 1600), (400, 3100), (2000, 2000), (1999, 2001), (0, 3000)])
def test_mcnemar_is_exact_for_thousands(b, c) -> None:
    n, k = b + c, min(b, c)
    exact = Fraction(2 * sum(math.comb(n, i) for i in range(k + 1)), 2**n)
    assert significance.compute_mcnemar_p(b, c) == float(min(exact, Fraction(1)))
    assert significance.compute_mcnemar_p(c, b) == significance.compute_mcnemar_p(b, c)


def table_probability(n: int, b: int, c: int, p: float, q: float) -> float:
    return math.comb(n, b) * math.comb(n - b, c) * p**b * q**c * (1 - p - q) ** (n - b - c)


@pytest.mark.parametrize("n", [10, 30])
@pytest.mark.parametrize(("p", "q"), [(0.02, 0.02), (0.1, 0.05), (0.3, 0.1), (0.25, 0.25)])
def test_paired_interval_covers_the_difference(n, p, q) -> None:
    """Over every table of n pairs: it holds the true difference in about 95 % of them, as published for it."""
    covered = 0.0
    for b in range(n + 1):
        for c in range(n + 1 - b):
            low, high = significance.estimate_paired_interval(b, c, n)
            covered += table_probability(n, b, c, p, q) * (low <= p - q <= high)
    assert covered >= 0.94


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 500))
def test_paired_interval_is_antisymmetric_and_bounded(b, c, rest) -> None:
    n = b + c + rest + 1
    low, high = significance.estimate_paired_interval(b, c, n)
    assert -1 <= low < high <= 1
    assert significance.estimate_paired_interval(c, b, n) == pytest.approx((-high, -low))
    assert low <= (b - c) / n <= high


@given(st.integers(0, 40), st.integers(1, 40))
def test_share_interval_is_wilsons(k, n) -> None:
    k = min(k, n)
    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert significance.estimate_share_interval(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_bootstrap_of_a_mean_is_near_students() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=(400, 1))
    expected = stats.t.interval(0.95, 399, values.mean(), stats.sem(values[:, 0]))
    assert significance.bootstrap_interval(values, share) == pytest.approx(expected, abs=0.02)
    assert significance.bootstrap_interval(values, share) == significance.bootstrap_interval(values, share)


def test_bootstrap_groups_many_rows(monkeypatch) -> None:
    values = np.random.default_rng(2).normal(size=(4003, 1))
    whole = significance.bootstrap_interval(values, share)
    monkeypatch.setattr(significance, "MOST_ROWS", 1000)
    assert significance.bootstrap_interval(values, share) == pytest.approx(whole, abs=0.006)  # of a width of 0.062


@given(st.lists(st.integers(-4, 6), min_size=1, max_size=9))
@settings(max_examples=30, deadline=None)
def test_exchange_is_every_way_of_turning_pairs_round(differences) -> None:
    d = np.array(differences, float)
    ways = np.stack(np.meshgrid(*[[-1.0, 1.0]] * len(d))).reshape(len(d), -1)
    exact = float((np.abs(d @ ways) >= abs(d.sum())).mean())
    found = significance.randomization_test(d[:, None], np.zeros((len(d), 1)), share)
    assert found == pytest.approx(exact, abs=0.03)


def test_exchange_of_equal_figures_is_one() -> None:
    same = np.random.default_rng(0).normal(size=(50, 1))
    assert significance.randomization_test(same, same, share) == 1.0


def test_exchange_sees_a_small_steady_difference_through_large_spread() -> None:
    random = np.random.default_rng(0)
    base = random.normal(0, 10, size=(200, 1))
    assert significance.randomization_test(base + random.normal(0.1, 0.1, size=base.shape), base, share) < 0.001


@pytest.mark.parametrize("n", [6, 9, 40, 75])
def test_median_interval_has_the_level_it_claims(n) -> None:
    low, high = significance.estimate_median_interval(np.arange(n, dtype=float))
    rank = int(low) + 1
    assert high == n - rank
    assert 1 - 2 * stats.binom.cdf(rank - 1, n, 0.5) >= 0.95
    assert 1 - 2 * stats.binom.cdf(rank, n, 0.5) < 0.95


def test_median_interval_of_few_is_their_range() -> None:
    assert significance.estimate_median_interval(np.array([3.0, 1.0, 2.0])) == (1.0, 3.0)
    assert significance.estimate_median_interval(np.array([3.0])) == (3.0, 3.0)


@given(st.integers(-1, 500), st.integers(0, 400), st.floats(0, 1))
def test_tail_of_a_binomial(k: int, n: int, probability: float) -> None:
    assert significance.tail_of_binomial(k, n, probability) == pytest.approx(
        stats.binom.sf(k - 1, n, probability), abs=1e-9
    )


def test_tail_of_many_trials() -> None:
    assert significance.tail_of_binomial(330, 32768, 0.01) == pytest.approx(stats.binom.sf(329, 32768, 0.01), abs=1e-9)
