"""One layer between integers, as runtimes fuse it: right, or otherwise than written."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from fcdeploy.graph.model import name_everything
from fcdeploy.runtime import options as session_options

Array = np.ndarray[Any, Any]
N = 16
X_SCALE = np.float32(0.05)
RANDOM = np.random.default_rng(1)
SCALES = (np.exp(RANDOM.normal(size=N)) * 0.01).astype(np.float32)
SQUARE = RANDOM.integers(-60, 60, (N, N)).astype(np.int8)
CONV = RANDOM.integers(-60, 60, (8, 8, 3, 3)).astype(np.int8)
BIAS = RANDOM.integers(-5000, 5000, N).astype(np.int32)
ROWS = (RANDOM.normal(size=(4, N)) * 2).astype(np.float32)
IMAGE = (RANDOM.normal(size=(1, 8, 6, 6)) * 2).astype(np.float32)


def layer(
    op: str,
    x: Array,
    weight: Array,
    scale: Any,
    axis: int = 1,
    *,
    zero: Array | None = None,
    bias: tuple[Array, Array, Array] | None = None,
    quantized_input: bool = True,
    quantized_output: bool = True,
    entries: dict[str, str] | None = None,
    dequantize: dict[str, Any] | None = None,
    add: bool = False,
    **attributes: Any,
) -> ir.Model:
    """x -> Q -> DQ -> one layer -> Q -> DQ -> y; the layer is called 'layer', its weight 'w', its bias 'b'."""
    arrays = {"xs": X_SCALE, "xz": np.uint8(128), "w": weight, "ws": np.asarray(scale, np.float32)}
    arrays |= {"ys": np.float32(0.5), "yz": np.uint8(128)} | ({} if zero is None else {"wz": zero})
    node = helper.make_node
    nodes = [node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]), node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"])]
    nodes = nodes if quantized_input else []
    weights = ["w", "ws"] + (["wz"] if zero is not None else [])
    nodes.append(node("DequantizeLinear", weights, ["wd"], "weight", axis=axis, **(dequantize or {})))
    inputs = ["xd" if quantized_input else "x", "wd"]
    if bias is not None:
        arrays |= dict(zip(("b", "bs", "bz"), bias, strict=True))
        nodes.append(node("DequantizeLinear", ["b", "bs", "bz"], ["bd"], "bias", axis=0))
        inputs.append("bd")
    if add:
        nodes += [node(op, inputs[:2], ["m"], "layer", **attributes), node("Add", ["m", "bd"], ["r"], "add")]
    else:
        nodes.append(node(op, inputs, ["r"], "layer", **attributes))
    if quantized_output:
        nodes += [node("QuantizeLinear", ["r", "ys", "yz"], ["q"]), node("DequantizeLinear", ["q", "ys", "yz"], ["y"])]
    else:
        nodes.append(node("Identity", ["r"], ["y"]))
    graph = helper.make_graph(
        nodes, "trap",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()],
    )  # fmt: skip
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))
    name_everything(model.graph)
    if entries:
        session_options.write_options(model, entries)
    return model


def biased(factor: float, product: Array, *, zero: int = 0) -> tuple[Array, Array, Array]:
    """Bias, scale, zero point; the scale is so many times the product of input scale and weight scale."""
    count = len(product)
    return BIAS[:count], (factor * product).astype(np.float32), np.full(count, zero, np.int32)


PRODUCT = X_SCALE * SCALES
ZEROS = np.zeros(N, np.int8)
AXIS = "the scales of weight 'w' are along axis {}, not its outputs' axis {}"
BIAS_SCALE = "the scale of bias 'b' is not input scale x weight scale"
WRONG = {
    "matmul": (layer("MatMul", ROWS, SQUARE, SCALES, 0), ROWS, AXIS.format(0, 1)),
    "matmul, float output": (layer("MatMul", ROWS, SQUARE, SCALES, 0, quantized_output=False), ROWS, AXIS.format(0, 1)),
    "matmul, negative axis": (layer("MatMul", ROWS, SQUARE, SCALES, -2), ROWS, AXIS.format(0, 1)),
    "gemm": (layer("Gemm", ROWS, SQUARE, SCALES, 0, zero=ZEROS), ROWS, AXIS.format(0, 1)),
    "gemm transposed": (layer("Gemm", ROWS, SQUARE, SCALES, 1, zero=ZEROS, transB=1), ROWS, AXIS.format(1, 0)),
    "conv": (layer("Conv", IMAGE, CONV, SCALES[:8], 1), IMAGE, AXIS.format(1, 0)),
    "conv, kernel axis": (layer("Conv", IMAGE, CONV[:3], SCALES[:3], 2), IMAGE, AXIS.format(2, 0)),
    "gemm bias": (layer("Gemm", ROWS, SQUARE, SCALES, 1, zero=ZEROS, bias=biased(1.5, PRODUCT)), ROWS, BIAS_SCALE),
    "matmul and add": (
        layer("MatMul", ROWS, SQUARE, SCALES, 1, zero=ZEROS, bias=biased(1.5, PRODUCT), add=True), ROWS, BIAS_SCALE,
    ),
    "gemm bias zero point": (
        layer("Gemm", ROWS, SQUARE, SCALES, 1, zero=ZEROS, bias=biased(1, PRODUCT, zero=1000)), ROWS,
        "the zero point of bias 'b' is not 0",
    ),
    "conv bias, tiny scales": (
        layer("Conv", IMAGE, CONV, SCALES[:8] * 1e-4, 0,
              bias=(BIAS[:8] * 20_000, 2e-4 * PRODUCT[:8], np.zeros(8, np.int32))),
        IMAGE, BIAS_SCALE,
    ),
}  # fmt: skip
