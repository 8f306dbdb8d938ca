"""ConvTranspose as a convolution whose channels are its phases (arithmetic/phases.py), which are then laid out in space."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.phases import Phases, find_window, repeat_bias, turn_weight
from fcdeploy.graph.nodes import attribute_of
from fcdeploy.graph.windows import read_phases
from fcdeploy.native.program.tensors import Tensor
from fcdeploy.native.reading.layers import Form, read_layer
from fcdeploy.native.reading.moves import spread_out, take_part
from fcdeploy.native.reading.operands import Fixed
from fcdeploy.native.reading.reader import Reader, name_output, read_shape


def conv_transpose(reader: Reader, node: ir.Node) -> None:
    x, weight = read_shape(reader.read(node.inputs[0])), reader.get_input(node, 1)
    if not isinstance(weight, Fixed):
        raise reader.refuse(node, "its weights are computed at run time")
    if len(x) not in (3, 4):
        raise reader.refuse(node, f"its input has {len(x)} axes, expected 3 or 4")
    groups, kernel = attribute_of(node, "group", 1), weight.array.shape[2:]
    axes, out = read_phases(node, x[2:], kernel)
    if min(out) < 1:
        raise reader.refuse(node, f"its output would have the lengths {list(out)}")
    window = find_window(axes, x[2:])
    times = prod(p.stride for p in axes)
    outs = weight.array.shape[1] * groups
    shape = (x[0], outs * times, *window.outputs(x[2:]))

    def finish(tensor: Tensor) -> Tensor:
        strides = tuple(p.stride for p in axes)
        whole = spread_out(reader, node, tensor, strides, groups)
        return take_part(reader, node, whole, (x[0], outs, *out), name_output(node))

    forward = _turn_weight(weight, axes, groups)
    read_layer(
        reader,
        node,
        forward,
        (0, forward),
        shape,
        window,
        groups,
        Form(times, lambda bias: repeat_bias(bias, axes, groups), finish),
    )


def _turn_weight(weight: Fixed, axes: tuple[Phases, ...], groups: int) -> Fixed:
    """Weights (in, out / groups, *kernel) as a convolution's: (groups x phases x out / groups, in / groups, *offsets)."""
    array = turn_weight(weight.array, axes, groups)
    if weight.integers is None or weight.scale is None or weight.zero is None or weight.axis not in (None, 1):
        return Fixed(array)
    zero = weight.zero.astype(np.int16).reshape((1, -1, *[1] * len(axes)) if weight.zero.size > 1 else ())
    centred = weight.integers.astype(np.int16) - zero
    if centred.min(initial=0) < -128 or centred.max(initial=0) > 127:
        return Fixed(array)
    times = groups * prod(p.stride for p in axes)
    scale = np.tile(weight.scale, times) if weight.scale.size > 1 else weight.scale
    axis = 0 if weight.scale.size > 1 else None
    return Fixed(array, turn_weight(centred.astype(np.int8), axes, groups), scale, np.zeros(1, np.int8), axis)
