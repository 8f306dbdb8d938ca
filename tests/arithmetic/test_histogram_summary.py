"""Quantiles and cells of a histogram against NumPy's on the elements themselves."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fcdeploy.arithmetic.histogram import make_histogram
from fcdeploy.arithmetic.histogram_summary import count_in_cells, estimate_quantiles

finite = st.floats(-1e3, 1e3, width=32)


@given(arrays(np.float32, st.integers(1, 60), elements=finite), st.floats(0, 1))
def test_a_quantile_lies_in_the_bin_of_the_element(x: np.ndarray, share: float) -> None:
    (found,) = estimate_quantiles(make_histogram(x), [share])
    exact = float(np.quantile(x.astype(np.float64), share, method="inverted_cdf"))
    neighbours = np.sort(x)[max(int(share * len(x)) - 2, 0) : int(share * len(x)) + 2].astype(np.float64)
    low, high = min(neighbours.min(), exact), max(neighbours.max(), exact)
    room = max(abs(low), abs(high)) / 128 + 1e-37  # a bin is 2^-7 of its value wide
    assert low - room <= found <= high + room


@given(arrays(np.float32, st.integers(1, 60), elements=finite), st.integers(1, 40))
def test_cells_hold_every_element_once(x: np.ndarray, number: int) -> None:
    h = make_histogram(x)
    found = count_in_cells(h, number)
    assert len(found) == number
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(), x.size)


def test_cells_are_numpy_s_up_to_the_width_of_a_bin() -> None:
    x = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    expected, _ = np.histogram(x, 30)
    assert np.abs(count_in_cells(make_histogram(x), 30) - expected).max() < 0.1 * expected.max()
    shares = [0.01, 0.5, 0.9]
    np.testing.assert_allclose(estimate_quantiles(make_histogram(x), shares), np.quantile(x, shares), atol=0.01)


def test_nothing_finite_and_all_the_same() -> None:
    assert estimate_quantiles(make_histogram(np.array([np.nan, np.inf], np.float32)), [0, 0.5, 1]) == [0, 0, 0]
    same = make_histogram(np.full(7, 3, np.float32))
    assert estimate_quantiles(same, [0, 0.5, 1]) == [3, 3, 3]
    assert count_in_cells(same, 4).tolist() == [0, 0, 0, 7]
