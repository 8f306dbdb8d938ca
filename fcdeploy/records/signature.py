"""What a model reads and writes: names, dtypes, shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def is_shape_alike(one: Sequence[int | None], other: Sequence[int | None]) -> bool:
    """Whether two shapes have as many axes, each of one length as far as both say: None is any."""
    return len(one) == len(other) and all(None in pair or pair[0] == pair[1] for pair in zip(one, other, strict=True))


@dataclass(frozen=True)
class TensorSpec:
    """A graph input or output: its name, NumPy dtype and shape, None for an axis of any length.

    Of an input `sample_axis` is the axis along which a run stacks samples, None where it takes one as it is; `alone`
    where a run takes one sample whatever the axis (`samples/layout.py`); `state` the output whose value it takes in the next
    run of a stream, empty for an input that data hold; `missing` whether NaN stands for a number that is not known, which
    the model fills in.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...]
    sample_axis: int | None = 0
    alone: bool = False
    state: str = ""
    missing: bool = False

    @property
    def sample_shape(self) -> tuple[int | None, ...]:
        """The shape of one sample."""
        if self.sample_axis is None:
            return self.shape
        return (*self.shape[: self.sample_axis], *self.shape[self.sample_axis + 1 :])

    def accepts(self, shape: Sequence[int]) -> bool:
        """Whether an array of this shape fits; where the file leaves the shape out, which reads as (), any may."""
        return (not self.shape or is_shape_alike(self.shape, shape)) and all(n >= 1 for n in shape)

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}{format_axes(self.shape)}"


def format_axes(shape: Sequence[int | None]) -> str:
    """A shape as it is declared: [?, 3, 32, 32], with ? for an axis of any length."""
    return f"[{', '.join('?' if n is None else str(n) for n in shape)}]"


def format_shape(shape: Sequence[int | str | None]) -> str:
    """A shape as NumPy writes it, with ? for an axis of any length."""
    axes = ["?" if n is None else str(n) for n in shape]
    return f"({axes[0]},)" if len(axes) == 1 else f"({', '.join(axes)})"
