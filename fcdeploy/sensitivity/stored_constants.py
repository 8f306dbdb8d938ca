"""Constants that a quantized model stores as integers: what they stand for, and the floats they were made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.metrics import measure_fidelity
from fcdeploy.arithmetic.pixels import Pixels, scale_weight_for_bytes
from fcdeploy.arithmetic.quantization import broadcast_along, round_to_integers
from fcdeploy.arrays import Array
from fcdeploy.graph.nodes import array_of, attribute_of, integer_type_of, name_of, operator_of, output_axis, producer_of

MARKS = ("/q", "_quantized")  # behind a constant's name: fcdeploy's and onnxruntime's own
LIKE_DB = 6.0  # of weights rounded to a few bits against their original; another tensor's are about 0
SAME_DB = 25.0  # of other constants: what is below was rescaled, and nothing tells by how much
FITS_BETTER_DB = 3.0  # than weights as they are; a fit to nothing but rounding gains less
BETWEEN = ("QuantizeLinear", "DequantizeLinear", "Pad")  # an input and the layer that reads its bytes
ROUNDS = 20  # of the fit; it has converged to float32 long before


@dataclass(frozen=True)
class Original:
    """Weights as they were before rounding.

    `layer` is the node of the float model that has them; None where they were found by name alone, or had to be rescaled.
    """

    weight: Array
    layer: ir.Node | None


def find_integers(value: ir.Value | None) -> ir.Value | None:
    """The constant behind what is read back from it: integers, or floats that the graph rounds itself; else None.

    Read back by a DequantizeLinear, or, where the layer computes in float, by a Cast and a Mul.
    """
    node = producer_of(value)
    if node is None or not node.inputs:
        return None
    if node.op_type == "Mul":
        if array_of(node.inputs[1]) is None:
            return None
        node = producer_of(node.inputs[0])
        wanted = "Cast"
    else:
        wanted = "DequantizeLinear"
    if node is None or node.op_type != wanted:
        return None
    source = node.inputs[0]
    maker = producer_of(source)
    if maker is not None and maker.op_type == "QuantizeLinear" and wanted == "DequantizeLinear":
        source = maker.inputs[0]
    array = array_of(source)
    # a Cast and a Mul of anything else are no weight
    return source if array is not None and (wanted == "DequantizeLinear" or array.dtype.kind in "iu") else None


def dequantize_constant(value: ir.Value) -> Array:
    """Dequantize a constant for which `find_integers` finds integers, to float32."""
    node = value.producer()
    assert node is not None
    if node.op_type == "Mul":
        scale, cast = array_of(node.inputs[1]), producer_of(node.inputs[0])
        integers = array_of(cast.inputs[0])  # type: ignore[union-attr]
        assert scale is not None and integers is not None
        return np.asarray(integers.astype(np.float32) * scale, np.float32)
    scale, zero = _read_steps(node)
    integers = array_of(node.inputs[0])
    if integers is None:
        quantize = producer_of(node.inputs[0])
        real = array_of(quantize.inputs[0])  # type: ignore[union-attr]
        assert real is not None
        step, point = (_spread_steps(each, node, real) for each in (scale, zero))
        kind = integer_type_of(node)
        assert kind is not None, "a QuantizeLinear is in front of it"
        integers = round_to_integers(real, step, point, kind.name.lower())
    step, point = (_spread_steps(each, node, integers) for each in (scale, zero))
    return np.asarray((integers.astype(np.float64) - point) * step, np.float32)


def find_original(node: ir.Node, value: ir.Value, floats: Sequence[ir.Model]) -> Original | None:
    """Find the floats that a layer's constant was quantized from; None where no model has anything like it.

    `value` is the input of `node`.  Looked for in the node of the same name and operator, then by the constant's name.
    Channels that were added for the kernel are added here; weights on the bytes of a picture are put on these.
    """
    stored = find_integers(value)
    assert stored is not None
    array = array_of(stored)
    if array is not None and array.dtype.kind == "f":
        return Original(np.asarray(array), None)
    rounded, index, grid = dequantize_constant(value), list(node.inputs).index(value), _find_grid(node)
    for layer, candidate in _find_candidates(node, index, name_of(stored), floats):
        real = _widen(candidate, rounded, grid)
        if real is None:
            continue
        plain = measure_fidelity(real, rounded).sqnr_db
        if layer is not None and index == operator_of(node).weight:
            rescaled = _rescale(real, rounded, output_axis(layer))
            fitted = measure_fidelity(rescaled, rounded).sqnr_db
            if fitted >= max(LIKE_DB, plain + FITS_BETTER_DB):
                return Original(rescaled.astype(np.float32), None)
        elif layer is not None and plain < SAME_DB:
            continue
        if plain >= LIKE_DB:
            return Original(real.astype(np.float32), layer)
    return None


def read_grid(value: ir.Value | None) -> Pixels:
    """(step, lowest) of each channel of an input of the graph, where `value` is its bytes found again; else empty.

    They are found by a BatchNormalization that does nothing else, (x - lowest) / step.
    """
    node = producer_of(value)
    if node is None or node.op_type != "BatchNormalization" or node.inputs[0] is None:
        return ()
    rows = [np.asarray(row, np.float64) for each in node.inputs[1:] if (row := array_of(each)) is not None]
    alike = len(rows) == 4 and {row.shape for row in rows} == {(rows[0].size,)}
    if not alike or not node.inputs[0].is_graph_input() or attribute_of(node, "epsilon", 1e-5):
        return ()
    faster, offset, lowest, variance = rows
    if offset.any() or (variance != 1).any() or not (faster > 0).all():
        return ()
    return tuple(zip((1 / faster).tolist(), lowest.tolist(), strict=True))


def strip_marks(stored: ir.Value) -> str:
    """Strip quantizers' suffixes from a constant's name."""
    name = name_of(stored)
    for mark in MARKS:
        name = name.removesuffix(mark)
    return name


def _find_candidates(
    node: ir.Node, index: int, name: str, floats: Sequence[ir.Model]
) -> list[tuple[ir.Node | None, Array]]:
    candidates: list[tuple[ir.Node | None, Array]] = []
    for model in floats:
        layer = next(
            (other for other in model.graph if other.name == node.name and other.op_type == node.op_type), None
        )
        if layer is not None and index < len(layer.inputs):
            array = array_of(layer.inputs[index])
            candidates += [] if array is None else [(layer, array)]
        for mark in MARKS:
            value = model.graph.initializers.get(name.removesuffix(mark)) if name.endswith(mark) else None
            array = array_of(value)
            candidates += [] if array is None else [(None, array)]
    return candidates


def _find_grid(node: ir.Node) -> Pixels:
    """The grid of the picture whose bytes a layer reads, behind what only moves or converts them; empty where it reads none."""
    value = node.inputs[0]
    while value is not None and (before := value.producer()) is not None and before.op_type in BETWEEN:
        value = before.inputs[0]
    return read_grid(value)


def _widen(real: Array, rounded: Array, grid: Pixels) -> Array | None:
    """With the input channels that were added, zeros but for a picture's; None where the shapes differ otherwise."""
    if real.ndim != rounded.ndim:
        return None
    more = [wanted - length for wanted, length in zip(rounded.shape, real.shape, strict=True)]
    if any(more[:1] + more[2:]) or (len(more) > 1 and more[1] < 0):
        return None
    if len(more) > 1 and more[1]:
        if len(grid) == real.shape[1]:
            return scale_weight_for_bytes(real, grid, rounded.shape[1])
        if rounded[:, real.shape[1] :].any():  # they carry something that is not known
            return None
    return np.pad(real, [(0, each) for each in more])


