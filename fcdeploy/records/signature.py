"""What a model reads and writes: names, dtypes, shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TensorSpec:
    """A graph input or output: its name, NumPy dtype and shape, None for an axis of any length."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{', '.join('?' if n is None else str(n) for n in self.shape)}]"


def format_shape(shape: Sequence[int | None]) -> str:
    """A shape as NumPy writes it, with ? for an axis of any length."""
    axes = ["?" if n is None else str(n) for n in shape]
    return f"({axes[0]},)" if len(axes) == 1 else f"({', '.join(axes)})"
