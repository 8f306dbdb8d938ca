"""The windows that convolutions and pools move over their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Window:
    """The geometry of a convolution or pool; every list has one number for each axis of space."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    dilations: tuple[int, ...]

    @property
    def pads(self) -> tuple[int, ...]:
        """As ONNX has them: all begins, then all ends."""
        return (*self.begins, *self.ends)

    @property
    def reach(self) -> tuple[int, ...]:
        """How many positions a window covers, gaps included."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    def outputs(self, space: Sequence[int]) -> tuple[int, ...]:
        """Output lengths for input lengths; ONNX's formula, rounded down."""
        each = zip(space, self.reach, self.strides, self.begins, self.ends, strict=True)
        return tuple((n + b + e - r) // s + 1 for n, r, s, b, e in each)

    def round_up(self, space: Sequence[int]) -> Window:
        """With the ends that give as many outputs as `ceil_mode` does: a window more, if it begins inside or before the input."""
        ends = []
        for n, r, s, b, e in zip(space, self.reach, self.strides, self.begins, self.ends, strict=True):
            count = -(-(n + b + e - r) // s) + 1
            count -= (count - 1) * s >= n + b
            ends.append(max(e, (count - 1) * s + r - n - b))
        return replace(self, ends=tuple(ends))

    def __str__(self) -> str:
        text = "x".join(map(str, self.kernel))
        text += f" stride {'x'.join(map(str, self.strides))}" if set(self.strides) != {1} else ""
        return text + (f" dilation {'x'.join(map(str, self.dilations))}" if set(self.dilations) != {1} else "")


def compute_same_pads(
    space: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], *, upper: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Begins and ends that SAME_UPPER or SAME_LOWER stands for: as many outputs as inputs / stride, rounded up."""
    lengths = zip(space, kernel, strides, dilations, strict=True)
    total = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in lengths]
    less, more = tuple(n // 2 for n in total), tuple(n - n // 2 for n in total)
    return (less, more) if upper else (more, less)
