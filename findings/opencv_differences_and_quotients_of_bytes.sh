#!/usr/bin/env bash
# Div and Sub between pairs of QuantizeLinear and DequantizeLinear, in OpenCV 5.0.0.
#
# Expected: 1, 2, 4 and 6 over 2 are 0.5, 1, 2 and 3; less 2 they are -1, 0, 2 and 4, as without the pair behind it.
# Seen: both are 3, 4, 6 and 8: the sum.  Mul is right, and so is either without the last pair.
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



x = np.array([[1, 2, 4, 6]], np.float32)
held = {"scale": np.float32(0.125), "zero": np.uint8(100), "k": np.uint8(116)}
front = [*pair("x", "a", "scale", "zero"), helper.make_node("DequantizeLinear", ["k", "scale", "zero"], ["two"])]
for op, right, seen in (("Div", x / 2, x + 2), ("Sub", x - 2, x + 2), ("Mul", x * 2, x * 2)):
    found = compare([*front, helper.make_node(op, ["a", "two"], ["z"]), *pair("z", "y", "scale", "zero")], x, right, held)
    print(f"{runtime}: {op} of {x[0].tolist()} and 2 is {found[0].tolist()}, expected {right[0].tolist()}")
    assert np.array_equal(found, seen)
for op, right in (("Div", x / 2), ("Sub", x - 2)):
    assert np.allclose(compare([*front, helper.make_node(op, ["a", "two"], ["y"])], x, right, held), right)
PYTHON
runtime=opencv-python-headless==5.0.0.93
"${install[@]}" --no-deps --target "$folder/runtime" "$runtime"
ORT_DISABLE_TELEMETRY=1 PYTHONPATH="$folder/runtime" "$folder/env/bin/python" "$folder/ask.py" "$folder" "$runtime"
