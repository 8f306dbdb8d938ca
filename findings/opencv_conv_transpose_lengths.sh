#!/usr/bin/env bash
# ConvTranspose that is told its lengths by auto_pad or output_shape, in OpenCV 4.14.0 and 5.0.0.
#
# Expected: SAME_UPPER gives stride times as many elements, output_shape as many as it says, and the pads follow from it; or the
# file is refused.
# Seen: neither is followed.  From 3 rows, with a kernel of 3 and a stride of 2, SAME_UPPER gives 5 instead of 6, and an
# output_shape of 6 gives 7 (as without padding) in OpenCV 4 and 8 in OpenCV 5.
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


x = np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3)
x = np.concatenate([x, x], axis=1)
w = np.ones((2, 1, 3, 3), np.float32)
full = np.zeros((7, 7), np.float32)
for row in range(3):
    for column in range(3):
        full[2 * row : 2 * row + 3, 2 * column : 2 * column + 3] += 2 * x[0, 0, row, column]
longest = 8 if runtime.startswith("opencv-python-headless==5") else 7
for told, right, seen in (
    ({"auto_pad": "SAME_UPPER"}, full[None, None, :6, :6], 5),
    ({"output_shape": [6, 6]}, full[None, None, 1:, 1:], longest),
):
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], **told)
    found = compare([node], x, right, {"w": w})
    print(f"{runtime}, {told}: {found.shape[2:]}, expected (6, 6)")
    assert found.shape[2:] == (seen, seen)
PYTHON
for runtime in opencv-python-headless==4.14.0.94 opencv-python-headless==5.0.0.93; do
  "${install[@]}" --no-deps --target "$folder/$runtime" "$runtime"
  ORT_DISABLE_TELEMETRY=1 PYTHONPATH="$folder/$runtime" "$folder/env/bin/python" "$folder/ask.py" "$folder" "$runtime"
done
