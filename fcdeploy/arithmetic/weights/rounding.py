"""A scale per output channel and the integers that go with it, by the error they cause in the layer's output.

With inputs taken as uncorrelated, the output error of a channel is sum_k E[x_k^2] (w_k - s q_k)^2: the diagonal of the
Gram matrix in Elias Frantar et al., "GPTQ", arXiv:2210.17323, section 2.  Searching the scale for the least error
follows Markus Nagel et al., arXiv:2106.08295, section 3.1.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arithmetic.quantization import LIMITS, SMALLEST_SCALE
from fcdeploy.arithmetic.weights.pair_bound import compute_excess, enforce_pair_limit
from fcdeploy.arrays import Array, Float64

BLOCK = 64  # rows worked on at once, so that they stay in the cache
SEARCHED = 1024  # weights of a row that a scale is searched on: the error of more of them is hardly another
LARGEST = 127  # symmetric: -128 is left out, so that a weight and its negative are both exact
FACTORS = np.linspace(0.6, 1.0, 9)  # of max |w| / 127
GROWN = np.linspace(1.0, 127 / 64, 13)[1:]  # at 127 / 64 every weight fits 7 bits and no pair can exceed 128
EMPTY = 2.0**-20  # scale of a weight that is all zeros: any would do, but a bias must be fine and fit in 32 bits of it
FINER = np.linspace(0.95, 1.05, 7)  # of the best of those
NEVER_TRIED = 0.5  # of max |w| / 127: no scale is so small, so that one search does for every bound below
MOST_FOUND = 4096  # layers whose scales are remembered, a few kilobytes each
FOUND: dict[bytes, Float64] = {}
"""Hash of all that a search for scales reads -> what it found.  Every plan of a network asks for the same ones again."""


def round_rows(
    weight: Float64,
    scale: Float64,
    importance: Float64,
    pair_limit: int | None,
    dtype: str = "int8",
) -> Float64:
    """Integers for `weight` (rows, K) at `scale` (rows,), nearest rounding, pairs within `pair_limit`.

    Symmetric: the lowest integer of `dtype` is left out.
    """
    largest = LIMITS[dtype][1]
    integers = np.empty_like(weight)
    for at in range(0, len(weight), BLOCK):
        rows = slice(at, at + BLOCK)
        exact = weight[rows] / scale[rows, None]
        rounded = np.clip(np.rint(exact), -largest, largest)
        h = importance if importance.ndim == 1 else importance[rows]
        integers[rows] = rounded if pair_limit is None else enforce_pair_limit(rounded, exact, h, pair_limit)
    return integers


def compute_full_scales(top: NDArray[np.floating], dtype: str) -> Float64:
    """The scales (rows,) that clip nothing of rows whose max |w| is `top`, as float32 values."""
    full = _to_float32(top.astype(np.float64) / LIMITS[dtype][1])
    return np.where(top > 0, np.maximum(full, SMALLEST_SCALE), float(full.max()) or EMPTY)


def sample_columns(
    weight: NDArray[np.floating], importance: Float64, most: int = SEARCHED
) -> tuple[NDArray[np.floating], Float64]:
    """Of rows (rows, K) longer than `most` the part that a scale is searched on, and how much each of it counts.

    Pairs of neighbours evenly spaced stand for all but the pairs with the largest weights, which are all there and stand
    for themselves: a scale that clips is paid for by the few that it clips, and a sample has hardly any of them.
    """
    importance = np.broadcast_to(importance, weight.shape)
    pairs, tail = weight.shape[1] // 2, most // 16
    if weight.shape[1] <= most:
        return weight, importance
    size = np.abs(weight[:, : 2 * pairs]).reshape(len(weight), pairs, 2).max(axis=2)
    largest = np.sort(np.argpartition(size, pairs - tail, axis=1)[:, pairs - tail :], axis=1)
    even = np.linspace(0, pairs - 1, most // 2 - tail).astype(np.intp)
    share = np.full(size.shape, (pairs - tail) / len(even))
    np.put_along_axis(share, largest, 0.0, axis=1)
    counts = np.concatenate([share[:, even], np.ones(largest.shape)], axis=1)
    chosen = np.concatenate([np.broadcast_to(even, (len(weight), len(even))), largest], axis=1)
    columns = np.stack([2 * chosen, 2 * chosen + 1], axis=2).reshape(len(weight), -1)
    part = np.take_along_axis(weight, columns, axis=1)
    return part, np.take_along_axis(importance, columns, axis=1) * np.repeat(counts, 2, axis=1)


def search_scales(
    weight: NDArray[np.floating],
    importance: Float64,
    pair_limit: int | None,
    least: Float64 | None = None,
    *,
    searched: int = SEARCHED,
    top: NDArray[np.floating] | None = None,
) -> Float64:
    """The scale of each row of `weight` (rows, K) with the least output error, as float32 values.

    `importance` is E[x^2] of the inputs, (K,) or (rows, K).  `least` (rows,) bounds the scales from below, for a bias
    that must fit 32 bits.  Of rows longer than `searched` a part stands for all (`sample_columns`).  `top` (rows,) is max |w| of
    each row, for a `weight` that is such a part already.
    """
    full = compute_full_scales(np.abs(weight).max(axis=1) if top is None else top, "int8")
    lowest = np.zeros(len(weight)) if least is None else _round_up_to_float32(least)
    lowest = np.where(lowest < NEVER_TRIED * full, SMALLEST_SCALE, np.maximum(lowest, SMALLEST_SCALE))
    weight, importance = sample_columns(weight, importance, searched)
    key = _hash_arrays(weight, importance, full, lowest, np.array(-1 if pair_limit is None else pair_limit))
    if key not in FOUND:
        if len(FOUND) >= MOST_FOUND:
            FOUND.pop(next(iter(FOUND)))
        FOUND[key] = _search_blocks(weight, importance, pair_limit, full, lowest)
    return FOUND[key].copy()


def _hash_arrays(*arrays: Array) -> bytes:
    """Of shapes, types and contents."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(f"{array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.digest()


def _search_blocks(
    weight: NDArray[np.floating], importance: Float64, pair_limit: int | None, full: Float64, lowest: Float64
) -> Float64:
    """The best scale of each row, some rows at a time."""
    scales = np.empty_like(full)
    for at in range(0, len(weight), BLOCK):
        rows = slice(at, at + BLOCK)
        scales[rows] = _search(weight[rows].astype(np.float64), importance[rows], pair_limit, full[rows], lowest[rows])
    return scales


def search_scale(
    weight: Float64,
    importance: Float64,
    pair_limit: int | None,
    least: Float64 | None = None,
) -> Float64:
    """As `search_scales`, of the best single scale for all rows, (1,): a row that holds them all, one after the other."""
    whole = np.broadcast_to(importance, weight.shape)
    if weight.shape[1] % 2:  # so that no pair has a neighbour from another row
        weight, whole = (np.pad(array, ((0, 0), (0, 1))) for array in (weight, whole))
    most = None if least is None else np.max(least, keepdims=True)
    return search_scales(weight.reshape(1, -1), whole.reshape(1, -1), pair_limit, most, searched=BLOCK * SEARCHED)


def _search(
    weight: Float64,
    importance: Float64,
    pair_limit: int | None,
    full: Float64,
    lowest: Float64,
) -> Float64:
    """The best multiples of `full`, not below `lowest`: coarse first, then finer around the best."""
    best, least_error = full.copy(), np.full(len(weight), np.inf)

    def search(rows: NDArray[np.intp], base: Float64, factors: Float64) -> None:
        w, h = weight[rows], importance[rows]
        for factor in factors:
            scale = np.maximum(_to_float32(base[rows] * factor), lowest[rows])
            error = (h * (w - round_rows(w, scale, h, pair_limit) * scale[:, None]) ** 2).sum(axis=1)
            better = error < least_error[rows]
            best[rows[better]], least_error[rows[better]] = scale[better], error[better]

    every = np.arange(len(weight))
    search(every, full, FACTORS)
    if pair_limit is not None:  # a larger scale helps only where the limit is in the way
        offending = compute_excess(np.clip(np.rint(weight / full[:, None]), -LARGEST, LARGEST), pair_limit).any(axis=1)
        search(every[offending], full, GROWN)
    search(every, best.copy(), FINER)
    return best


def _to_float32(x: Float64) -> Float64:
    """Rounded to what the file will hold."""
    return x.astype(np.float32).astype(np.float64)


def _round_up_to_float32(x: Float64) -> Float64:
    """The smallest float32 values that are not below `x`."""
    near = x.astype(np.float32)
    return np.where(near < x, np.nextafter(near, np.float32(np.inf)), near).astype(np.float64)
