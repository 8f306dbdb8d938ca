"""Steps that multiply what they read with weights, or two tensors with each other."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arithmetic.windows import Window
from fcdeploy.arrays import Array
from fcdeploy.native.program.steps import Combine, Ends, Step
from fcdeploy.native.program.tensors import Floats, Tensor

CMSIS_BLOCK = 128  # channels at most that its depthwise kernels for Helium take at once: 124 in version 4 and later


def split_weights(weight: Array) -> list[Array]:
    """Integers of any size as a sum of some of 8 bits."""
    parts, rest = list[Array](), weight
    while rest.any() or not parts:
        parts.append(np.clip(rest, -128, 127).astype(np.int8))
        rest = rest - parts[-1]
    return parts


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer(Ends):
    """A convolution or dense layer on bytes: sums of products in 32 bits, scaled once.

    `weight` (out, in / groups, *kernel), or (out, in) of a dense layer without `window`, zero point subtracted; `bias`
    holds all that is added to the sum of byte * weight: the layer's own bias and -zero point * the sum of the weights.
    With a coding of the output: round(float32(sum) * factor) + zero point.  Without one: float32(sum) * factor,
    + `real_bias` where there is one.
    """

    weight: Array
    bias: NDArray[np.int32]
    factor: Floats
    real_bias: Floats | None = None
    window: Window | None = None
    groups: int = 1

    @property
    def depthwise(self) -> bool:
        return self.window is not None and self.weight.shape[1] == 1 and self.groups == len(self.weight) > 1

    @property
    def macs(self) -> int:
        return int(self.weight.size) * (self.output.size // len(self.weight))

    def what(self) -> str:
        if self.window is None:
            return f"dense {self.weight.shape[1]} -> {len(self.weight)}"
        kind = (
            "depthwise"
            if self.depthwise
            else f"convolution in {self.groups} groups"
            if self.groups > 1
            else "convolution"
        )
        return f"{kind} {self.window}, {self.weight.shape[1] * self.groups} -> {len(self.weight)}"


@dataclass(frozen=True, eq=False, kw_only=True)
class IntegerLayer(Layer):
    """A layer that CMSIS-NN computes: sums are scaled to floor(sum * multiplier / 2^(31 - shift) + 1/2)."""

    multiplier: NDArray[np.int32]
    shift: NDArray[np.int32]

    @property
    def scratch_bytes(self) -> int:
        """The most that its kernels ask for: four windows of bytes or two of 16 bits, or the taps of a block of channels."""
        window = int(self.weight[0].size)
        return 4 * (window + 16) + (window * max(2 * len(self.weight), 4 * CMSIS_BLOCK) if self.depthwise else 0)

    def what(self) -> str:
        return f"{super().what()} by CMSIS-NN"


@dataclass(frozen=True, eq=False, kw_only=True)
class CombinedLayer(Layer):
    """A layer, and behind it the sum or product of its bytes and the second input, which has their shape.

    `between` are the layer's own bytes, which `low` and `high` are the ends of, and `combine` is the step that reads them.
    """

    between: Tensor
    combine: Combine

    @property
    def layer(self) -> Layer:
        """The layer alone."""
        own = {each.name: getattr(self, each.name) for each in fields(Layer)}
        return Layer(**own | {"inputs": self.inputs[:1], "outputs": (self.between,)})

    def what(self) -> str:
        return f"{super().what()}, {self.combine.what()}"


@dataclass(frozen=True, eq=False, kw_only=True)
class FloatLayer(Step):
    """A convolution or dense layer on floats; sums are added up in the order of the weights, kernel position first."""

    weight: Floats
    bias: Floats
    window: Window | None = None
    groups: int = 1

    @property
    def computes_in_float(self) -> bool:
        return True

    @property
    def macs(self) -> int:
        return int(self.weight.size) * (self.output.size // len(self.weight))

    def what(self) -> str:
        shape = f"dense {self.weight.shape[1]}" if self.window is None else f"convolution {self.window}"
        return f"float {shape} -> {len(self.weight)}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Product(Ends):
    """Matrix products of two tensors (..., m, k) and (..., k, n), the axes in front broadcast: of bytes the exact sum of
    (a - its zero point) * (b - its zero point), scaled once by `factor`, or of floats."""

    factor: np.float32 = field(default_factory=lambda: np.float32(1))

    @property
    def computes_in_float(self) -> bool:
        return self.inputs[0].dtype == "float32"

    @property
    def macs(self) -> int:
        return self.output.size * self.inputs[0].shape[-1]

    def what(self) -> str:
        length, outs = self.inputs[1].shape[-2:]
        return f"{'' if self.inputs[0].dtype == 'uint8' else 'float '}product {length} -> {outs}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Recurrent(Step):
    """An LSTM or GRU in one direction: gates (times, batch, gates x units) from the inputs, and states to start from, in;
    all states (times, batch, units) and the last one out, of an LSTM the last cells too.  Gates are in ONNX's order.

    `weight` (gates x units, units): floats, or int8 with a `scale` for each row.  `reset_last`: a GRU multiplies by its
    reset gate behind the product.
    """

    kind: Literal["lstm", "gru"]
    weight: Array
    scale: Floats | None
    bias: Floats
    backwards: bool = False
    reset_last: bool = False

    @property
    def computes_in_float(self) -> bool:
        return True

    @property
    def macs(self) -> int:
        return int(self.weight.size) * self.output.shape[0] * self.output.shape[1]

    @property
    def scratch_bytes(self) -> int:
        """Three digits of each state, in whole fours."""
        return 0 if self.scale is None else 3 * (-(-self.weight.shape[1] // 4) * 4)

    def what(self) -> str:
        return f"float {self.kind} of {self.weight.shape[1]}" + (", backwards" if self.backwards else "")
