#!/usr/bin/env bash
# MaxPool and ConvTranspose with dilations, in OpenCV 4.14.0.
#
# Expected: dilations of two widen the window from 2 pixels to 3, as they do in Conv; or the file is refused.
# Seen: they are left out: the answers are those of a window without gaps, with other lengths.  OpenCV 5 is right.
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


x = np.arange(1, 6, dtype=np.float32).reshape(1, 1, 1, 5)
w = np.ones((1, 1, 1, 2), np.float32)
pool = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[1, 2], dilations=[1, 2])
found = compare([pool], -x, -x[..., :3])
print(f"{runtime}: MaxPool of {(-x).ravel().tolist()} is {found.ravel().tolist()}, expected {(-x[..., :3]).ravel().tolist()}")
assert np.array_equal(found, -x[..., :4])
spread = helper.make_node("ConvTranspose", ["x", "w"], ["y"], dilations=[1, 2])
right = np.array([1, 2, 4, 6, 8, 4, 5], np.float32).reshape(1, 1, 1, 7)
found = compare([spread], x, right, {"w": w})
print(f"{runtime}: ConvTranspose of {x.ravel().tolist()} is {found.ravel().tolist()}, expected {right.ravel().tolist()}")
assert found.ravel().tolist() == [1, 3, 5, 7, 9, 5]
plain = helper.make_node("Conv", ["x", "w"], ["y"], dilations=[1, 2])
right = np.array([4, 6, 8], np.float32).reshape(1, 1, 1, 3)
assert np.array_equal(compare([plain], x, right, {"w": w}), right)
PYTHON
runtime=opencv-python-headless==4.14.0.94
"${install[@]}" --no-deps --target "$folder/runtime" "$runtime"
ORT_DISABLE_TELEMETRY=1 PYTHONPATH="$folder/runtime" "$folder/env/bin/python" "$folder/ask.py" "$folder" "$runtime"
