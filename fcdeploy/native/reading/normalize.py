"""LayerNormalization: rows less their mean, over their deviation."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.nodes import attribute_of, name_of
from fcdeploy.native.program.steps import Normalize
from fcdeploy.native.program.tensors import Tensor
from fcdeploy.native.reading.reader import Reader, name_output


def layer_normalization(reader: Reader, node: ir.Node) -> None:
    x = reader.make_floats(reader.read(node.inputs[0]))
    scale, bias = reader.get_constant(node, 1), reader.get_constant(node, 2)
    if scale is None or (reader.get_input(node, 2) is not None and bias is None):
        raise reader.refuse(node, "its factors are computed at run time")
    if any(value.uses() for value in node.outputs[1:]):
        raise reader.refuse(node, "only its first output has a kernel")
    axis = attribute_of(node, "axis", -1) % len(x.shape)
    rows = x.shape[axis:]
    gain, shift = (np.broadcast_to(each, rows).reshape(-1) for each in (scale, np.zeros(1) if bias is None else bias))
    to = Tensor(name_output(node), x.shape, "float32")
    reader.add(
        Normalize(
            node=name_of(node), inputs=(x,), outputs=(to,), length=prod(rows), gain=gain.astype(np.float32),
            shift=shift.astype(np.float32), epsilon=np.float32(attribute_of(node, "epsilon", 1e-5)),
        )
    )  # fmt: skip
    reader.set(node.outputs[0], to)
