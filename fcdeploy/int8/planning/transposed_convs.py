"""A ConvTranspose as a convolution of more channels, which are laid out in space by a DepthToSpace.

onnxruntime has no integer kernel for a ConvTranspose, and the last bits of the float one differ between CPUs.  Both operators
in its place have byte kernels, so a file that is to give the same bytes everywhere (`Target.one_answer`) is made of them.
Where that is not asked for the ConvTranspose stays: in its place they take 0.91 to 1.06 of the time in bytes and more in float.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.phases import find_window, repeat_bias, turn_weight
from fcdeploy.arrays import Array
from fcdeploy.graph.edit import Edits, remove_dead
from fcdeploy.graph.nodes import array_of, attribute_of, input_of, is_op, name_of
from fcdeploy.graph.windows import read_phases
from fcdeploy.records.calibration import Calibration

ANY = 64  # a length of the input: what the phases and pads are does not depend on it


def turn_transposed_convs(model: ir.Model, calibration: Calibration) -> Calibration:
    """Rewrite every ConvTranspose that can be, in place; the calibration knows the range of what is laid out."""
    edits, records = Edits(model, "turn_transposed_convs"), dict(calibration.tensors)
    for node in edits.nodes("ConvTranspose"):
        weight, reader = array_of(input_of(node, 1)), edits.only_reader(node.outputs[0])
        last = reader if reader is not None and is_op(reader, "Relu", "Clip") else node
        record = records.get(name_of(last.outputs[0]))
        if weight is not None and record is not None and _can_be_turned(node, weight):
            turned = _turn(edits, node, last, weight)
            shape = (record.shape[0], len(weight[0]) * attribute_of(node, "strides", (1,))[0] ** 2, None, None)
            records[turned] = replace(record, name=turned, op="Conv", shape=shape, moments=None)
    remove_dead(model.graph)
    return replace(calibration, tensors=records)


def _can_be_turned(node: ir.Node, weight: Array) -> bool:
    """Over two axes of space, by the same stride, without groups, its pads written out and its bias a constant."""
    strides = set(attribute_of(node, "strides", (1, 1)))
    plain = attribute_of(node, "auto_pad", "NOTSET") == "NOTSET" and "output_shape" not in node.attributes
    constant = input_of(node, 2) is None or array_of(input_of(node, 2)) is not None
    by_one_stride = len(strides) == 1 and max(strides) > 1
    return weight.ndim == 4 and attribute_of(node, "group", 1) == 1 and by_one_stride and plain and constant


def _turn(edits: Edits, node: ir.Node, last: ir.Node, weight: Array) -> str:
    """The convolution and the clip behind it, whose output is named, a DepthToSpace, and a Slice where that is longer."""
    space = (ANY, ANY)
    axes, out = read_phases(node, space, weight.shape[2:])
    window, name, stride = find_window(axes, space), name_of(last.outputs[0]), axes[0].stride
    inputs = [node.inputs[0], edits.constant(f"{name_of(node.inputs[1])}.turned", turn_weight(weight, axes))]
    bias = array_of(input_of(node, 2))
    if bias is not None:
        inputs.append(edits.constant(f"{name_of(node.inputs[2])}.turned", repeat_bias(bias, axes)))
    value = edits.insert(last, "Conv", inputs, {"pads": window.pads}, output=f"{name_of(node.outputs[0])}.turned")
    if last is not node:
        rest = {key: attribute.value for key, attribute in last.attributes.items()}
        value = edits.insert(last, last.op_type, [value, *last.inputs[1:]], rest, output=f"{name}.turned")
    crops = [wanted - stride * length for wanted, length in zip(out, window.outputs(space), strict=True)]
    laid = {"blocksize": stride, "mode": "DCR"}
    if not any(crops):
        edits.replace(last, "DepthToSpace", [value], laid)
        return name_of(value)
    whole = edits.insert(last, "DepthToSpace", [value], laid, output=f"{name}.whole")
    ends = [crop or np.iinfo(np.int64).max for crop in crops]
    ints = (np.array(each, np.int64) for each in ([0, 0], ends, [2, 3]))
    edits.replace(last, "Slice", [whole, *(edits.constant(f"{name}.crop", each) for each in ints)])
    return name_of(value)