def _rescale(real: Array, rounded: Array, axis: int) -> Array:
    """Real weights with every channel scaled, by a[o] b[i]: least squares, in turns.

    Channels may have been smoothed when the model was quantized; rounding averages out over the weights of a channel.
    """
    if real.ndim < 2:
        return real
    moved = [np.moveaxis(each.astype(np.float64), axis, 0) for each in (real, rounded)]
    f, q = (each.reshape(*each.shape[:2], -1) for each in moved)  # (out, in, kernel)
    a, b = np.ones((f.shape[0], 1, 1)), np.ones((1, f.shape[1], 1))
    for _ in range(ROUNDS):
        a = _compute_ratio(q, f * b, (1, 2))
        b = _compute_ratio(q, f * a, (0, 2))
    return np.moveaxis((f * a * b).reshape(moved[0].shape), 0, axis)


def _compute_ratio(q: Array, f: Array, axes: tuple[int, int]) -> Array:
    """sum q f / sum f^2; 1 where there is nothing."""
    below = (f * f).sum(axis=axes, keepdims=True)
    above = (q * f).sum(axis=axes, keepdims=True)
    return np.asarray(np.divide(above, below, out=np.ones_like(below), where=below > 0))


def _read_steps(node: ir.Node) -> tuple[Array, Array]:
    scale = array_of(node.inputs[1])
    zero = array_of(node.inputs[2]) if len(node.inputs) > 2 else None
    assert scale is not None
    return scale.astype(np.float64), np.zeros((), np.uint8) if zero is None else zero


def _spread_steps(steps: Array, node: ir.Node, array: Array) -> Array:
    """Scales or zero points along the axis, or in blocks of it, that they belong to."""
    if steps.size == 1:
        return steps.reshape(())
    axis = attribute_of(node, "axis", 1) % array.ndim
    block = attribute_of(node, "block_size", 0)
    if block:
        return np.repeat(steps, block, axis=axis)[tuple(slice(n) for n in array.shape)]
    return broadcast_along(steps, axis, array.ndim)
