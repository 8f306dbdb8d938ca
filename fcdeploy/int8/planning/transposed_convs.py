"""A ConvTranspose as a convolution of more channels, which are laid out in space by a DepthToSpace.

onnxruntime has no integer kernel for a ConvTranspose, and the last bits of the float one differ between CPUs.  Both operators
in its place have byte kernels, so a file that is to give the same bytes everywhere (`Target.one_answer`) is made of them.
So is one for native code, which computes in bytes what lies between layers.  Elsewhere the ConvTranspose stays: in its place they
take 0.91 to 1.06 of the time in bytes and more in float.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.phases import TURNED, find_window, repeat_bias, turn_weight
from fcdeploy.arrays import Array
from fcdeploy.graph.edit import Edits, remove_dead
from fcdeploy.graph.nodes import array_of, attribute_of, input_of, is_op, name_of
from fcdeploy.graph.windows import read_phases
from fcdeploy.records.calibration import Calibration

ANY = (
    64  # a length of the input: strides and pads written out, how phases, pads and crops come out does not depend on it
)


def turn_transposed_convs(model: ir.Model, calibration: Calibration, kept: Container[str] = ()) -> Calibration:
    """Rewrite every ConvTranspose that can be, in place, but for nodes that are `kept`; the convolution has its name.

    Returned is the calibration with the range of what the convolution writes, which is that of what is laid out.
    """
    edits, records = Edits(model, "turn_transposed_convs"), dict(calibration.tensors)
    for node in edits.nodes("ConvTranspose"):
        weight, reader = array_of(input_of(node, 1)), edits.only_reader(node.outputs[0])
        last = reader if reader is not None and is_op(reader, "Relu", "Clip") else node
        record = records.get(name_of(last.outputs[0]))
        if weight is None or record is None or not _can_be_turned(node, weight):
            continue
        if name_of(node) in kept or name_of(last) in kept:
            continue
        turned = _turn(edits, node, last, weight)
        records[turned] = replace(
            record, name=turned, op="Conv", shape=(record.shape[0], None, None, None), moments=None
        )
    remove_dead(model.graph)
    return replace(calibration, tensors=records)


def _can_be_turned(node: ir.Node, weight: Array) -> bool:
    """Over two axes of space, by one stride, its pads written out and its bias a constant; groups are those of a Conv alone."""
    strides = set(attribute_of(node, "strides", (1, 1)))
    plain = attribute_of(node, "auto_pad", "NOTSET") == "NOTSET" and "output_shape" not in node.attributes
    constant = input_of(node, 2) is None or array_of(input_of(node, 2)) is not None
    laid_out = strides == {1} or (len(strides) == 1 and attribute_of(node, "group", 1) == 1)
    return weight.ndim == 4 and laid_out and plain and constant


def _turn(edits: Edits, node: ir.Node, last: ir.Node, weight: Array) -> str:
    """The convolution and the clip behind it, whose output is named, a DepthToSpace, and a Slice where that is longer."""
    space, groups = (ANY, ANY), attribute_of(node, "group", 1)
    axes, out = read_phases(node, space, weight.shape[2:])
    window, name, stride = find_window(axes, space), name_of(last.outputs[0]), axes[0].stride
    inputs = [node.inputs[0], edits.constant(f"{name_of(node.inputs[1])}{TURNED}", turn_weight(weight, axes, groups))]
    bias = array_of(input_of(node, 2))
    if bias is not None:
        inputs.append(edits.constant(f"{name_of(node.inputs[2])}{TURNED}", repeat_bias(bias, axes, groups)))
    attributes = {"pads": window.pads, "group": groups}
    value = edits.insert(last, "Conv", inputs, attributes, output=f"{name_of(node.outputs[0])}{TURNED}")
    conv = value.producer()
    assert conv is not None
    if last is not node:
        rest = {key: attribute.value for key, attribute in last.attributes.items()}
        value = edits.insert(last, last.op_type, [value, *last.inputs[1:]], rest, output=f"{name}{TURNED}")
    end = _lay_out(
        edits, last, value, [w - stride * n for w, n in zip(out, window.outputs(space), strict=True)], stride
    )
    if last is node:
        end.name = edits.free_name(f"{node.name}.space")
    else:
        edits.graph.remove(node, safe=True)
    conv.name = node.name
    if end.op_type == "Identity":
        edits.bypass(end, value)
    return name_of(value)


def _lay_out(edits: Edits, last: ir.Node, value: ir.Value, crops: Sequence[int], stride: int) -> ir.Node:
    """Phases side by side in space in the place of `last`, as many at the end left out as `crops` say (0, or less)."""
    laid = {"blocksize": stride, "mode": "DCR"}
    if not any(crops):
        return (
            edits.replace(last, "DepthToSpace", [value], laid)
            if stride > 1
            else edits.replace(last, "Identity", [value])
        )
    if stride > 1:
        value = edits.insert(last, "DepthToSpace", [value], laid, output=f"{name_of(last.outputs[0])}.whole")
    ends = [crop or np.iinfo(np.int64).max for crop in crops]
    ints = (np.array(each, np.int64) for each in ([0, 0], ends, [2, 3]))
    return edits.replace(last, "Slice", [value, *(edits.constant(f"{last.name}.crop", each) for each in ints)])
