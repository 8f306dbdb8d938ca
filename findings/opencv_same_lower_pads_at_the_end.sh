#!/usr/bin/env bash
# Conv, MaxPool and AveragePool with auto_pad SAME_LOWER and a kernel of two, in OpenCV 4.14.0 and 5.0.0.
#
# Expected: SAME_LOWER puts the odd pad in front, SAME_UPPER behind.
# Seen: both put it behind.  The sums of neighbours of 1, 2, 3, 4 are 3, 5, 7, 4 instead of 1, 3, 5, 7: everything is shifted by a
# pixel.  Written as pads (1 in front) it is right.
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


x = np.arange(1, 5, dtype=np.float32).reshape(1, 1, 1, 4)
w = {"w": np.ones((1, 1, 1, 2), np.float32)}
for op, inputs, told, lower, upper in (
    ("Conv", ["x", "w"], {}, [1, 3, 5, 7], [3, 5, 7, 4]),
    ("MaxPool", ["x"], {"kernel_shape": [1, 2]}, [1, 2, 3, 4], [2, 3, 4, 4]),
    ("AveragePool", ["x"], {"kernel_shape": [1, 2]}, [1, 1.5, 2.5, 3.5], [1.5, 2.5, 3.5, 4]),
):
    held, right = w if op == "Conv" else {}, np.array(lower, np.float32).reshape(x.shape)
    same = compare([helper.make_node(op, inputs, ["y"], auto_pad="SAME_LOWER", **told)], x, right, held)
    pads = compare([helper.make_node(op, inputs, ["y"], pads=[0, 1, 0, 0], **told)], x, right, held)
    print(f"{runtime}: {op} SAME_LOWER {same.ravel().tolist()}, with pads {pads.ravel().tolist()}, expected {lower}")
    assert same.ravel().tolist() == upper and pads.ravel().tolist() == lower
PYTHON
for runtime in opencv-python-headless==4.14.0.94 opencv-python-headless==5.0.0.93; do
  "${install[@]}" --no-deps --target "$folder/$runtime" "$runtime"
  ORT_DISABLE_TELEMETRY=1 PYTHONPATH="$folder/$runtime" "$folder/env/bin/python" "$folder/ask.py" "$folder" "$runtime"
done
