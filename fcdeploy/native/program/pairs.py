"""Pairs of products that vpmaddubsw adds in 16 bits: which weights leave those, and how runs are read so that few do."""

from __future__ import annotations

import numpy as np

from fcdeploy.arrays import Array

HIGHEST, LOWEST = 32767, -32768  # what vpmaddubsw clips a pair of products to
TOP = 255  # of an activation


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
