"""Scales at which no sum or product of bytes lies near a half, where kernels that round in float32 could differ.

A sum is  r1 (a - za) + r2 (b - zb)  with the ratios of each scale to that of the result, a product  r (a - za)(b - zb).
onnxruntime's kernels compute both in float32, each in an order of its own, with multiplications and additions fused or
not: so much is between them as a few roundings make.  Where the ratios are fractions of one odd denominator q, every
result is a whole number of q-ths, and none is nearer to a half than 1 / (2 q): all kernels round it alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arrays import Float64

ROUNDINGS = 8  # of a result in float32, those of the scales included: at most so many in any kernel
EPSILON = 2.0**-24  # what one rounding may move a number, relative to it
LEVELS = 255
MOST_OF_SUM = 127  # the largest denominator: 1 / 254 from a half, where roundings move a sum of ratio 1 by 0.0004
MOST_OF_PRODUCT = 2047
NEAR = 2e-4  # of a level from a half: float32 tells 255 levels apart to 6e-5
SAME = 2e-6  # relative: scales are float32


def choose_sum_steps(steps: Sequence[float], written: Sequence[bool], held: Sequence[bool]) -> Float64 | None:
    """The least larger scales that are whole multiples of one unit, those that sums are written with odd ones.

    `held` must stay as they are.  None where nothing fits.
    """
    base, odd, keep = np.asarray(steps, np.float64)[:, None], np.asarray(written), np.asarray(held)
    units = (base / np.arange(1, MOST_OF_SUM + 1)).reshape(-1)
    exact = base / units  # (scales, units)
    counts = np.where(keep[:, None], np.rint(exact), np.ceil(exact * (1 - SAME)))
    counts = np.maximum(counts, 1)
    counts += (odd & ~keep)[:, None] & (counts % 2 == 0)
    fits = (np.abs(exact - counts) <= SAME * counts)[keep].all(axis=0)
    fits &= ((counts % 2 == 1) & (counts <= MOST_OF_SUM))[odd].all(axis=0)
    chosen = np.where(keep[:, None], base, np.float32(counts * units))
    coarser = np.where(fits, ((chosen / base) ** 2).sum(axis=0), np.inf)
    at = int(np.argmin(coarser))
    return chosen[:, at].astype(np.float64) if fits[at] else None


def is_half(levels: Float64) -> NDArray[np.bool_]:
    """Which real numbers, in levels, lie half-way between two as far as float32 tells."""
    return np.asarray(np.abs(levels - np.floor(levels) - 0.5) < NEAR)


def count_halves(read: Sequence[float], written: float) -> float:
    """The share of sums of two bytes that lie half-way between two levels of the result: 0.5 where its scale is twice theirs."""
    codes = np.arange(-64, 65, dtype=np.float64)
    one, two = (scale / written for scale in read)
    levels = one * codes[:, None] + two * codes[None, :]
    return float(is_half(levels).mean())


def choose_product_step(read: Sequence[float], written: float, *, of_read: bool = False) -> float:
    """The least larger scale of a product, or of the second it reads, that makes its ratio a fraction of an odd denominator."""
    ratio = _to_float32(read)[0] * _to_float32(read)[1] / written
    odd = np.arange(1, MOST_OF_PRODUCT + 1, 2, dtype=np.float64)
    if ratio < 1 / MOST_OF_PRODUCT:
        odd = np.array([np.ceil(1 / ratio) // 2 * 2 + 1])
    if of_read:
        fraction = float((np.ceil(ratio * (1 - SAME) * odd) / odd).min())
        return float(np.float32(fraction * written / read[0]))
    fraction = float((np.floor(ratio * (1 + SAME) * odd) / odd).max())
    return float(np.float32(ratio * written / fraction))


def sum_clearance(read: Sequence[float], written: float) -> float:
    """How much farther from a half every sum is than roundings can move it; 0 or less where one may come to lie there."""
    codes = np.arange(-LEVELS, LEVELS + 1, dtype=np.float64)
    ratios = _to_float32(read) / float(np.float32(written))
    sums = np.asarray(np.add.outer(ratios[0] * codes, ratios[1] * codes), np.float64)
    moved = ROUNDINGS * EPSILON * LEVELS * (1 + ratios.sum())
    return float(_nearest_half(sums[np.abs(sums) <= LEVELS + 1]) - moved)


def product_clearance(read: Sequence[float], written: float) -> float:
    """As `sum_clearance`, of a product of two."""
    ratio = _to_float32(read)[0] * _to_float32(read)[1] / float(np.float32(written))
    products = np.arange(0, min(LEVELS**2, int((LEVELS + 1) / ratio)) + 1) * ratio
    moved = ROUNDINGS * EPSILON * float(products[-1] + 1)
    return float(_nearest_half(products) - moved)


def _to_float32(scales: Sequence[float]) -> Float64:
    return np.asarray(scales, np.float32).astype(np.float64)


def _nearest_half(values: Float64) -> float:
    return float(np.abs(values - np.floor(values) - 0.5).min())
