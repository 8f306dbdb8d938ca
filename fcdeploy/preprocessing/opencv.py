"""OpenCV's INTER_LINEAR for bytes in NumPy, bit for bit: what YOLO and Paddle resize with. It does not antialias.

Weights are integers of 11 bits.  Rows are weighted first across and then down, with the shifts of OpenCV's own kernel, and
borders differ in the two directions: across the weight moves to the last pixel, down the last row is taken twice.
Exactly half the size in both directions is the mean of four pixels, as INTER_AREA has it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int32]

ONE = np.float32(1 << 11)


def resize_linear(pixels: Bytes, height: int, width: int) -> Bytes:
    """(rows, columns, channels) to (height, width, channels)."""
    rows, columns = pixels.shape[:2]
    if (rows, columns) == (height, width):
        return pixels
    if (rows, columns) == (2 * height, 2 * width):
        wide = pixels.astype(np.uint16)
        total = wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2]
        return ((total + 2) >> 2).astype(np.uint8)
    left, right, a, b = _compute_taps(width, columns, clamp=True)
    upper, lower, c, d = _compute_taps(height, rows, clamp=False)

    # across, only the rows that are read, with channels as columns of their own
    channels = pixels.shape[2]
    read, places = np.unique(np.concatenate([upper, lower]), return_inverse=True)
    flat = pixels.reshape(rows, -1)[read]
    each = np.arange(channels)
    across = np.take(flat, (left[:, None] * channels + each).ravel(), axis=1).astype(np.int32)
    across *= np.repeat(a, channels)
    second = np.take(flat, (right[:, None] * channels + each).ravel(), axis=1).astype(np.int32)
    second *= np.repeat(b, channels)
    across += second
    across >>= 4

    # down
    above, below = across[places[:height]], across[places[height:]]
    above *= c[:, None]
    above >>= 16
    below *= d[:, None]
    below >>= 16
    above += below
    above += 2
    above >>= 2
    done: Bytes = above.astype(np.uint8).reshape(height, width, channels)
    return done


def _compute_taps(out: int, size: int, *, clamp: bool) -> tuple[NDArray[np.int64], NDArray[np.int64], Ints, Ints]:
    """For each place the two it is read from, and their weights of 2048."""
    ratio = 1.0 / (out / size)
    at = ((np.arange(out) + 0.5) * ratio - 0.5).astype(np.float32)
    first = np.floor(at).astype(np.int64)
    part = at - first.astype(np.float32)
    if clamp:
        part[(first < 0) | (first >= size - 1)] = 0
    weights = [np.rint(share * ONE).astype(np.int32) for share in (np.float32(1) - part, part)]
    return np.clip(first, 0, size - 1), np.clip(first + 1, 0, size - 1), weights[0], weights[1]
