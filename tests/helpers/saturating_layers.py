"""Layers with chosen weights between quantizers, and the proof of one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto as Tp
from onnx import helper as oh
from onnx import numpy_helper as nh

from fcdeploy.proof.saturation import SaturationProof, prove_no_saturation

Array = np.ndarray[Any, Any]


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    inner = op in ("QGemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QAttention")
    domain = "com.microsoft" if inner else ""
    names = ["" if name == "_" else name for name in inputs.split()]
    return oh.make_node(op, names, outputs.split(), f"{op}_{outputs.split()[0]}", domain=domain, **attributes)


def model(nodes: list[onnx.NodeProto], weights: dict[str, Any], x: int = Tp.FLOAT) -> ir.Model:
    graph = oh.make_graph(
        nodes, "g", [oh.make_tensor_value_info("x", x, None)], [oh.make_tensor_value_info("y", Tp.FLOAT, None)],
        [nh.from_array(np.asarray(array), name) for name, array in weights.items()],
    )  # fmt: skip
    opsets = [oh.make_opsetid("", 17), oh.make_opsetid("com.microsoft", 1)]
    return ir.from_proto(oh.make_model(graph, opset_imports=opsets, ir_version=8))


def qdq(
    op: str,
    w: Array,
    *,
    kind: Any = np.uint8,
    scale: float = 0.1,
    zero: int = 0,
    before: tuple[onnx.NodeProto, ...] = (),
    after: bool = True,
    axis: int | None = None,
    **attributes: Any,
) -> ir.Model:
    """x [-> before -> b] -> Q -> DQ -> op with a quantized weight [-> Q] -> DQ -> y."""
    per_channel = axis is not None
    weights = {
        "s": np.float32(scale), "z": kind(zero), "w": w,
        "ws": np.full(w.shape[axis], 0.01, np.float32) if axis is not None else np.float32(0.01),
        "wz": np.zeros(w.shape[axis], w.dtype) if axis is not None else w.dtype.type(0),
        "six": np.float32(6), "three": np.float32(3), "box": np.array([0, 0, 0, 0, 2, 2, 2, 2], np.float32),
        "scales": np.ones(4, np.float32), "apart": np.array([1, 0.01], np.float32),
    }  # fmt: skip
    nodes = [
        *before,
        node("QuantizeLinear", f"{'b' if before else 'x'} s z", "xq"),
        node("DequantizeLinear", "xq s z", "xd"),
        node("DequantizeLinear", "w ws wz", "wd", **({"axis": axis} if per_channel else {})),
        node(op, "xd wd", "o" if after else "y", **attributes),
    ]
    if after:
        nodes += [node("QuantizeLinear", "o s z", "q"), node("DequantizeLinear", "q s z", "y")]
    return model(nodes, weights)


def only(network: ir.Model) -> SaturationProof:
    (proof,) = prove_no_saturation(network)
    return proof
