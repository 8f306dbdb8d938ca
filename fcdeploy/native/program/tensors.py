"""What a program's steps read and write: tensors, what their bytes stand for, and the windows that move over them."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arrays import Array

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
CODES = 256
DTYPES = ("uint8", "int8", "float32", "int32", "int64", "bool")
"""Of tensors of a program."""


@dataclass(frozen=True)
class Coding:
    """What the bytes of a tensor stand for: scale * (byte - zero point)."""

    scale: np.float32
    zero_point: int

    @property
    def values(self) -> Floats:
        """The real number of each of the 256 bytes, in float32."""
        return (np.arange(CODES, dtype=np.float32) - np.float32(self.zero_point)) * self.scale

    def encode(self, real: Array) -> Bytes:
        """round(real / scale) + zero point, halves to even, saturated; the division in float32. NaN becomes 0."""
        with np.errstate(over="ignore", invalid="ignore"):
            quotient = np.rint(np.asarray(real, np.float32) / self.scale)
        codes = np.nan_to_num(quotient.astype(np.float64), nan=-np.inf) + self.zero_point
        return np.asarray(np.clip(codes, 0, CODES - 1), np.uint8)


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the program: bytes with a coding, or numbers of `dtype`; `held` where it is a constant."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "uint8"
    coding: Coding | None = None
    held: Array | None = None

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        return np.dtype(self.dtype).itemsize

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    def __str__(self) -> str:
        coding = "" if self.coding is None else f" {self.coding.scale:.6g}*(q-{self.coding.zero_point})"
        return f"{self.name}: {self.dtype}{list(self.shape)}{coding}"


@dataclass(frozen=True)
class Window:
    """The geometry of a convolution or pool; every list has one number for each axis of space."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    dilations: tuple[int, ...]

    def outputs(self, space: tuple[int, ...]) -> tuple[int, ...]:
        """Output lengths for input lengths; ONNX's formula, rounded down."""
        each = zip(space, self.kernel, self.strides, self.begins, self.ends, self.dilations, strict=True)
        return tuple((n + b + e - d * (k - 1) - 1) // s + 1 for n, k, s, b, e, d in each)

    def __str__(self) -> str:
        text = "x".join(map(str, self.kernel))
        text += f" stride {'x'.join(map(str, self.strides))}" if set(self.strides) != {1} else ""
        return text + (f" dilation {'x'.join(map(str, self.dilations))}" if set(self.dilations) != {1} else "")
