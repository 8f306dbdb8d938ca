"""Pairs of products that vpmaddubsw adds in 16 bits: which weights leave those, and how runs are read so that few do."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from fcdeploy.arrays import Array

HIGHEST, LOWEST = 32767, -32768  # what vpmaddubsw clips a pair of products to
TOP = 255  # of an activation
BLOCK = 96  # steps among which partners are looked for


def begin_early(rows: Array) -> Array:
    """Weights (out, runs, length) of runs of which every second one begins a byte earlier.

    Then the pairs are those of the whole window in one piece, where the length is odd, but for the ones across two runs:
    weights that were bound in pairs for onnxruntime's kernels are so here.
    """
    outs, runs, length = rows.shape
    shifted = np.zeros((outs, runs, length + 1), rows.dtype)
    shifted[:, ::2, :length] = rows[:, ::2]
    shifted[:, 1::2, 1:] = rows[:, 1::2]
    return shifted


def leaves_16_bits(pairs: Array) -> bool:
    """Whether two products of these weights (n, 2) and bytes from 0 to 255 can saturate."""
    wide = pairs.astype(np.int32)
    most = TOP * np.maximum(wide, 0).sum(axis=1)
    least = TOP * np.minimum(wide, 0).sum(axis=1)
    return bool((most > HIGHEST).any() or (least < LOWEST).any())


def stays_in_16_bits(rows: Array) -> bool:
    """Whether runs (out, runs, length) have no such pair, read from their first byte on or every second one earlier."""
    forms = [rows, begin_early(rows)] if rows.shape[2] % 2 else [rows]
    filled = [np.pad(each, ((0, 0), (0, 0), (0, each.shape[2] % 2))).reshape(-1, 2) for each in forms]
    return not all(leaves_16_bits(pairs) for pairs in filled)


def pair_steps(weights: Array, top: int) -> tuple[list[int], int]:
    """Steps (n, lanes, 2) in pairs whose four products with bytes up to `top` stay in 16 bits in each lane; then the others.

    Returns the order, and how many pairs it begins with. Whoever has the fewest partners left chooses first, within
    parts of `BLOCK` steps at most.
    """
    wide = weights.astype(np.int32)
    most, least = top * np.maximum(wide, 0).sum(axis=2), top * np.minimum(wide, 0).sum(axis=2)
    paired, alone = list[int](), list[int]()
    parts = max(1, -(-len(weights) // BLOCK))
    for begin, end in pairwise(len(weights) * part // parts for part in range(parts + 1)):
        high, low = most[begin:end], least[begin:end]
        fit = (high[:, None] + high <= HIGHEST).all(axis=2) & (low[:, None] + low >= LOWEST).all(axis=2)
        np.fill_diagonal(fit, False)
        left = np.ones(len(fit), bool)
        while left.any():
            partners = np.where(left, fit.sum(axis=1), len(fit) + 1)
            first = int(partners.argmin())
            left[first] = False
            if not fit[first].any():
                alone.append(begin + first)
                continue
            second = int(np.where(fit[first], partners, len(fit) + 1).argmin())
            left[second] = False
            paired += [begin + first, begin + second]
            fit[[first, second]] = fit[:, [first, second]] = False
    return paired + alone, len(paired) // 2
