"""Functions as tables of floats, so that every runtime gives the same bits: it looks up, multiplies, adds whole numbers, divides.

A function of a byte has 256 results.  The exponential of a float is a product over its digits,

    exp(x) = exp(floor x) exp(d1 / 128) exp(d2 / 128^2) exp(d3 / (64 128^2)),

each digit but the last cut off exactly, the last rounded: x is moved by 2^-21 at most, the result by 5e-7 of itself, and each
product is rounded once.  A softmax of n numbers along an axis is

    y_i = e_i / sum_j e_j,    e_i = 2^b exp(x_i - max x),    n 2^b <= 2^24

whose sum is taken of the whole numbers in e, of the next b bits as whole numbers, and so on: whole numbers below 2^24 are added
without rounding in float32, in whatever order.  What is left out is less than 2^-24 of the sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from fcdeploy.arrays import Float32, Float64
from fcdeploy.records.plan import QParams

EXACT_BITS = 24  # whole numbers up to 2^24 are exact in float32
LONGEST = 1 << 16  # numbers of a softmax
LOWEST, HIGHEST = (
    -80,
    88,
)  # powers that are neither infinite nor below the smallest normal float32; what lies outside is taken there
DIGITS = (128, 128, 64)  # values of each digit behind the point
FUNCTIONS: dict[str, Callable[[Float64], Float64]] = {
    "Cos": np.cos,
    "Erf": np.vectorize(math.erf, otypes=[np.float64]),
    "Exp": np.exp,
    "Log": np.log,
    "Reciprocal": np.reciprocal,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Sin": np.sin,
    "Softplus": lambda x: np.logaddexp(0.0, x),
    "Tan": np.tan,
    "Tanh": np.tanh,
}
"""Operators of one input and no attributes."""


def tabulate(op: str, q: QParams) -> Float32:
    """The results of `op` for codes 0 to 255, rounded once from float64; nan and infinite as in float."""
    real = np.float32(q.scale[0]) * (np.arange(256) - q.zero_point).astype(np.float32)
    with np.errstate(all="ignore"):
        found: Float32 = FUNCTIONS[op](real.astype(np.float64)).astype(np.float32)
    return found


def split_bits(length: int) -> tuple[int, int]:
    """b for a softmax of so many numbers, and how many times b bits are added up."""
    more = (length - 1).bit_length()
    bits = EXACT_BITS - more
    return bits, max(2, -(-(EXACT_BITS + more) // bits))


def tabulate_terms(q: QParams, bits: int) -> Float32:
    """e for a byte 0 to 255 below the largest."""
    terms: Float64 = np.exp(-float(np.float32(q.scale[0])) * np.arange(256)) * 2.0**bits
    return terms.astype(np.float32)


def tabulate_powers(highest: int, bits: int = 0) -> list[Float32]:
    """exp of whole numbers from LOWEST to `highest`, times 2^`bits`; then of each digit, the next one's first included."""
    steps = 1 / np.cumprod(DIGITS)
    whole = np.exp(np.arange(LOWEST, highest + 1, dtype=np.float64)) * 2.0**bits
    parts = [np.exp(step * np.arange(count + 1)) for step, count in zip(steps, DIGITS, strict=True)]
    return [table.astype(np.float32) for table in (whole, *parts)]
