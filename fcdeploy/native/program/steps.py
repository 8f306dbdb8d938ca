"""The integer program of a quantized network: steps, tensors and every number they need. It knows no C and no memory.

Bytes are unsigned from here on: codes of int8 activations are raised by 128, and so is their zero point, which leaves the
real numbers as they are.  Shapes are those of ONNX (channels second) for one sample; where a tensor lies, and in which
order, is decided later (`layout.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arithmetic.windows import Window
from fcdeploy.arrays import Array
from fcdeploy.native.program.tensors import CODES, Bytes, Floats, Tensor

KERNELS_HINT = "onnxruntime runs it; what has a kernel is listed in the documentation under Native code"


@dataclass(frozen=True, eq=False, kw_only=True)
class Step:
    """One operation; `node` is the node of the model that it comes from."""

    node: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def output(self) -> Tensor:
        return self.outputs[0]

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one sample."""
        return 0

    @property
    def scratch_bytes(self) -> int:
        """Memory that its kernel needs while it runs."""
        return 0

    @property
    def computes_in_float(self) -> bool:
        """Whether it rounds sums or products of floats; what picks elements, or rounds integers once, does not."""
        return False

    def what(self) -> str:
        """The operation in words, without its tensors."""
        return type(self).__name__.lower()


@dataclass(frozen=True, eq=False, kw_only=True)
class Ends(Step):
    """A step with ends: the lowest and the highest byte that a step writes: what a Relu or Clip behind it leaves."""

    low: int = 0
    high: int = CODES - 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Combine(Ends):
    """Two tensors of bytes added or multiplied, element by element, as real numbers in float32, then encoded."""

    kind: Literal["add", "mul"]

    def what(self) -> str:
        return self.kind


@dataclass(frozen=True, eq=False, kw_only=True)
class LookupTable(Step):
    """Each byte replaced by what a table holds for it: uint8 (256,), or (channels, 256) along axis 1."""

    table: Bytes

    def what(self) -> str:
        return "table" if self.table.ndim == 1 else f"{len(self.table)} tables"


@dataclass(frozen=True, eq=False, kw_only=True)
class Lookup(Step):
    """Each byte replaced by a real number: float32 (256,), or (channels, 256) along axis 1."""

    table: Floats

    def what(self) -> str:
        return "bytes to floats"


@dataclass(frozen=True, eq=False, kw_only=True)
class Quantize(Ends):
    """Floats to bytes by the coding of the output; first x * gain + shift, one each a channel, where they are given."""

    gain: Floats | None = None
    shift: Floats | None = None

    @property
    def computes_in_float(self) -> bool:
        return self.gain is not None

    def what(self) -> str:
        return "floats to bytes"


@dataclass(frozen=True, eq=False, kw_only=True)
class Pool(Ends):
    """The mean or the largest element of each window, of bytes or of floats; padding never counts but with `padded`."""

    kind: Literal["average", "max"]
    window: Window
    padded: bool = False

    @property
    def computes_in_float(self) -> bool:
        return self.kind == "average" and self.output.dtype == "float32"

    def what(self) -> str:
        return f"{self.kind} of {self.window}"


@dataclass(frozen=True, eq=False, kw_only=True)
class GlobalAverage(Ends):
    """The mean over all axes behind the second; of bytes the exact sum, scaled once by `factor`."""

    factor: np.float32 = field(default_factory=lambda: np.float32(1))

    def what(self) -> str:
        return "global average"


@dataclass(frozen=True, eq=False, kw_only=True)
class Softmax(Ends):
    """exp(x - largest) / sum along `axis`; of bytes the exponentials come from a table of 256 floats."""

    axis: int
    table: Floats | None = None

    @property
    def computes_in_float(self) -> bool:
        return self.table is None

    def what(self) -> str:
        return f"softmax along {self.axis}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Move(Step):
    """Elements of the inputs in other places.

    `kind` and `arguments` are those of NumPy: reshape (no arguments: the output's shape), transpose (perm), slice (start
    and step of each axis), concat (axis), pad (begin and end of each axis; what is outside is `fill`), take (axis; held
    indices in `index`), and expand.
    """

    kind: Literal["reshape", "transpose", "slice", "concat", "pad", "take", "expand"]
    arguments: tuple[tuple[int, ...], ...] = ()
    fill: float = 0
    index: Array | None = None

    def what(self) -> str:
        return self.kind


