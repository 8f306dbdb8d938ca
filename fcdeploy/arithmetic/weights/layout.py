"""Weights as rows, one per output channel, in the order in which the integer kernels walk the reduction axis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arrays import Array, Float64


def to_rows(weight: Array, axis: int) -> Array:
    """(out, in / groups, *kernel) or a dense (in, out) or (out, in) -> (out, K).

    For a convolution the kernel position is the slow part of K and the input channel the fast one: the runtime lays
    images out channels last.
    """
    if weight.ndim == 2:
        return weight if axis == 0 else weight.T
    return np.moveaxis(weight, 1, -1).reshape(len(weight), -1)


def from_rows(rows: Array, shape: tuple[int, ...], axis: int) -> Array:
    """The inverse of `to_rows` for a weight of `shape`."""
    if len(shape) == 2:
        return np.ascontiguousarray(rows if axis == 0 else rows.T)
    channels_last = rows.reshape(shape[0], *shape[2:], shape[1])
    return np.ascontiguousarray(np.moveaxis(channels_last, -1, 1))


def lay_out_importance(mean_square: Float64, shape: tuple[int, ...], groups: int) -> Float64:
    """E[x^2] per input channel, laid out as `to_rows` lays out the weights: (K,) or, with groups, (out, K)."""
    if len(shape) == 2:
        return mean_square
    positions = int(np.prod(shape[2:]))
    of_group = mean_square.reshape(groups, shape[1])  # (groups, in / groups)
    rows = np.tile(of_group, (1, positions))  # (groups, K), channel fastest
    return rows[0] if groups == 1 else np.repeat(rows, shape[0] // groups, axis=0)


def pack_blocks(integers: NDArray[np.integer], block: int, bits: int) -> NDArray[np.uint8]:
    """(out, in) to (out, blocks, bytes of a block): zero is the middle of the unsigned range, the first weight low."""
    out, inputs = integers.shape
    middle = 1 << (bits - 1)
    raised = np.full((out, -(-inputs // block) * block), middle, np.uint8)
    raised[:, :inputs] = integers.astype(np.int16) + middle
    in_blocks = raised.reshape(out, -1, block)
    return in_blocks if bits == 8 else in_blocks[..., 0::2] | (in_blocks[..., 1::2] << 4)


def unpack_blocks(packed: NDArray[np.uint8], inputs: int, bits: int) -> NDArray[np.int8]:
    """The inverse of `pack_blocks`: (out, blocks, bytes of a block) to signed integers (out, inputs)."""
    if bits == 4:
        packed = np.stack([packed & 15, packed >> 4], axis=-1)
    raised = packed.reshape(len(packed), -1)[:, :inputs].astype(np.int16)
    return (raised - (1 << (bits - 1))).astype(np.int8)
