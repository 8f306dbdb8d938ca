"""What a call of a kernel is made of: places in memory, constants among the weights, structs of numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fcdeploy.arithmetic.windows import Window
from fcdeploy.arrays import Array
from fcdeploy.errors import FcdeployError
from fcdeploy.native.placing.views import LOOPS, Buffer, View, nest_loops
from fcdeploy.native.placing.work import Placed
from fcdeploy.native.program.steps import KERNELS_HINT

ALIGNMENT = 64  # bytes, of each constant
SLACK = 64  # bytes behind the last constant: vectors may be read whole


@dataclass(frozen=True, eq=False)
class Address:
    """A place in the arena, or in an input or output of the caller's."""

    buffer: Buffer
    offset: int
    ctype: str


@dataclass(frozen=True)
class WeightAddress:
    """A place among the weights."""

    offset: int
    ctype: str


@dataclass(frozen=True)
class Struct:
    """A struct of numbers; nested ones are mappings."""

    ctype: str
    fields: dict[str, Any]


Argument = Address | WeightAddress | Struct | int | float | None


@dataclass(frozen=True, eq=False)
class KernelCall:
    """One call of a kernel; `what` is its comment, `macs` what it multiplies.

    `parts` are calls, of the kernels that it calls itself, which do the same where nothing is done in registers.
    """

    node: str
    what: str
    header: str
    kernel: str
    arguments: tuple[Argument, ...]
    macs: int = 0
    parts: tuple[KernelCall, ...] = ()


class Weights:
    """All constants in one piece; equal ones are stored once. `paired`: with those that kernels for AVX2 alone read."""

    def __init__(self, *, paired: bool = False) -> None:
        self.paired = paired
        self._parts: list[bytes] = []
        self._known: dict[tuple[bytes, object], int] = {}
        self.nbytes = 0

    def add(self, array: Array, ctype: str, shape: object = None) -> WeightAddress:
        """Where it is stored; apart from equal bytes of another `shape`, which other cores want in another order."""
        data = np.ascontiguousarray(array).tobytes()
        if (data, shape) not in self._known:
            gap = -self.nbytes % ALIGNMENT
            self._parts += [bytes(gap), data]
            self._known[data, shape] = self.nbytes + gap
            self.nbytes += gap + len(data)
        return WeightAddress(self._known[data, shape], ctype)

    @property
    def data(self) -> bytes:
        return b"".join([*self._parts, bytes(SLACK)])


C_TYPES = {
    "uint8": "uint8_t",
    "int8": "int8_t",
    "float32": "float",
    "int32": "int32_t",
    "int64": "int64_t",
    "bool": "uint8_t",
}


def make_address(view: View, weights: Weights, ctype: str = "") -> Address | WeightAddress:
    ctype = ctype or C_TYPES[view.array.dtype.name]
    if view.buffer.where == "constant":
        assert view.buffer.data is not None
        whole = weights.add(view.buffer.data, ctype)
        return replace(whole, offset=whole.offset + view.offset)
    return Address(view.buffer, view.offset, ctype)


def make_code(step: Any, zero: int) -> dict[str, int]:
    return {"zero": zero, "low": step.low, "high": step.high}


def make_loop(*views: View, node: str, keep: int | None = None) -> tuple[Struct, int]:
    """`struct fc_loop` over an output and one or two inputs, and which of its loops is axis `keep`."""
    lengths, strides, kept = nest_loops(views, keep)
    if len(lengths) > LOOPS:
        raise FcdeployError(
            f"node {node!r} walks over {len(lengths)} axes that do not lie side by side, expected {LOOPS} at most",
            KERNELS_HINT,
        )
    missing = LOOPS - len(lengths)
    names = ("y", "a", "b")[: len(views)]
    fields = {"count": [1] * missing + lengths}
    fields |= {name: [0] * missing + each for name, each in zip(names, strides, strict=True)}
    return Struct("struct fc_loop", fields), kept + missing


@dataclass(frozen=True)
class Image:
    """Lengths and strides of a view as an image: (images, channels, rows, columns), in elements."""

    images: int
    channels: int
    rows: int
    columns: int
    image: int
    row: int
    column: int


def make_image(view: View) -> Image:
    """Of 3 axes (a signal) the rows are one; of 2 axes (dense) the columns are one."""
    array, (n, c, *space) = view.array, view.array.shape
    assert len(space) in (0, 1, 2), array.shape
    rows, columns = (1, *space) if len(space) == 1 else space if space else (1, 1)
    # as they are, also along axes of length 1: windows step into the border there
    strides = [stride // array.itemsize for stride in array.strides]
    row, column = (0, strides[2]) if len(space) == 1 else strides[2:] if space else (0, 0)
    return Image(n, c, rows, columns, strides[0], row, column)


def make_two_axes(window: Window) -> Window:
    """The window of a signal as that of an image of one row."""
    if len(window.kernel) == 2:
        return window
    return Window(
        (1, *window.kernel), (1, *window.strides), (0, *window.begins), (0, *window.ends), (1, *window.dilations)
    )


def make_positions(source: Image, target: Image, window: Window) -> dict[str, int]:
    """Output positions and the distances between them."""
    return {
        "images": target.images, "rows": target.rows, "columns": target.columns,
        "x_image": source.image, "x_row": window.strides[0] * source.row, "x_column": window.strides[1] * source.column,
        "y_image": target.image, "y_row": target.row, "y_column": target.column,
    }  # fmt: skip


def make_taps(source: Image, window: Window) -> dict[str, int]:
    """A window that ends where the input does: its taps, and what they are compared with."""
    return {
        "taps_y": window.kernel[0], "taps_x": window.kernel[1], "step_y": window.strides[0], "step_x": window.strides[1],
        "gap_y": window.dilations[0], "gap_x": window.dilations[1], "before_y": window.begins[0],
        "before_x": window.begins[1], "x_rows": source.rows, "x_columns": source.columns,
    }  # fmt: skip


def make_call(work: Placed, header: str, kernel: str, *arguments: Argument) -> KernelCall:
    """The call of a step's kernel."""
    return KernelCall(work.step.node, work.step.what(), header, kernel, arguments, work.step.macs)
