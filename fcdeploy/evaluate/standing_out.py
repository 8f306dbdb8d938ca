"""Whether numbers are scores of classes: one stands out, and not everywhere the same."""

from __future__ import annotations

import numpy as np

from fcdeploy.arrays import Array, Float64

STANDS_OUT = 0.5  # standard deviations of a row between its two largest numbers, at least; 0.22 for 512 random ones
MORE_THAN_RANDOM = 1.25  # times what they are of as many random numbers: 0.85 of 4, 0.47 of 10
NEAR = 0.25  # of the usual gap: nearer are 13 to 16 % of rows of random numbers, however many stand in a row
FEW_NEAR = 0.08  # of rows, where a class was learnt: 0 to 6 % of most trained networks
ENOUGH_ROWS = 256  # to tell such shares from each other


def stands_out(output: Array, axis: int) -> bool:
    """Whether rows along an axis look like scores of classes: one stands out, and not everywhere the same.

    By how far the first of a row is above the second, and, since of two numbers that tells nothing, by how seldom it is near.
    """
    rows = np.moveaxis(np.asarray(output, np.float64), axis, -1).reshape(-1, output.shape[axis])
    rows = rows[:: max(1, len(rows) // 4096)]
    if len(np.unique(rows.argmax(axis=1))) == 1 and len(rows) > 1:
        return False
    gaps, relative = _measure_gaps(rows)
    random = _measure_gaps(np.random.default_rng(0).normal(size=(512, rows.shape[1])))[1]
    if relative > max(STANDS_OUT, MORE_THAN_RANDOM * random):
        return True
    return len(rows) >= ENOUGH_ROWS and bool(np.mean(gaps < NEAR * np.median(gaps)) < FEW_NEAR)


def _measure_gaps(rows: Float64) -> tuple[Float64, float]:
    """How far the largest number of each row is above the next, and what that is in deviations of a row, by the median."""
    two = np.partition(rows, -2, axis=1)[:, -2:]
    gaps = two[:, 1] - two[:, 0]
    return gaps, float(np.median(gaps / np.maximum(rows.std(axis=1), 1e-30)))
