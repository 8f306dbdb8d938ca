"""The integer tensors of an int8 model, and the tensors of the float model that they stand for.

Looking must not change what runs.  An integer kernel writes the output of its QuantizeLinear, so that is what is made a
graph output; a float tensor in between would break the pattern that becomes the kernel.  The integers are dequantized
here.  A QuantizeLinear keeps the float tensor's name at its input.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.metrics import Fidelity
from fcdeploy.arithmetic.phases import TURNED
from fcdeploy.arithmetic.quantization import broadcast_along
from fcdeploy.arithmetic.sigmoid_forms import TABLE
from fcdeploy.arrays import Array
from fcdeploy.graph.nodes import (  # fmt: skip
    array_of,
    attribute_of,
    clip_bounds,
    integer_type_of,
    is_op,
    name_of,
    producer_of,
    tensors_of,
    walk_back,
    zero_point_of,
)

CLIPS = ("Relu", "Clip")
FUSED_INTO = {"QuantizeLinear", "Relu", "Clip", "Add", "Mul"}  # may become one kernel with what is before
INTEGERS = {ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.UINT16, ir.DataType.INT16}
UNCLIPPED = (-math.inf, math.inf)
TABLE_NAME = re.compile(rf"{TABLE}(_\d+)?$")  # with the number that makes it free
EIGHT_BITS_DB = 49.9  # a full-scale sine in 8 bits: 6.02 * 8 + 1.76; an input better than that counts as this


@dataclass(frozen=True)
class QuantizedTensor:
    """The output of one QuantizeLinear; or, with scale 1, a floating-point tensor that an integer kernel writes.

    `names` are what the float model may call the tensor, the likeliest first.  `node` and `op` are what computes it;
    `sources` the integer tensors (other taps) that it is computed from; `dtype` that of the integers, which are clipped to
    `ends` before they are read.
    """

    integers: str
    names: tuple[str, ...]
    node: str
    op: str
    sources: tuple[str, ...]
    scale: Array
    zero_point: Array
    axis: int | None
    dtype: str = "float32"
    ends: tuple[float, float] = UNCLIPPED

    def dequantize(self, integers: Array) -> Array:
        """scale * (integer - zero point), in float64."""
        zero_point = self.zero_point.astype(np.float64)
        return broadcast_along(self.scale, self.axis, integers.ndim) * (
            np.clip(integers.astype(np.float64), *self.ends) - broadcast_along(zero_point, self.axis, integers.ndim)
        )


@dataclass(frozen=True)
class TensorError:
    """SQNR of one tensor, of its worst quantized input (None where it has none), and the drop between them."""

    tensor: str
    node: str
    op: str
    sqnr_db: float
    fall_db: float | None
    source_db: float | None


def find_quantized_tensors(model: ir.Model) -> list[QuantizedTensor]:
    """Find the QuantizeLinears of activations in the main graph, then the floating-point ends of integer regions."""
    result = []
    for node in model.graph:
        if node.op_type != "QuantizeLinear" or array_of(node.inputs[0]) is not None:
            continue
        source, written = node.inputs[0], node.outputs[0]
        scale = array_of(node.inputs[1])
        zero_point = array_of(node.inputs[2]) if len(node.inputs) > 2 else None
        dtype = integer_type_of(node)
        if source is None or scale is None or dtype is None or dtype not in INTEGERS or "block_size" in node.attributes:
            continue
        if _is_picture(source):
            continue

        if name_of(source).endswith(TURNED):
            written = _follow_laid_out(written)
        ends, table = UNCLIPPED, _find_table_reading(node)
        if table is not None:
            scale, zero_point, ends = table
        made_by = find_producer(source)
        axis = attribute_of(node, "axis", 1) if scale.size > 1 else None
        result.append(
            QuantizedTensor(
                integers=name_of(written),
                names=_list_names(source, written, of_table=table is not None),
                node=name_of(made_by) if made_by else "",
                op=made_by.op_type if made_by else "input",
                sources=_find_sources(source),
                scale=scale if axis is not None else scale.reshape(()),
                zero_point=_fit_zero_point(zero_point, axis),
                axis=None if axis is None else axis % len(source.shape) if source.shape else axis,
                dtype=dtype.name.lower(),
                ends=ends,
            )
        )
    return result + _find_float_ends(model, {tap.integers for tap in result})


def match_tensors(
    quantized: Sequence[QuantizedTensor], int8: ir.Model, floats: Sequence[ir.Model]
) -> dict[str, tuple[int, str]]:
    """Find for each quantized tensor, by the name of its integers, the index into `floats` and the float tensor's name.

    A Relu or Clip that the int8 model left to the saturation of its bytes is put back: the tensor after it is taken.
    """
    here = {value.name for value in tensors_of(int8.graph)}
    tensors = [{value.name: value for value in tensors_of(model.graph)} for model in floats]
    result = {}
    for tensor in quantized:
        for name in tensor.names:
            which = next((index for index, known in enumerate(tensors) if name in known), None)
            if which is not None:
                result[tensor.integers] = (which, _name_after_clip(tensors[which][name], here))
                break
    return result


def expose_tensors(model: ir.Model, names: Iterable[str]) -> None:
    """Make these tensors graph outputs as well, in place."""
    known = {value.name: value for value in tensors_of(model.graph)}
    present = {value.name for value in model.graph.outputs} | {value.name for value in model.graph.inputs}
    for name in dict.fromkeys(names):
        if name in present:
            continue
        value = known[name]
        producer = value.producer()
        if value.type is None and producer is not None and producer.op_type == "QuantizeLinear":
            value.type = ir.TensorType(integer_type_of(producer) or ir.DataType.UINT8)
        model.graph.outputs.append(value)


def compute_layer_errors(
    quantized: Sequence[QuantizedTensor], tensors: Mapping[str, str], sums: Mapping[str, Fidelity]
) -> list[TensorError]:
    """SQNR of every tensor, worst first; `tensors` and `sums` are keyed by the name of the integers."""
    rows = []
    for tensor in quantized:
        if tensor.integers not in sums:
            continue
        own = sums[tensor.integers].sqnr_db
        before = [min(sums[name].sqnr_db, EIGHT_BITS_DB) for name in tensor.sources if name in sums]
        source = min(before) if before else None
        fall = None if source is None else source - min(own, EIGHT_BITS_DB)
        rows.append(TensorError(tensors[tensor.integers], tensor.node, tensor.op, own, fall, source))
    return sorted(rows, key=lambda row: row.sqnr_db)


def _find_float_ends(model: ir.Model, integers: set[str]) -> list[QuantizedTensor]:
    """Find floating-point outputs of integer regions that can be exposed without breaking a fusion pattern."""
    result = []
    for node in model.graph:
        readers = {reader.op_type for output in node.outputs for reader in output.consumers()}
        before = [value.producer() for value in node.inputs if value is not None]
        reads = any(maker is not None and maker.op_type == "DequantizeLinear" for maker in before)
        if not reads or len(node.outputs) != 1 or node.op_type == "QuantizeLinear" or readers & FUSED_INTO:
            continue
        value = node.outputs[0]
        sources = tuple(name for name in _find_sources(value) if name in integers)
        if sources and value.name:
            one, zero = np.ones((), np.float32), np.zeros((), np.int64)
            result.append(
                QuantizedTensor(value.name, (value.name,), name_of(node), node.op_type, sources, one, zero, None)
            )
    return result


def _fit_zero_point(zero_point: Array | None, axis: int | None) -> Array:
    if zero_point is None:
        return np.zeros((), np.int64)
    return zero_point if axis is not None else zero_point.reshape(())


def _is_picture(value: ir.Value) -> bool:
    """Whether these floats are the bytes of a picture, found again in an input: rounding them loses nothing."""
    node = value.producer()
    made_here = node is not None and node.op_type == "BatchNormalization" and node.inputs[0] is not None
    return made_here and node.inputs[0].is_graph_input()  # type: ignore[union-attr]


def _list_names(source: ir.Value, written: ir.Value, *, of_table: bool) -> tuple[str, ...]:
    """The name at the QuantizeLinear's input, then those its DequantizeLinears write (there, a graph output's own)."""
    readers = [node.outputs[0].name for node in written.consumers() if node.op_type == "DequantizeLinear"]
    name = (TABLE_NAME.sub("", name_of(source)) if of_table else name_of(source)).removesuffix(TURNED)
    return tuple(name for name in (name, *readers) if name)


def _follow_laid_out(written: ir.Value) -> ir.Value:
    """The bytes of a ConvTranspose laid out in space, from those of the convolution in its place."""
    for op in ("DepthToSpace", "Slice"):
        readers = list(written.consumers())
        if len(readers) == 1 and is_op(readers[0], op):
            written = readers[0].outputs[0]
    return written


def _find_table_reading(quantize: ir.Node) -> tuple[Array, Array | None, tuple[float, float]] | None:
    """By which scale and zero point bytes of a Sigmoid are read as those of another function, and the ends of the clip in front.

    See arithmetic/sigmoid_forms.py.  None for bytes that are read as they are written.
    """
    source, written, scale = quantize.inputs[0], quantize.outputs[0], array_of(quantize.inputs[1])
    if source is None or not is_op(source.producer(), "Sigmoid") or not TABLE_NAME.search(name_of(source)):
        return None
    written_by = (scale, zero_point_of(quantize))
    found, ends, waiting = None, UNCLIPPED, [written]
    for value in waiting:
        for node in value.consumers():
            if node.op_type == "Clip":
                ends = clip_bounds(node)
                waiting.append(node.outputs[0])
            elif node.op_type == "DequantizeLinear" and (read := array_of(node.inputs[1])) is not None:
                numbers = (read, zero_point_of(node))
                if all(map(_is_equal, numbers, written_by)):
                    return None
                found = found or numbers
    return None if found is None else (*found, ends)


def _is_equal(one: Array | None, other: Array | None) -> bool:
    """Whether two are the same constants; what is computed equals nothing."""
    return one is not None and other is not None and np.array_equal(one, other)


def find_producer(value: ir.Value) -> ir.Node | None:
    """The node that computes a tensor; a clip behind another node is part of it."""
    node = value.producer()
    while node is not None and node.op_type in CLIPS and node.inputs[0] is not None:
        before = producer_of(node.inputs[0])
        if before is None or before.op_type == "DequantizeLinear":
            break
        node = before
    return node


def _find_sources(value: ir.Value) -> tuple[str, ...]:
    """The integer tensors that a float tensor is computed from: back to the nearest QuantizeLinears."""
    before = walk_back([value], lambda node: () if node.op_type == "QuantizeLinear" else node.inputs)
    return tuple(name_of(node.outputs[0]) for node in before if node.op_type == "QuantizeLinear")


def _name_after_clip(value: ir.Value, here: set[str | None]) -> str:
    """The tensor's name, or that of the clip behind it when the int8 model has no such clip any more."""
    readers = list(value.consumers())
    if len(readers) == 1 and readers[0].op_type in CLIPS and not value.is_graph_output():
        clipped = readers[0].outputs[0].name
        if clipped and clipped not in here:
            return clipped
    return name_of(value)
