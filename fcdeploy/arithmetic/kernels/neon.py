"""What onnxruntime's byte kernels compute on ARM CPUs where they differ from exact sums, bit for bit, in NumPy.

Without dot product instructions (Cortex-A53, A72) `smull` and `smlal2` add two products of signed bytes in 16 bits before
`sadalp` widens them: positions k and k + 8 of every 16 along the reduction axis.  Unsigned activations are made signed
first, 128 lower.  Only -128 * -128 twice leaves 16 bits, 32,768, and it wraps around to -32,768: 65,536 less.  Depthwise
convolutions of 8, 16, 24 ... channels are added so on every ARM CPU, two positions of the kernel at a time; a kernel of 9
positions over 16, 32 ... channels has an order of its own.  Unsigned weights have kernels that widen first.

Read off onnxruntime 1.32.0 under emulation of those CPUs, pair by pair (docs/runtimes.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arithmetic.quantization import LIMITS
from fcdeploy.arrays import Array

LOWEST = -128
WRAP = 2**16
BLOCK = 16
NINE = ((0, 2), (1, 3), (4, 6), (5, 7))


def dense_pairs(length: int) -> NDArray[np.int64]:
    """The positions that are added in 16 bits without dot product instructions: (pairs, 2)."""
    first = [k for k in range(length) if k % BLOCK < BLOCK // 2 and k + BLOCK // 2 < length]
    return np.array([(k, k + BLOCK // 2) for k in first], np.int64).reshape(-1, 2)


def depthwise_pairs(positions: int, channels: int) -> NDArray[np.int64]:
    """The positions of a depthwise kernel that are added in 16 bits on every ARM CPU: (pairs, 2)."""
    if channels % 8:
        return np.zeros((0, 2), np.int64)
    pairs = NINE if positions == 9 and channels % 16 == 0 else [(k, k + 1) for k in range(0, positions - 1, 2)]
    return np.array(pairs, np.int64).reshape(-1, 2)


def find_lowest_pairs(rows: Array, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where both weights of a pair are -128: rows (N, K) -> (N, pairs)."""
    lowest = rows == LOWEST
    return np.asarray(lowest[:, pairs[:, 0]] & lowest[:, pairs[:, 1]])


def count_wraps(activation: Array, rows: Array, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many pairs wrap around: activations (M, K) times signed weights as rows (N, K) -> (M, N)."""
    lowest = activation == LIMITS[activation.dtype.name][0]
    both = (lowest[:, pairs[:, 0]] & lowest[:, pairs[:, 1]]).astype(np.int64)
    return np.asarray(both @ find_lowest_pairs(rows, pairs).T.astype(np.int64))
