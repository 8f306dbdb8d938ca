#!/usr/bin/env bash
# A quantized MatMul with a bias added behind it, lengths free and fixed, in onnxruntime 1.32.0 on x86-64.
#
# Expected: the product between DequantizeLinear nodes runs in an integer kernel (MatMulIntegerToFloat), whatever is known of the lengths.
# Seen: it does where the first axis is free. With the same axis declared as 1, MatMul and Add first become a float Gemm, and the
# bytes of the weight are turned into floats in every run. A bias of shape (1, 1, n) instead of (n) keeps the integer kernel.
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
ORT_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

random = np.random.default_rng(0)
WEIGHT = random.integers(-127, 128, (8, 5)).astype(np.int8)
BIAS = random.normal(size=5).astype(np.float32)


def kernels(length: int | str, bias: np.ndarray) -> list[str]:
    """The nodes that are left after onnxruntime's optimizations."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xf"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wf"]),
        helper.make_node("MatMul", ["xf", "wf"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["y"]),
    ]
    constants = {"xs": np.float32(0.02), "xz": np.uint8(128), "ws": np.float32(0.01), "wz": np.int8(0), "w": WEIGHT, "b": bias}
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [length, 6, k]) for n, k in (("x", 8), ("y", 5))]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "product", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    options = ort.SessionOptions()
    options.optimized_model_filepath = "optimized.onnx"
    options.log_severity_level = 4
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load("optimized.onnx").graph.node]


free, fixed, wide = kernels("n", BIAS), kernels(1, BIAS), kernels(1, BIAS.reshape(1, 1, 5))
for what, found in (("free", free), ("fixed", fixed), ("fixed, bias (1, 1, 5)", wide)):
    print(f"{what}: {', '.join(found)}")
assert "MatMulIntegerToFloat" in free and "Gemm" not in free
assert "Gemm" in fixed and "MatMulIntegerToFloat" not in fixed
assert "MatMulIntegerToFloat" in wide and "Gemm" not in wide
PYTHON
