"""Bytes as the real numbers they stand for, and integers as bytes."""

from __future__ import annotations

import numpy as np

from fcdeploy.arrays import Array
from fcdeploy.native.program.tensors import Floats, Tensor


def read_real(tensor: Tensor, value: Array) -> Floats:
    return tensor.coding.values[value] if tensor.coding is not None else value


def clip_codes(integers: Array, low: int, high: int) -> Array:
    return np.asarray(np.clip(integers, low, high), np.uint8)
