#!/usr/bin/env bash
# QLinearMatMul with weights in uint8, in OpenCV 4.14.0.
#
# Expected: the zero point of the weights is subtracted from them.
# Seen: with a zero point of 128 it is right; with any other the answers are those of 128.  OpenCV 5 is right.
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


x = np.array([[1, 2], [3, 4]], np.float32)
w = np.array([[130, 126], [128, 140]], np.uint8)
nodes = [
    helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["bytes"]),
    helper.make_node("QLinearMatMul", ["bytes", "one", "zero", "w", "one", "wz", "one", "middle"], ["sums"]),
    helper.make_node("DequantizeLinear", ["sums", "one", "middle"], ["y"]),
]
for zero in (128, 120):
    held = {"one": np.float32(1), "zero": np.uint8(0), "w": w, "wz": np.uint8(zero), "middle": np.uint8(100)}
    right, of_128 = (x @ (w.astype(np.float32) - each) for each in (zero, 128))
    found = compare(nodes, x, right, held)
    print(f"{runtime}, zero point {zero}: right {right.tolist()}, found {found.tolist()}")
    assert np.array_equal(found, of_128)
PYTHON
runtime=opencv-python-headless==4.14.0.94
"${install[@]}" --no-deps --target "$folder/runtime" "$runtime"
ORT_DISABLE_TELEMETRY=1 PYTHONPATH="$folder/runtime" "$folder/env/bin/python" "$folder/ask.py" "$folder" "$runtime"
