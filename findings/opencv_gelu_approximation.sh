#!/usr/bin/env bash
# Gelu with approximate="tanh", in OpenCV 4.14.0 and 5.0.0.
#
# Expected: 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))), as networks were trained with; or the file is refused.
# Seen: the one by erf, which is up to 5e-4 away: more than a step of 16 bits, and a bit more in every layer.
#
# Fails when any of this changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
install=("$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check)
"${install[@]}" onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat >"$folder/ask.py" <<'PYTHON'
import math
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


x = np.linspace(-4, 4, 41, dtype=np.float32).reshape(1, -1)
right = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
plain = np.array([[0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x[0]]])
found = compare([helper.make_node("Gelu", ["x"], ["y"], approximate="tanh")], x, right.astype(np.float32), opset=20)
print(f"{runtime}: {np.abs(found - right).max():.0e} from tanh, {np.abs(found - plain).max():.0e} from erf")
assert np.allclose(found, plain, atol=1e-5) and np.abs(found - right).max() > 3e-4
PYTHON
for runtime in opencv-python-headless==4.14.0.94 opencv-python-headless==5.0.0.93; do
  "${install[@]}" --no-deps --target "$folder/$runtime" "$runtime"
  ORT_DISABLE_TELEMETRY=1 PYTHONPATH="$folder/$runtime" "$folder/env/bin/python" "$folder/ask.py" "$folder" "$runtime"
done