@dataclass(frozen=True, eq=False, kw_only=True)
class Pointwise(Step):
    """An operation on floats, element by element: one of `functions.UNARY` or `functions.BINARY`, with its numbers."""

    kind: str
    numbers: tuple[float, ...] = ()

    @property
    def computes_in_float(self) -> bool:
        return True

    def what(self) -> str:
        return f"float {self.kind}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Select(Step):
    """Of each pair of elements (second and third input) the first where the byte of the first input is not 0."""

    def what(self) -> str:
        return "one of two"


@dataclass(frozen=True, eq=False, kw_only=True)
class Place(Step):
    """The index, int64, of the largest or smallest element along an axis; of equal ones the first, or the `last`."""

    kind: Literal["max", "min"]
    axis: int
    last: bool = False

    def what(self) -> str:
        return f"place of the {self.kind} along {self.axis}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Convert(Step):
    """Numbers as those of the output's type: of floats what lies in front of the point, the nearest that is in range."""

    def what(self) -> str:
        return f"{self.inputs[0].dtype} to {self.output.dtype}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Order(Step):
    """The largest or smallest elements along an axis, in their order, of equal ones the first first, and their int64 places."""

    kind: Literal["largest", "smallest"]
    axis: int

    @property
    def count(self) -> int:
        return self.output.shape[self.axis]

    def what(self) -> str:
        return f"{self.count} {self.kind} along {self.axis}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Reduce(Step):
    """The mean, sum, largest or smallest float along axes, which are kept with length 1."""

    kind: Literal["mean", "sum", "max", "min"]
    axes: tuple[int, ...]

    @property
    def computes_in_float(self) -> bool:
        return True

    def what(self) -> str:
        return f"float {self.kind} along {', '.join(map(str, self.axes))}"


@dataclass(frozen=True, eq=False)
class Line:
    """One axis of an interpolation: each output lies `part` of the way from element `first` to element `second`."""

    first: NDArray[np.int32]
    second: NDArray[np.int32]
    part: Floats


@dataclass(frozen=True, eq=False, kw_only=True)
class Interpolate(Ends):
    """Elements between others along the last axes, of bytes or of floats; in float32, columns before rows."""

    lines: tuple[Line, ...]

    @property
    def computes_in_float(self) -> bool:
        return self.output.dtype == "float32"

    def what(self) -> str:
        return "interpolation" if self.output.dtype == "uint8" else "float interpolation"


@dataclass(frozen=True, eq=False, kw_only=True)
class Normalize(Step):
    """Rows of `length` floats, less their mean, over the root of their variance + epsilon, times gain, plus shift."""

    length: int
    gain: Floats
    shift: Floats
    epsilon: np.float32

    @property
    def computes_in_float(self) -> bool:
        return True

    def what(self) -> str:
        return f"float normalization of {self.length}"


@dataclass(frozen=True)
class Program:
    """A network: its inputs, steps in the order in which they run, and outputs; `model` is the sha256 of its file."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    steps: tuple[Step, ...]
    model: str = ""

    @property
    def macs(self) -> int:
        return sum(step.macs for step in self.steps)

    def __str__(self) -> str:
        lines = [f"program {self.name}", *(f"  input  {tensor}" for tensor in self.inputs)]
        for number, step in enumerate(self.steps):
            read = ", ".join(tensor.name for tensor in step.inputs)
            written = ", ".join(map(str, step.outputs))
            lines.append(f"  {number:3} {step.what()} ({read}) -> {written}")
        return "\n".join([*lines, *(f"  output {tensor}" for tensor in self.outputs)])
