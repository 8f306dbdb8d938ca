"""Models of operator sets before 13 are brought there: the first whose QuantizeLinear has a scale per channel."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx import version_converter

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.model import name_everything
from fcdeploy.graph.opset import LOWEST


def raise_opset(model: ir.Model) -> bool:
    """Convert the model in place when its operator set is too old; names of tensors stay. Return whether it was.

    Raises FcdeployError when ONNX cannot convert one of its operators.
    """
    opset = model.graph.opset_imports.get("", LOWEST)
    if opset >= LOWEST:
        return False
    proto = ir.to_proto(model)
    proto.ir_version = max(proto.ir_version, 4)  # weights are no inputs
    try:
        converted = version_converter.convert_version(onnx.shape_inference.infer_shapes(proto), LOWEST)
    except Exception as error:  # the converter raises whatever its C++ side threw
        raise FcdeployError(
            f"the model's operator set {opset} cannot be brought to {LOWEST}: {str(error).strip().splitlines()[0]}",
            f"export the model again with operator set {LOWEST} or above",
        ) from error
    result = ir.from_proto(converted)
    model.graph, model.ir_version = result.graph, max(result.ir_version, 7)
    name_everything(model.graph)
    return True
