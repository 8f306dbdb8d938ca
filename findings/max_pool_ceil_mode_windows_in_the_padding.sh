#!/usr/bin/env bash
# MaxPool with ceil_mode and padding, of operator set 22, in OpenVINO 2026.4.1 and OpenCV 5.0.0.
#
# Expected: "sliding windows that would start in the right padded region are ignored": over 5 elements with a pad on each side,
# windows of two in steps of two start at -1, 1 and 3: three windows.
# Seen: a fourth, which starts at 5 and sees nothing but padding.  Its maximum is the lowest float, -3.4e38, which the layers
# behind it take for a number.
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
    if runtime.startswith("openvino"):
        import openvino

        return openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]
    if runtime.startswith("opencv"):
        import cv2

        net = cv2.dnn.readNetFromONNX(path)
        net.setInput(x)
        return net.forward()
    raise SystemExit(f"{runtime} is unknown")


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
node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[1, 2], strides=[1, 2], pads=[0, 1, 0, 1], ceil_mode=1)
found = compare([node], x, np.array([1, 3, 5], np.float32).reshape(1, 1, 1, 3), opset=22)
print(f"{runtime}: {found.ravel().tolist()}, expected [1.0, 3.0, 5.0]")
assert found.shape == (1, 1, 1, 4) and found.ravel()[:3].tolist() == [1, 3, 5] and found.ravel()[3] < -3e38
PYTHON
for runtime in openvino==2026.4.1 opencv-python-headless==5.0.0.93; do
  "${install[@]}" --no-deps --target "$folder/$runtime" "$runtime"
  ORT_DISABLE_TELEMETRY=1 PYTHONPATH="$folder/$runtime" "$folder/env/bin/python" "$folder/ask.py" "$folder" "$runtime"
done
