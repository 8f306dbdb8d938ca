"""Matrix products with the same bits whatever library, number of threads or CPU computes them.

BLAS adds the terms of a product in an order that changes with its threads and its kernels, so that last bits do, and with
them weights that lie between two integers.  Here both factors are cut into slices of so few bits that every sum of products
of two slices is an integer below 2^53, which float64 holds exactly in any order (Katsuhisa Ozaki et al., "Error-free
transformations of matrix multiplication by using fast routines of matrix multiplication and its applications", Numerical
Algorithms 59, 2012).  Two slices of each leave out a part of 2^-40 of the largest in a row or column.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arrays import Float64

EXACT = 53  # bits of an integer that float64 holds
SMALLEST = 2.0**-900  # what is below counts as zero: steps and their products stay powers of two


def multiply(a: NDArray[np.floating], b: NDArray[np.floating]) -> Float64:
    """`a` (rows, K) times `b` (K, columns), as float64."""
    bits = (EXACT - int(a.shape[1]).bit_length()) // 2
    a_high, a_low = _slice(a.astype(np.float64, copy=False), 1, bits)
    b_high, b_low = _slice(b.astype(np.float64, copy=False), 0, bits)
    return np.asarray(a_high @ b_high + (a_high @ b_low + a_low @ b_high))


def _slice(x: Float64, axis: int, bits: int) -> tuple[Float64, Float64]:
    """`x` as the sum of two parts, each integers of so many bits times a power of two for all along `axis`."""
    largest = np.abs(x).max(axis=axis, keepdims=True, initial=SMALLEST)
    step = np.ldexp(1.0, np.frexp(largest)[1] - bits)
    high = np.rint(x / step) * step
    step *= 2.0**-bits
    return high, np.rint((x - high) / step) * step
