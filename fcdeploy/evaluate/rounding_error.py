"""Local rounding error of a tensor: its SQNR, the share of values clipped, the share of the range used.

That says where to look first, not what it costs: errors grow, cancel or vanish on their way to the output.
"""

from __future__ import annotations

from dataclasses import dataclass

from fcdeploy.arithmetic.metrics import Fidelity, measure_fidelity
from fcdeploy.arithmetic.quantization import LIMITS, broadcast_along, round_to_integers
from fcdeploy.arrays import Array
from fcdeploy.evaluate.quantized_tensors import QuantizedTensor


@dataclass(frozen=True)
class RoundingError:
    """Running sums over the values of a source before and after rounding; two of them add.

    `clipping` is the squared error of the values beyond the range, `outside` their number.  `lowest` to `highest` are
    the integers that were used of `levels`; weights have no range to clip to, and 0 levels.
    """

    sums: Fidelity
    clipping: float = 0.0
    outside: int = 0
    lowest: float = 0.0
    highest: float = 0.0
    levels: int = 0

    def __add__(self, other: RoundingError) -> RoundingError:
        return RoundingError(
            self.sums + other.sums,
            self.clipping + other.clipping,
            self.outside + other.outside,
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
            self.levels,
        )

    @property
    def sqnr_db(self) -> float:
        """SQNR of the rounding alone."""
        return self.sums.sqnr_db

    @property
    def clipped(self) -> float | None:
        """The share of values outside the range."""
        return self.outside / max(self.sums.count, 1) if self.levels else None

    @property
    def used(self) -> float | None:
        """The share of the range between the smallest and the largest integer there was."""
        return (self.highest - self.lowest) / self.levels if self.levels else None

    @property
    def by_clipping(self) -> float:
        """The share of the error that clipping makes."""
        return self.clipping / self.sums.noise if self.sums.noise > 0 else 0.0


def measure_rounding(tensor: QuantizedTensor, x: Array) -> RoundingError:
    """Quantize and dequantize a float tensor, and measure the error."""
    low, high = LIMITS[tensor.dtype]
    steps, point = (broadcast_along(each, tensor.axis, x.ndim) for each in (tensor.scale, tensor.zero_point))
    exact = x / steps + point
    integers = round_to_integers(x, steps, point, tensor.dtype)
    back = (integers - point) * steps
    outside = (exact < low - 0.5) | (exact > high + 0.5)
    clipping = float(((back - x)[outside] ** 2).sum())
    ends = (float(integers.min()), float(integers.max())) if integers.size else (0.0, 0.0)
    return RoundingError(measure_fidelity(x, back), clipping, int(outside.sum()), *ends, high - low)
