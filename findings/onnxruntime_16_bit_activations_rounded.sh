#!/usr/bin/env bash
# A MatMul of 16-bit activations with int8 weights in onnxruntime 1.31.1 and 1.32.0.
#
# Expected: QuantizeLinear and DequantizeLinear to uint16 in front of a MatMul whose weights are int8 leave the activations at 16
# bits; onnxruntime has no integer kernel for them, so both versions dequantize and multiply floats, with errors near 1e-6.
# Seen: 1.31.1 does.  1.32.0 turns weight and MatMul into MatMulNBits, whose default kernel rounds activations to bytes, block by
# block: the error is a thousand times larger, and 16 bits buy nothing.  `session.qdq_matmulnbits_accuracy_level` = 1 restores it.
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cat >"$folder/ask.py" <<'PYTHON'
import sys

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

random = np.random.default_rng(0)
x = random.normal(size=(4, 256)).astype(np.float32)
w = random.integers(-127, 128, (256, 64)).astype(np.int8)
constants = {"s": np.float32(1e-4 * 2), "z": np.uint16(32768), "w": w, "ws": np.full(64, 0.01, np.float32), "wz": np.zeros(64, np.int8)}
nodes = [
    helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
    helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
    helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["dw"], axis=1),
    helper.make_node("MatMul", ["d", "dw"], ["y"]),
]
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", [4, 256]), ("y", [4, 64]))]
weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
graph = helper.make_graph(nodes, "dense", ends[:1], ends[1:], weights)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


def error(level: str | None) -> float:
    options = ort.SessionOptions()
    if level:
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", level)
    (y,) = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    read = (np.clip(np.rint(x / constants["s"]) + 32768, 0, 65535) - 32768) * np.float64(constants["s"])
    expected = read @ (w * 0.01)
    return float(np.abs(y - expected).max() / np.abs(expected).max())


usual, exact = error(None), error("1")
print(f"onnxruntime {ort.__version__}: error {usual:.1e} of the largest output, {exact:.1e} with accuracy level 1")
rounds = sys.argv[1] == "rounds"
assert (usual > 1e-3) == rounds and (rounds or usual < 1e-5), usual
assert exact < 1e-5, exact
PYTHON
for case in 1.31.1:keeps 1.32.0:rounds; do
  python3 -m venv "$folder/${case%:*}"
  "$folder/${case%:*}/bin/python" -m pip install --quiet --disable-pip-version-check onnx==1.23.2 "onnxruntime==${case%:*}" numpy==2.4.6
  ORT_DISABLE_TELEMETRY=1 "$folder/${case%:*}/bin/python" "$folder/ask.py" "${case#*:}"
done
