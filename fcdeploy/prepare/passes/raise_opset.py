"""Models of operator sets before 13 are brought there: the first whose QuantizeLinear has a scale per channel.

ROWS has every operator that is written otherwise in operator set 13 than in an older one that onnxruntime still runs; all
others only gained types, attributes whose default is what they did before, or negative axes.  What an old operator means
is what onnxruntime computes for it.  (The converter of the `onnx` package leaves out how an old Upsample or Resize samples,
that Softmax and Hardmax once worked on all axes from theirs on, and the bodies of If, Loop and Scan.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.edit import set_attributes, set_input, set_operator
from fcdeploy.graph.model import name_everything
from fcdeploy.graph.nodes import STANDARD, array_of, attribute_of, describe, input_of, opset_of
from fcdeploy.graph.opset import LOWEST
from fcdeploy.prepare.passes.nest_batched_scan import nest_batched_scan
from fcdeploy.prepare.shape_inference import infer_shapes

LOWEST_IR = 7  # the IR version that came with operator set 12 and 13


def raise_opset(model: ir.Model) -> bool:
    """Convert the model in place when its operator set is too old; names of tensors stay. Return whether it was.

    Raises FcdeployError for a node that cannot be said in operator set 13.
    """
    before = opset_of(model)
    if before >= LOWEST:
        return False
    infer_shapes(model)
    for node in list(model.graph.all_nodes()):
        if node.domain not in STANDARD:
            continue
        was = node.op_type
        for op, until, convert in ROWS:
            if was == op and before < until:
                convert(node)
        node.attributes.pop("consumed_inputs", None)
        node.version = None
    for graph in model.graphs():
        graph.opset_imports[""] = LOWEST
    model.ir_version = max(model.ir_version, LOWEST_IR)
    name_everything(model.graph)
    return True


def _insert(
    node: ir.Node,
    op: str,
    inputs: list[ir.Value | None],
    attributes: dict[str, Any] | None = None,
    *,
    output: ir.Value | None = None,
    label: str = "",
) -> ir.Value:
    """A new node in front of `node`; its output is a new value named after what `node` writes unless it is given."""
    assert node.graph is not None
    name = f"{node.outputs[0].name}/{label or op}"
    result = output or ir.Value(name=name)
    node.graph.insert_before(node, ir.node(op, inputs, attributes or {}, outputs=[result], name=name))
    return result


def _constant(node: ir.Node, label: str, array: Any) -> ir.Value:
    """A constant in front of `node`: the pass that lifts constants follows."""
    value = _insert(node, "Constant", [], {"value": ir.tensor(np.asarray(array))}, label=label)
    value.type = ir.TensorType(ir.DataType.from_numpy(np.asarray(array).dtype))
    value.shape = ir.Shape(np.asarray(array).shape)
    return value


def _ints_to_input(node: ir.Node, *, key: str, index: int) -> None:
    """A list of integers, or one, that became an input."""
    attribute = node.attributes.pop(key, None)
    if attribute is not None:
        integers = np.atleast_1d(np.asarray(attribute.value, np.int64))
        set_input(node, index, _constant(node, key, integers))


def _number_to_input(node: ir.Node, *, key: str, index: int) -> None:
    """A number that became an input, of the type of the data."""
    attribute, data = node.attributes.pop(key, None), input_of(node, 0)
    if attribute is not None:
        dtype = data.dtype if data is not None and data.dtype is not None else ir.DataType.FLOAT
        set_input(node, index, _constant(node, key, np.asarray(attribute.value, dtype.numpy())))


def _flatten_around(node: ir.Node) -> None:
    """Softmax, LogSoftmax and Hardmax worked on all axes from theirs on, taken as one.

    Flatten, the same along the last axis, and the shape it had; where theirs is the last axis it is the same.
    """
    axis, data = attribute_of(node, "axis", 1), node.inputs[0]
    assert data is not None
    set_attributes(node, axis=-1)
    if axis == -1 or (data.shape is not None and axis == len(data.shape) - 1):
        return
    flat = _insert(node, "Flatten", [data], {"axis": axis})
    shape = _insert(node, "Shape", [data])
    shape.type = ir.TensorType(ir.DataType.INT64)
    node.replace_input_with(0, flat)
    _behind(node, "Reshape", [shape])


def _behind(node: ir.Node, op: str, inputs: list[ir.Value | None], attributes: dict[str, Any] | None = None) -> None:
    """Another node behind: it writes what `node` wrote, reading that and `inputs`."""
    assert node.graph is not None
    written = node.outputs[0]
    result = ir.Value(name=written.name, shape=written.shape, type=written.type)
    written.replace_all_uses_with(result, replace_graph_outputs=True)
    written.name = f"{result.name}/{node.op_type}"
    written.shape = None
    last = ir.node(op, [written, *inputs], attributes or {}, outputs=[result], name=f"{result.name}/{op}")
    node.graph.insert_after(node, last)


def _scatter(node: ir.Node) -> None:
    """The older name of ScatterElements."""
    node.op_type = "ScatterElements"


def _dropout(node: ir.Node) -> None:
    """The ratio meant nothing but in training; the mask had the type of the data before it became bool."""
    node.attributes.pop("ratio", None)
    node.attributes.pop("is_test", None)
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        raise _unsaid(node, "its mask is read")


def _resize(node: ir.Node) -> None:
    """Resize of operator set 10: coordinates are multiplied by the scale, without half a pixel's offset.

    The nearest element was the one before, or, along axes that shrink, the one after.
    """
    mode, scales = attribute_of(node, "mode", "nearest"), input_of(node, 1)
    if mode == "bilinear":  # an early name
        mode = "linear"
    known = array_of(scales)
    shrinks = known is not None and bool((known < 1).any())
    if mode == "nearest" and shrinks and known is not None and bool((known > 1).any()):
        raise _unsaid(node, "it enlarges one axis and shrinks another")  # one way to round for all axes
    if mode == "nearest" and known is None and node.op_type == "Resize":  # an Upsample only enlarges
        raise _unsaid(node, "its scales are computed at run time")
    set_operator(node, "Resize", "", [node.inputs[0], None, scales])
    set_attributes(node, mode=mode, coordinate_transformation_mode="asymmetric")
    if mode == "nearest":
        set_attributes(node, nearest_mode="ceil" if shrinks else "floor")


def _upsample(node: ir.Node) -> None:
    """Upsample: Resize of operator set 10, its scales an attribute up to set 8, for height and width alone in set 1."""
    attribute = node.attributes.pop("scales", None)
    height, width = (node.attributes.pop(f"{key}_scale", None) for key in ("height", "width"))
    scales = list(attribute.as_floats()) if attribute is not None else None
    if height is not None and width is not None:
        scales = [1.0, 1.0, height.as_float(), width.as_float()]
    if scales is not None:
        set_input(node, 1, _constant(node, "scales", np.asarray(scales, np.float32)))
    _resize(node)


def _batchnorm(node: ir.Node) -> None:
    """With spatial = 0 every element of a sample had a scale of its own: (x - mean) / sqrt(var + eps) * scale + bias."""
    if attribute_of(node, "spatial", 1):
        node.attributes.pop("spatial", None)
        return
    data, scale, bias, mean, variance = node.inputs[:5]
    epsilon = _constant(node, "epsilon", np.float32(attribute_of(node, "epsilon", 1e-5)))
    centred = _insert(node, "Sub", [data, mean], label="centred")
    spread = _insert(node, "Sqrt", [_insert(node, "Add", [variance, epsilon], label="variance")], label="spread")
    scaled = _insert(node, "Mul", [_insert(node, "Div", [centred, spread], label="normal"), scale], label="scaled")
    assert node.graph is not None
    written, graph = node.outputs[0], node.graph
    result = ir.Value(name=written.name, shape=written.shape, type=written.type)
    written.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.insert_before(node, ir.node("Add", [scaled, bias], outputs=[result], name=node.name))
    graph.remove(node, safe=True)


def _concat(node: ir.Node) -> None:
    """The axis was 1 unless given."""
    if "axis" not in node.attributes:
        set_attributes(node, axis=1)


def _unsaid(node: ir.Node, why: str) -> FcdeployError:
    return FcdeployError(
        f"{describe(node)} of an old operator set cannot be said in {LOWEST}: {why}",
        f"export the model again with operator set {LOWEST} or above",
    )


Convert = Callable[[ir.Node], None]
ROWS: tuple[tuple[str, int, Convert], ...] = (
    *((op, LOWEST, _flatten_around) for op in ("Softmax", "LogSoftmax", "Hardmax")),
    *((op, LOWEST, partial(_ints_to_input, key="axes", index=1)) for op in ("Squeeze", "Unsqueeze", "ReduceSum")),
    ("Split", LOWEST, partial(_ints_to_input, key="split", index=1)),
    ("Dropout", 12, _dropout),
    ("Clip", 11, partial(_number_to_input, key="min", index=1)),
    ("Clip", 11, partial(_number_to_input, key="max", index=2)),
    ("Pad", 11, partial(_ints_to_input, key="paddings", index=1)),
    ("Pad", 11, partial(_ints_to_input, key="pads", index=1)),
    ("Pad", 11, partial(_number_to_input, key="value", index=2)),
    ("Upsample", 10, _upsample),
    ("Resize", 11, _resize),
    *(("Slice", 10, partial(_ints_to_input, key=key, index=i)) for i, key in enumerate(("starts", "ends", "axes"), 1)),
    ("TopK", 10, partial(_ints_to_input, key="k", index=1)),
    ("BatchNormalization", 9, _batchnorm),
    ("Scan", 9, nest_batched_scan),
    ("Scatter", 11, _scatter),
    ("Reshape", 5, partial(_ints_to_input, key="shape", index=1)),
    ("Concat", 4, _concat),
)  # fmt: skip
"""Operator, the operator set that says it otherwise, and how a node of an older one is said there."""
