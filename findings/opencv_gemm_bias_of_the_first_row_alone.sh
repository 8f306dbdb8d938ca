#!/usr/bin/env bash
# A Gemm of bytes with a bias, of a batch of three rows, in OpenCV 4.14.0.
#
# Expected: every row of a batch gets the bias.
# Seen: the first row does; of the others it is left out.  Weights and input are 0, so the answers are the bias alone.  In
# float the Gemm is right.  With a batch of one all is right, which is how a model is usually tried.
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
install=("$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check)
"${install[@]}" onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat >"$folder/ask.py" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

folder, runtime = Path(sys.argv[1]), sys.argv[2]


def ask(path: str, x: np.ndarray) -> np.ndarray:
    import cv2

    net = cv2.dnn.readNetFromONNX(path)
    net.setInput(x)
    return net.forward()


def compare(
    nodes: list[onnx.NodeProto], x: np.ndarray, right: np.ndarray, held: dict[str, np.ndarray] | None = None, opset: int = 13
) -> np.ndarray:
    """What the runtime answers; onnxruntime must answer what is right."""
    ends = [helper.make_tensor_value_info(key, TensorProto.FLOAT, each.shape) for key, each in (("x", x), ("y", right))]
    constants = [numpy_helper.from_array(np.asarray(value), key) for key, value in (held or {}).items()]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], constants)
    ir_version = 8 if opset < 21 else 10
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    onnx.checker.check_model(model, full_check=True)
    path = str(folder / "model.onnx")
    onnx.save(model, path)
    (usual,) = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    assert usual.shape == right.shape and np.allclose(usual, right, atol=1e-4), usual
    return np.asarray(ask(path, x))


def pair(x: str, y: str, scale: str, zero: str) -> list[onnx.NodeProto]:
    """Quantized and read back."""
    return [
        helper.make_node("QuantizeLinear", [x, scale, zero], [f"{y}/bytes"]),
        helper.make_node("DequantizeLinear", [f"{y}/bytes", scale, zero], [y]),
    ]



x = np.zeros((3, 2), np.float32)
bias = np.array([100, -300], np.int32)
held = {
    "scale": np.float32(0.05), "zero": np.uint8(128), "w": np.zeros((2, 2), np.int8), "ws": np.full(2, 0.1, np.float32),
    "wz": np.zeros(2, np.int8), "b": bias, "bs": np.full(2, 0.005, np.float32), "out": np.float32(0.1),
}
nodes = [
    *pair("x", "a", "scale", "zero"),
    helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["weights"], axis=1),
    helper.make_node("DequantizeLinear", ["b", "bs"], ["bias"], axis=0),
    helper.make_node("Gemm", ["a", "weights", "bias"], ["sums"]),
    *pair("sums", "y", "out", "zero"),
]
right = np.tile(bias * 0.005, (3, 1)).astype(np.float32)
found = compare(nodes, x, right, held)
print(f"{runtime}: right {right.tolist()}, found {np.round(found, 3).tolist()}")
assert np.allclose(found[0], right[0]) and np.all(found[1:] == 0)
plain = {"w": np.zeros((2, 2), np.float32), "b": right[0]}
floats = compare([helper.make_node("Gemm", ["x", "w", "b"], ["y"])], x, right, plain)
assert np.allclose(floats, right)
PYTHON
runtime=opencv-python-headless==4.14.0.94
"${install[@]}" --no-deps --target "$folder/runtime" "$runtime"
ORT_DISABLE_TELEMETRY=1 PYTHONPATH="$folder/runtime" "$folder/env/bin/python" "$folder/ask.py" "$folder" "$runtime"
