"""What a program's steps read and write: tensors, and what their bytes stand for."""

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
