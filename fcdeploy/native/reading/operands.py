"""What a value of the graph is while it is read: a constant, bytes with what they stand for, or a tensor of the program."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fcdeploy.arrays import Array
from fcdeploy.native.program.tensors import CODES, Bytes, Coding, Floats, Tensor


@dataclass(frozen=True, eq=False)
class Fixed:
    """A constant. With `integers` it comes from a DequantizeLinear: array = scale * (integers - zero), along `axis`."""

    array: Array
    integers: Array | None = None
    scale: Floats | None = None
    zero: Array | None = None
    axis: int | None = None


@dataclass(frozen=True, eq=False)
class Coded:
    """Bytes of the program and the number that each stands for: float32 (256,), or (channels, 256) along axis 1.

    What a QuantizeLinear writes stands for the codes themselves, -128 to 127 where they are signed, and what a
    DequantizeLinear makes of them for scale * (code - zero point).  A function of one such tensor is other numbers for
    the same bytes, so that any chain of them is a table.
    """

    tensor: Tensor
    values: Floats

    @property
    def linear(self) -> bool:
        """Whether the numbers are those of the tensor's own coding."""
        coding = self.tensor.coding
        return coding is not None and np.array_equal(self.values, coding.values)

    @property
    def channel_scales(self) -> Floats | None:
        """(channels,), where the numbers of each channel are a scale of its own * (byte - zero point); None elsewhere."""
        coding = self.tensor.coding
        if self.values.ndim == 1 or coding is None:
            return None
        at = coding.zero_point + 1 if coding.zero_point < CODES - 1 else coding.zero_point - 1
        scales = np.abs(self.values[:, at])
        steps = np.arange(CODES, dtype=np.float32) - np.float32(coding.zero_point)
        return scales if np.array_equal(self.values, steps * scales[:, None]) else None

    @property
    def rises(self) -> bool:
        """Whether a larger byte never stands for a smaller number."""
        return bool(np.all(np.diff(self.values, axis=-1) >= 0))


Operand = Fixed | Coded | Tensor


@dataclass(frozen=True)
class Sink:
    """The bytes that a node's output becomes: the coding, and the ends that clips before the rounding leave.

    With `scales` each channel (axis 1) has its own, in whose place the coding has 1.
    """

    coding: Coding
    low: int
    high: int
    scales: Floats | None = None


def make_real(tensor: Tensor) -> Coded:
    """The bytes of a tensor as the real numbers of its coding."""
    assert tensor.coding is not None
    return Coded(tensor, tensor.coding.values)


def make_codes(tensor: Tensor, raised: int) -> Coded:
    """The bytes of a tensor as the codes that the model has for them; `raised` was added to those."""
    return Coded(tensor, np.arange(CODES, dtype=np.float32) - np.float32(raised))


def make_table(operand: Coded, to: Coding) -> Bytes:
    """The byte that each byte becomes in another coding."""
    return to.encode(operand.values)


def make_channel_reals(tensor: Tensor, scales: Floats) -> Coded:
    """The bytes of a tensor as real numbers, with a scale for each channel (axis 1)."""
    assert tensor.coding is not None
    return Coded(tensor, tensor.coding.values * scales[:, None])


def is_identity(table: Bytes) -> bool:
    return table.ndim == 1 and np.array_equal(table, np.arange(CODES, dtype=np.uint8))
