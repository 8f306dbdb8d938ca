"""What arrays are called in signatures; which type and shape an array has, its docstring says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Arrays = dict[str, Array]
"""Arrays by the names of tensors."""


def make_texts(values: Sequence[str], shape: Sequence[int]) -> Array:
    """An array of text as onnxruntime takes it: of Python's strings, each as long as it is."""
    texts = np.empty(len(values), object)
    texts[:] = values
    return texts.reshape(shape)
