"""Keeping neighbouring weights small enough that the sum of their products stays in 16 bits.

The fast byte kernel of x86 CPUs without VNNI (`vpmaddubsw`) multiplies an unsigned activation byte a with a signed
weight byte w, and adds two neighbouring products in 16 bits with saturation.  For any a1, a2 in [0, 255] the sum stays
inside when |w1| + |w2| <= 128 for weights of one sign; weights of opposite sign cannot overflow.  Neighbours are
positions 2k and 2k + 1 of the reduction axis as the kernel walks it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arrays import Float64


def compute_excess(integers: NDArray[np.floating] | NDArray[np.integer], limit: int) -> Float64:
    """By how much |w1| + |w2| of each pair of one sign exceeds `limit`: (rows, K) -> (rows, ceil(K / 2))."""
    first, second = _split_pairs(integers.astype(np.float64))
    return np.where(first * second > 0, np.maximum(np.abs(first) + np.abs(second) - limit, 0), 0)


def enforce_pair_limit(integers: Float64, exact: Float64, importance: Float64, limit: int) -> Float64:
    """The nearest integers, in the sense of importance * error^2, whose pairs keep the limit, which is at least 127.

    `integers` (rows, K) are the rounded `exact` ones; `importance` is (K,) or (rows, K).  In an offending pair the two
    weights are moved to the best point of the line |w1| + |w2| = limit: with errors d1 and d2 and weights h1 and h2,
    h1 d1^2 + h2 d2^2 is least where h1 d1 = h2 d2.
    """
    even = integers.shape[1] // 2 * 2
    sums = integers[:, 0:even:2] + integers[:, 1:even:2]  # of opposite signs, no sum exceeds 127 and so the limit
    row, pair = np.nonzero(np.abs(sums) > limit)
    if not len(row):
        return integers
    at, beside = (row, 2 * pair), (row, 2 * pair + 1)
    h = np.broadcast_to(importance, integers.shape)
    x1, x2, h1, h2 = np.abs(exact[at]), np.abs(exact[beside]), h[at], h[beside]
    share = np.divide(h2, h1 + h2, out=np.full_like(h1, 0.5), where=(h1 + h2) > 0)
    best = np.clip(np.rint(x1 - (x1 + x2 - limit) * share), 0, limit)
    best = np.minimum(np.maximum(best, limit - 127), 127)
    repaired = integers.copy()
    repaired[at] = np.sign(integers[at]) * best
    repaired[beside] = np.sign(integers[beside]) * (limit - best)
    return repaired


def _split_pairs(rows: Float64) -> tuple[Float64, Float64]:
    """Even and odd positions, the last one paired with zero where the length is odd."""
    if rows.shape[1] % 2:
        rows = np.concatenate([rows, np.zeros((len(rows), 1))], axis=1)
    return rows[:, 0::2], rows[:, 1::2]
