"""Resize and Upsample: nearest neighbours are moved, and between two elements there is a straight line."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.graph.nodes import attribute_of, floats_of, name_of
from fcdeploy.native.program.steps import Interpolate, Line
from fcdeploy.native.program.tensors import Tensor
from fcdeploy.native.reading.moves import take_elements
from fcdeploy.native.reading.operands import Coded
from fcdeploy.native.reading.reader import Reader, name_output, read_shape


def resize(reader: Reader, node: ir.Node) -> None:
    shape = read_shape(reader.read(node.inputs[0]))
    scales, sizes = _resize_arguments(reader, node)
    rank = len(shape)
    out = tuple(sizes) if sizes else tuple(int(np.floor(n * s)) for n, s in zip(shape, scales, strict=True))
    ratios = scales or tuple(o / n for o, n in zip(out, shape, strict=True))
    mode, how = (
        attribute_of(node, "mode", "nearest"),
        attribute_of(node, "coordinate_transformation_mode", "half_pixel"),
    )
    rounding = attribute_of(node, "nearest_mode", "round_prefer_floor")
    if node.op_type == "Upsample":
        how, rounding = "asymmetric", "floor"
    if mode not in ("nearest", "linear") or len(out) != rank or attribute_of(node, "antialias", 0):
        raise reader.refuse(node, f"its mode is {mode!r}, expected 'nearest' or 'linear' without antialias")
    places = []
    for axis in range(rank):
        at = _find_places(np.arange(out[axis]), ratios[axis], shape[axis], out[axis], how)
        if at is None:
            raise reader.refuse(node, f"its coordinates are {how!r}")
        places.append(at)
    if mode == "linear":
        _read_linear(reader, node, places, shape, out)
        return
    value = reader.read(node.inputs[0])
    for axis in range(rank):
        if out[axis] == shape[axis]:
            continue
        if rounding not in ROUNDINGS:
            raise reader.refuse(node, f"it rounds {rounding!r}")
        at = np.clip(ROUNDINGS[rounding](places[axis]), 0, shape[axis] - 1).astype(np.int64)
        value = take_elements(reader, node, value, axis, at)
    reader.set(node.outputs[0], value)


def _read_linear(
    reader: Reader, node: ir.Node, places: list[Array], shape: tuple[int, ...], out: tuple[int, ...]
) -> None:
    """Along the axes behind the second; of bytes to bytes where a QuantizeLinear follows."""
    if out[:2] != shape[:2] or len(shape) not in (3, 4):
        raise reader.refuse(node, f"it makes {list(out)} of {list(shape)}: only one or two axes of space have a kernel")
    x, tensor = reader.read(node.inputs[0]), reader.get_bytes(node, 0)
    if (
        isinstance(x, Coded)
        and tensor is None
        and all(r.op_type == "DequantizeLinear" for r in node.outputs[0].consumers())
    ):
        raise reader.refuse(node, "it interpolates codes, which is not done in the runtime as it is in real numbers")
    lines = tuple(_make_line(at, n) for at, n in zip(places[2:], shape[2:], strict=True))
    sink = reader.find_sink(node) if tensor is not None else None
    source = tensor if tensor is not None and sink is not None else reader.make_floats(x)
    low, high = (0, 255) if sink is None else (sink.low, sink.high)
    to = Tensor(name_output(node), out, "float32" if sink is None else "uint8", None if sink is None else sink.coding)
    reader.add(Interpolate(node=name_of(node), inputs=(source,), outputs=(to,), lines=lines, low=low, high=high))
    reader.write(node, to)


def _make_line(at: Array, length: int) -> Line:
    """Between which two elements each output lies, and how far from the first."""
    at = np.clip(at, 0, length - 1).astype(np.float32)
    first = np.floor(at).astype(np.int32)
    return Line(first, np.minimum(first + 1, length - 1).astype(np.int32), (at - first).astype(np.float32))


def _resize_arguments(reader: Reader, node: ir.Node) -> tuple[tuple[float, ...], tuple[int, ...]]:
    if node.op_type == "Upsample":
        given = floats_of(node, "scales") or reader.get_constant(node, 1)
        return tuple(float(s) for s in (given if given is not None else ())), ()
    scales, sizes = reader.get_constant(node, 2), reader.get_constant(node, 3)
    if "axes" in node.attributes:
        raise reader.refuse(node, "it names axes")
    return (
        tuple(float(s) for s in scales.reshape(-1)) if scales is not None else (),
        tuple(int(n) for n in sizes.reshape(-1)) if sizes is not None else (),
    )


ROUNDINGS: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda p: np.ceil(p - np.float32(0.5)),
    "round_prefer_ceil": lambda p: np.floor(p + np.float32(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _find_places(at: Array, ratio: float, length: int, out: int, how: str) -> Array | None:
    """Where outputs lie among the inputs, by ONNX's formulas for Resize, in float32 as the runtime has them."""
    x = at.astype(np.float32)
    scale = np.float32(ratio)
    places = {
        "half_pixel": (x + np.float32(0.5)) / scale - np.float32(0.5),
        "asymmetric": x / scale,
        "align_corners": x * np.float32(length - 1) / np.float32(max(1, out - 1)),
        "pytorch_half_pixel": (x + np.float32(0.5)) / scale - np.float32(0.5) if out > 1 else np.zeros_like(x),
    }
    return places.get(how)
