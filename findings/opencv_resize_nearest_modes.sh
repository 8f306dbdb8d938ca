#!/usr/bin/env bash
# Resize to the nearest pixel with each nearest_mode, in OpenCV 4.14.0.
#
# Expected: the modes that are not there are refused, the others are right.
# Seen: nearest_mode is not read: with a given coordinate transformation all four give the same answer.  Of three times as many
# pixels it is floor for asymmetric coordinates and round for half_pixel.  OpenCV 5 is right.
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
MODES = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
}
PLACES = {"asymmetric": np.arange(15) / 3, "half_pixel": (np.arange(15) + 0.5) / 3 - 0.5}
for places, at in PLACES.items():
    answers = []
    for mode, whole in MODES.items():
        right = x[..., np.clip(whole(at), 0, 4).astype(int)]
        node = helper.make_node(
            "Resize", ["x", "", "scales"], ["y"], mode="nearest", nearest_mode=mode, coordinate_transformation_mode=places
        )
        found = compare([node], x, right, {"scales": np.array([1, 1, 1, 3], np.float32)})
        answers.append(found)
        print(f"{runtime}, {places}, {mode}: {int((found != right).sum())} of 15 pixels differ")
    assert all(np.array_equal(each, answers[0]) for each in answers)
PYTHON
runtime=opencv-python-headless==4.14.0.94
"${install[@]}" --no-deps --target "$folder/runtime" "$runtime"
ORT_DISABLE_TELEMETRY=1 PYTHONPATH="$folder/runtime" "$folder/env/bin/python" "$folder/ask.py" "$folder" "$runtime"
