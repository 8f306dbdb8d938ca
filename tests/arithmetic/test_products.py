"""Products of matrices against exact fractions, and the same bits in whatever order the terms are added."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fcdeploy.arithmetic.weights.products import multiply


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 5), inner=st.integers(0, 90), columns=st.integers(1, 5), spread=st.integers(0, 40),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_products_are_near_the_exact_ones_and_know_no_order(
    rows: int, inner: int, columns: int, spread: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(rows, inner)), random.normal(size=(inner, columns))
    a *= 2.0 ** random.integers(-spread, spread + 1, (rows, 1))
    b *= 2.0 ** random.integers(-spread, spread + 1, (1, columns))
    b[:, random.random(columns) < 0.1] = 0
    found, order = multiply(a, b), random.permutation(inner)
    assert (multiply(a[:, order], b[order]) == found).all(), "another order of the terms gives other bits"
    assert all((multiply(a[i : i + 1], b) == found[i]).all() for i in range(rows)), "other rows beside it do"
    for (i, j), value in np.ndenumerate(found):
        exact = sum((Fraction(x) * Fraction(y) for x, y in zip(a[i], b[:, j], strict=True)), Fraction(0))
        size = np.abs(a[i]).max(initial=0) * np.abs(b[:, j]).max(initial=0) * inner
        assert abs(value - float(exact)) <= 2.0**-40 * size
